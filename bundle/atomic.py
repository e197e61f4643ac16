"""Writing a file so that a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def written_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """Open a hidden file beside `path` that takes its place once it is written and closed.

    Yields:
        The file, open for bytes. If writing fails, what stood at `path` stays and nothing is left.

    Raises:
        OSError: the folder cannot be made or written to, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        # mkstemp's files are private to their owner; what is written here is for the whole group.
        Path(name).chmod(0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text_atomically(path: str | Path, text: str) -> None:
    """Write `text` to `path`, creating its folder; errors as in `written_atomically`."""
    with written_atomically(path) as file:
        file.write(text.encode("utf-8"))
