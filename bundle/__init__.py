"""Patchwork: brain-tumour segmentation when MRI modalities are missing."""

from __future__ import annotations

import json
import sys
from importlib.machinery import PathFinder
from pathlib import Path

__version__ = "0.7.0"

ROOT = str(Path(__file__).resolve().parent.parent)


# Modules of version 0.3 that were run with `python -m`, and what is run in their place.
_MOVED_COMMANDS = {"federation.evidence": "python -m bundle benchmark DIR --grid federation"}


class MovedNames:
    """Last on Python's list of finders: tells where a module or a name of version 0.3 is now.

    MONAI and NVFlare build what a config or a job names; an old name ends there with the new one.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Find nothing.

        Raises:
            ImportError: `name` was a module, or a name in one, up to version 0.3.
        """
        if name.partition(".")[0] in ("bundle", "federation") and (moves := where_now(name)):
            raise ImportError(moves)


def where_now(name: str) -> str | None:
    """Say what a module or a name of version 0.3 is called now; None = it was none.

    In the table, 'gone: ...' stands for a name that has no successor; the rest says what to use.
    """
    text = (Path(__file__).parent / "moved_names.json").read_text(encoding="utf-8")
    table: dict[str, str] = json.loads(text)
    if name not in table:
        return None
    names = [*(old for old in table if old.startswith(f"{name}.")), name]
    news = [table[old] if table[old].startswith("gone: ") else f"now {table[old]}" for old in names]
    moves = "; ".join(f"{old} is {new}" for old, new in zip(names, news, strict=True))
    advice = f"{moves}. Change the name in the config, job or script that has it."
    command = _MOVED_COMMANDS.get(name)
    return f"{advice} The command is now: {command}" if command else advice


def __getattr__(name: str) -> object:
    """Tell where `bundle.name` is now, for expressions in configs.

    Raises:
        AttributeError: always.
    """
    moves = None if name.startswith("_") else where_now(f"bundle.{name}")
    raise AttributeError(moves or f"module 'bundle' has no attribute {name!r}")


sys.meta_path.append(MovedNames)


def root_of(error: BaseException) -> BaseException:
    """Find what went wrong at first; MONAI reports it as a config expression that failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


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


# Of a program that merely imports the bundle, its terminal and its errors are none of our business.
if getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", None) == (
    "monai.bundle.__main__"
):
    from bundle.cli.monai_run import take_over

    take_over()
