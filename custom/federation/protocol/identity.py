"""What a job and a site must have in common: version, code, configs and the large packages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from importlib.machinery import all_suffixes
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import bundle
import federation

CONFIGS = "configs"
# What Python imports from a folder, and the data that our packages read.
_CODE = (*all_suffixes(), ".json", ".yaml", ".yml")


class Identity(NamedTuple):
    """Which bundle somebody runs.

    Attributes:
        version: the bundle's version.
        code: SHA-256 over the package `bundle`, hexadecimal.
        configs: SHA-256 over the config files that the job names, in their order.
        federation: SHA-256 over the package `federation`, from where this process has it.
        torch: PyTorch's version without its build: a site with a GPU has another one than a server.
        monai: MONAI's version.
        nvflare: NVFlare's version.
    """

    version: str
    code: str
    configs: str
    federation: str
    torch: str
    monai: str
    nvflare: str


# Read at import, as the files are. What follows a + in PyTorch's is the build, such as cpu.
_VERSIONS = {name: version(name) for name in ("torch", "monai", "nvflare")}
_VERSIONS["torch"] = _VERSIONS["torch"].partition("+")[0]


def _hash_file(path: Path) -> str:
    # A checkout on Windows has other line ends, but is the same code.
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def _hash_folder(folder: Path, name: str) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {
        f"{name}/{path.relative_to(folder).as_posix()}": _hash_file(path)
        for path in sorted(paths)
        if path.name.endswith(_CODE) and path.is_file()
    }


def hash_files(
    root: str | Path = bundle.ROOT, packages: Mapping[str, Iterable[str | Path]] | None = None
) -> dict[str, str]:
    """Hash a bundle's code, with the data that it reads, and its configs.

    Args:
        root: the bundle's root folder, with `configs` in it.
        packages: the folders of `bundle` and `federation`; None = those from which this process
            imports, wherever they are: a job may have brought some.

    Returns:
        {path from the package or the root: SHA-256 of the content, hexadecimal}.
    """
    if packages is None:
        packages = {package.__name__: package.__path__ for package in (bundle, federation)}
    found: dict[str, str] = {}
    for name, folders in packages.items():
        for number, folder in enumerate(folders):
            found |= _hash_folder(Path(folder), f"{name}[{number}]" if number else name)
    configs = (path for path in sorted((Path(root) / CONFIGS).glob("*")) if path.is_file())
    return found | {f"{CONFIGS}/{path.name}": _hash_file(path) for path in configs}


# Read at import: an edit that is made later must not pass for what this process runs.
LOADED: Mapping[str, str] = hash_files()


def identify(configs: Iterable[str], files: Mapping[str, str] = LOADED) -> Identity:
    """Identify a bundle, as it is used with these config files.

    What a site sets for itself (folders, device) must come from elsewhere than these files.

    Args:
        configs: names of files in configs/, in the order in which they are merged.
        files: as `hash_files` returns them; default what this process has loaded.

    Raises:
        FileNotFoundError: a config that this installation lacks.
    """
    named = [f"{CONFIGS}/{name}" for name in configs]
    _check_there(named, files)
    return Identity(
        bundle.__version__,
        code=_hash_all(_of("bundle", files), files),
        configs=_hash_all(named, files),
        federation=_hash_all(_of("federation", files), files),
        **_VERSIONS,
    )


def _of(package: str, files: Mapping[str, str]) -> list[str]:
    return [name for name in files if name.startswith((f"{package}/", f"{package}["))]


def check_unchanged(
    configs: Iterable[str],
    root: str | Path = bundle.ROOT,
    files: Mapping[str, str] = LOADED,
    packages: Mapping[str, Iterable[str | Path]] | None = None,
) -> None:
    """Make sure that the code and these configs are still what this process's identity says.

    Code that is imported late would be the new one, beside old code that is in memory. Everything
    is hashed anew, which takes some 10 ms.

    Args:
        configs: names of files in configs/.
        root, packages: as in `hash_files`.
        files: as in `identify`.

    Raises:
        FileNotFoundError: as in `identify`.
        ValueError: a file has changed, has come or has gone, which is named.
    """
    named = [f"{CONFIGS}/{name}" for name in configs]
    _check_there(named, files)
    now = hash_files(root, packages)
    code = {name for name in (*files, *now) if not name.startswith(f"{CONFIGS}/")}
    for name in (*named, *sorted(code)):
        if now.get(name) != files.get(name):
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
