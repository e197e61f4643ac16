"""Writing a file so that a reader sees the old content or the new, never half of it.

What is written here survives a power cut: it is on disk, under its name, before the writer goes on.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# Without O_BINARY, Windows would change line ends.
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


@contextmanager
def written_atomically(path: str | Path, private: bool = False) -> Iterator[BinaryIO]:
    """Open a hidden file beside `path` that takes its place once it is written and on disk.

    Args:
        path: the file; its folder is made.
        private: True = only the user who runs this may read the file (0600), and the folders that
            are made for it (0700); False = the umask decides.

    Yields:
        The file, open for bytes. If writing fails, what stood at `path` stays and nothing is left.

    Raises:
        OSError: the folder cannot be made or written to, or the disk is full.
    """
    path = Path(path)
    make_folder(path.parent, private)
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(hidden, _NEW_FILE, 0o600 if private else 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(hidden, path)
        sync_folder(path.parent)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise


def write_text_atomically(path: str | Path, text: str, private: bool = False) -> None:
    """Write `text` to `path` in UTF-8; arguments and errors as in `written_atomically`.

    A file name's byte that is no letter is written as an escape, such as `\\udce4`.
    """
    with written_atomically(path, private) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def make_folder(folder: str | Path, private: bool = False) -> None:
    """Make a folder and those above it that are missing.

    Args:
        folder: may exist; then its mode stays.
        private: True = what is made is 0700; False = the umask decides.

    Raises:
        OSError: it cannot be made, or is a file.
    """
    folder = Path(folder)
    if folder.is_dir():
        return
    make_folder(folder.parent, private)
    folder.mkdir(mode=0o700 if private else 0o777, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: str | Path) -> None:
    """Have the names in a folder on disk: a new or renamed file is lost without.

    Raises:
        OSError: the disk has failed.
    """
    if os.name == "nt":
        # Windows opens no folder, and keeps the names itself.
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
