"""What a job and a site must have in common: the bundle's version, its code and its configs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


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


def identify(root: str | Path, version: str, configs: Sequence[str]) -> Identity:
    """Identify an installed bundle, as it is used with these config files.

    What a site sets for itself (folders, device) must come from elsewhere than these files.

    Args:
        root: the bundle's root folder, `bundle.ROOT`.
        version: the bundle's version, `bundle.__version__`.
        configs: paths relative to the root, in the order in which they are merged.

    Raises:
        FileNotFoundError: a config that this installation lacks.
    """
    root = Path(root)
    code = sorted(path.relative_to(root).as_posix() for path in (root / "bundle").rglob("*.py"))
    return Identity(version, hash_files(root, code), hash_files(root, configs))


def hash_files(root: Path, names: Iterable[str]) -> str:
    """Hash names and contents of text files, whatever their line ends: SHA-256, hexadecimal.

    Raises:
        FileNotFoundError: there is no such file.
    """
    digest = hashlib.sha256()
    for name in names:
        path = root / name
        if not path.is_file():
            raise FileNotFoundError(
                f"expected {name} in the bundle, found no such file. Install the bundle that the "
                "job was made with."
            )
        # A checkout on Windows has other line ends, but is the same code.
        content = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def check_same(expected: Identity, found: Identity) -> None:
    """Refuse a bundle other than the job's.

    Raises:
        ValueError: showing both sides of each difference.
    """
    pairs = zip(Identity._fields, expected, found, strict=True)
    different = [f"{name} {ours}, got {theirs}" for name, ours, theirs in pairs if ours != theirs]
    if different:
        raise ValueError(
            f"another bundle than the job's: expected {'; expected '.join(different)}. Install the "
            "job's version, without local changes."
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
