"""Walking through a folder whose links may lead anywhere: each real folder once."""

from __future__ import annotations

import os
from pathlib import Path

# Linux, macOS and Windows all end a name there; Linux ends a path with a byte of 0 at the latter.
_LONGEST_PART, _LONGEST_PATH = 255, 4096


def plain_path(path: str | Path) -> Path:
    """Return an absolute path without '..', which behind a link means another folder.

    A link in a path that needs no '..' keeps its name: shared data sets are linked under the names
    that they should have.
    """
    path = Path(path)
    if ".." not in path.parts:
        return path.absolute()
    if path.name == "..":
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent), path.name)


def check_path(path: str | Path, where: str) -> None:
    """Refuse a text that no file can be called, so that looking for the file raises nothing else.

    Args:
        path: as somebody wrote it; a name that is not in UTF-8 is fine.
        where: what the message starts with.

    Raises:
        ValueError: a byte of 0, half of a character, or too many bytes.
    """
    try:
        parts = os.fsencode(path).split(b"/")
    except UnicodeEncodeError:
        parts = [b"\0"]
    too_long = sum(map(len, parts)) + len(parts) > _LONGEST_PATH
    if too_long or any(len(part) > _LONGEST_PART or b"\0" in part for part in parts):
        raise ValueError(
            f"{where}: expected the path of a file, of at most {_LONGEST_PATH - 1} bytes and "
            f"{_LONGEST_PART} for each name in it, all of whose characters can be written, got "
            f"{str(path)!r:.120}. Correct the path."
        )


def walk(root: Path) -> tuple[dict[Path, list[str]], list[str]]:
    """List the files below a folder, hidden folders left out.

    Links to folders elsewhere are followed, so that a shared store works. A real folder is visited
    once: what lies below `root` under its own name, the rest by the first link in alphabetical
    order. A link that leads upwards, to a folder that holds the link or `root`, is not followed.

    Args:
        root: see `plain_path`.

    Returns:
        Folder -> names of its files, both in order; and one line for each folder that cannot be
        read.
    """
    folders: dict[Path, list[str]] = {}
    problems: list[str] = []
    real_root = os.path.realpath(root)
    seen: set[str] = set()
    links = [root]
    while links:
        start = links.pop(0)
        target = os.path.realpath(start)
        if start != root and any(
            _holds(target, place) for place in (real_root, os.path.realpath(start.parent))
        ):
            continue
        found: list[Path] = []
        waiting = [start]
        while waiting:
            folder = waiting.pop()
            real = os.path.realpath(folder)
            if real in seen:
                continue
            seen.add(real)
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                problems.append(f"folder {folder} cannot be read ({error.strerror}).")
                continue
            shown = [entry for entry in entries if not entry.name.startswith(".")]
            inner = [entry for entry in shown if _is_folder(entry)]
            folders[folder] = [entry.name for entry in shown if entry not in inner]
            found += [folder / entry.name for entry in inner if entry.is_symlink()]
            waiting += [folder / e.name for e in reversed(inner) if not e.is_symlink()]
        links += sorted(found)
    return dict(sorted(folders.items())), problems


def _holds(folder: str, place: str) -> bool:
    return place == folder or place.startswith(folder.rstrip(os.sep) + os.sep)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
