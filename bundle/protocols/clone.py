"""Finding a list in the clones that the user names, and which commit a clone stands at.

No git is run: `.git` is read as text. Nothing outside the clone is opened.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.protocols.form import ListFile, Protocol

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"ref: (refs/[\w./-]+)")
# What is read of a file of .git: packed-refs of a large clone has some thousand lines.
_LARGEST_BYTES = 2**20


@dataclass(frozen=True)
class Found:
    """A list that was found.

    Attributes:
        path: where it lies.
        clone: the folder that the user named.
        place: its path inside the clone, with '/'.
    """

    path: Path
    clone: Path
    place: str


def find_list(clones: Sequence[Path], form: ListFile, protocol: Protocol) -> Found:
    """Find a list by its paths, the first path first, in the clones in their order.

    Raises:
        FileNotFoundError: it is in none of them; the message says where it was looked for.
        ValueError: it is a link that leads out of the clone.
    """
    for place in form.places:
        for clone in clones:
            path = clone / place
            if not path.is_file():
                continue
            if not path.resolve().is_relative_to(clone.resolve()):
                raise ValueError(
                    f"{path} is a link that leads out of {clone}. Give a clone whose lists are "
                    "plain files."
                )
            return Found(path, clone, place)
    said = f" ({protocol.note})" if protocol.note else ""
    raise FileNotFoundError(
        f"{protocol.name}: no {' and no '.join(form.places)} in "
        f"{', '.join(map(str, clones))}. Expected a clone of {protocol.repository}{said}."
    )


def check_clones(lists: Sequence[str]) -> list[Path]:
    """Return the folders that the user named.

    Raises:
        ValueError: none is named.
        FileNotFoundError: one that is no folder.
    """
    if not lists:
        raise ValueError("lists: expected a clone of the protocol's repository, got none.")
    for folder in map(Path, lists):
        if not folder.is_dir():
            raise FileNotFoundError(f"lists: {folder} is no folder. Expected a clone.")
    return [Path(folder) for folder in lists]


def commit_of(clone: Path) -> str | None:
    """Return the commit that a clone stands at; None = its .git does not tell it."""
    git = clone / ".git"
    head = _read(git / "HEAD", clone)
    if _COMMIT.fullmatch(head):
        return head
    ref = _REF.fullmatch(head)
    if ref is None or ".." in ref[1]:
        return None
    loose = _read(git / ref[1], clone)
    if _COMMIT.fullmatch(loose):
        return loose
    for line in _read(git / "packed-refs", clone).splitlines():
        commit, _, name = line.partition(" ")
        if name == ref[1] and _COMMIT.fullmatch(commit):
            return commit
    return None


def _read(path: Path, clone: Path) -> str:
    """Read a small text inside the clone; '' = there is none, it is large or lies elsewhere."""
    try:
        inside = path.resolve().is_relative_to(clone.resolve())
        if not inside or not path.is_file() or path.stat().st_size > _LARGEST_BYTES:
            return ""
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
