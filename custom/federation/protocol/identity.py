"""What a job and a site must have in common: the bundle's version, its code and its configs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import bundle

CONFIGS = "configs"


class Identity(NamedTuple):
    """Which bundle somebody runs.

    Attributes:
        version: the bundle's version.
        code: SHA-256 over the package `bundle`, hexadecimal.
        configs: SHA-256 over the config files that the job names, in their order.
    """

    version: str
    code: str
    configs: str


def _hash_file(path: Path) -> str:
    # A checkout on Windows has other line ends, but is the same code.
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def hash_files(root: str | Path) -> dict[str, str]:
    """Hash a bundle's code and its configs.

    Args:
        root: the bundle's root folder, with `bundle` and `configs` in it.

    Returns:
        {path from the root: SHA-256 of the content, hexadecimal}, in the order of the paths.
    """
    root = Path(root)
    paths = [*(root / "bundle").rglob("*.py"), *(root / CONFIGS).glob("*")]
    return {
        path.relative_to(root).as_posix(): _hash_file(path)
        for path in sorted(paths)
        if path.is_file()
    }


# Read at import: an edit that is made later must not pass for what this process runs.
LOADED: Mapping[str, str] = hash_files(bundle.ROOT)


def identify(configs: Iterable[str], files: Mapping[str, str] = LOADED) -> Identity:
    """Identify a bundle, as it is used with these config files.

    What a site sets for itself (folders, device) must come from elsewhere than these files.

    Args:
        configs: names of files in configs/, in the order in which they are merged.
        files: as `hash_files` returns them; default what this process has loaded.

    Raises:
        FileNotFoundError: a config that this installation lacks.
    """
    code = [name for name in files if name.startswith("bundle/")]
    named = [f"{CONFIGS}/{name}" for name in configs]
    _check_there(named, files)
    return Identity(bundle.__version__, _hash_all(code, files), _hash_all(named, files))


def check_unchanged(
    configs: Iterable[str], root: str | Path = bundle.ROOT, files: Mapping[str, str] = LOADED
) -> None:
    """Make sure that configs are still what the identity of this process says.

    Args:
        configs: names of files in configs/.
        root: the bundle's root folder.
        files: as in `identify`.

    Raises:
        FileNotFoundError: as in `identify`.
        ValueError: a config has changed.
    """
    named = [f"{CONFIGS}/{name}" for name in configs]
    _check_there(named, files)
    for name in named:
        if _hash_file(Path(root) / name) != files[name]:
            raise ValueError(
                f"expected {name} as it was when this process started, got a changed file. Start "
                "the process again, at every participant with the same file."
            )


def _check_there(names: Iterable[str], files: Mapping[str, str]) -> None:
    for name in names:
        if name not in files:
            raise FileNotFoundError(
                f"expected {name} in the bundle, found no such file. Install the bundle that the "
                "job was made with."
            )


def _hash_all(names: Iterable[str], files: Mapping[str, str]) -> str:
    lines = "".join(f"{name} {files[name]}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def check_same(expected: Identity, found: Identity) -> None:
    """Refuse another bundle than the job's.

    Raises:
        ValueError: showing both sides of each difference.
    """
    pairs = zip(Identity._fields, expected, found, strict=True)
    different = [f"{name} {ours}, got {theirs}" for name, ours, theirs in pairs if ours != theirs]
    if different:
        raise ValueError(
            f"the bundle differs from the job's: expected {'; expected '.join(different)}. Install "
            "the job's version, without local changes."
        )


def read_identity(values: Mapping[str, Any]) -> Identity:
    """Read an identity from a message or a job's configuration.

    Raises:
        ValueError: a field is missing, or no text.
    """
    found = [values.get(name) for name in Identity._fields]
    if not all(isinstance(value, str) for value in found):
        raise ValueError(
            f"expected the bundle's {', '.join(Identity._fields)} as text, got {found!r:.200}"
        )
    return Identity(*found)
