"""Patchwork: brain-tumour segmentation when MRI modalities are missing."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path

__version__ = "0.3.1"

ROOT = str(Path(__file__).resolve().parent.parent)


def flag(value: object) -> bool:
    """Read a switch that came from a config or from the command line.

    python-fire hands `--resume false` over as the text 'false', which Python would take for true.

    Raises:
        ValueError: neither true nor false.
    """
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    text = str(value).strip().lower()
    if text not in known:
        raise ValueError(f"expected true or false, got {value!r}")
    return known[text]


def check_root(bundle_root: str) -> str:
    """Make sure that the code in memory belongs to the bundle whose config is being read.

    Two bundles in one process that both own a package `bundle` would otherwise run the first one's
    code with the second one's config, silently.

    Args:
        bundle_root: the bundle's root folder as the host gave it, or this package's own root.

    Returns:
        The root folder.

    Raises:
        RuntimeError: another copy of `bundle` is wanted (its root was given, or it comes first on
            Python's path) than the one that is loaded.
    """
    found = PathFinder.find_spec("bundle", [entry for entry in sys.path if entry])
    roots = [Path(bundle_root).resolve()]
    if found is not None and found.origin:
        roots.append(Path(found.origin).resolve().parent.parent)
    for wanted in roots:
        if str(wanted) != ROOT and (wanted / "bundle" / "__init__.py").exists():
            raise RuntimeError(
                f"a package called 'bundle' is already loaded from {ROOT}, but this config wants "
                f"the one in {wanted}. Run the two bundles in separate processes."
            )
    return ROOT
