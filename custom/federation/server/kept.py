"""Accepted contributions, kept until their round is committed: on disk, or in memory for tests.

Both are read in pieces, so that a commit holds a piece of each at a time, and none as a whole.
"""

from __future__ import annotations

import os
import shutil
import stat
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

# Numbers that are read at once: 128 KiB of double precision for each site.
PIECE = 2**14
_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600


class DamagedError(ValueError):
    """What was kept of a site's contribution is not what was written.

    Attributes:
        site: whose it is.
    """

    def __init__(self, site: str) -> None:
        super().__init__(
            "what the server kept of it on its disk has changed since. Look at the disk of the "
            "server's state_dir."
        )
        self.site = site


class Held(Mapping[str, Tensor]):
    """An update in memory.

    Args:
        update: differences by key.
    """

    def __init__(self, update: Mapping[str, Tensor]) -> None:
        self._update = dict(update)

    def __getitem__(self, key: str) -> Tensor:
        return self._update[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._update)

    def __len__(self) -> int:
        return len(self._update)

    def piece(self, key: str, start: int) -> Tensor:
        """Return the numbers of a tensor from `start`, a multiple of `PIECE`, up to the next."""
        return self._update[key].reshape(-1)[start : start + PIECE]

    def check_untouched(self) -> None:
        """Nobody else reaches it."""


class _Place(NamedTuple):
    """Where a tensor lies in a file: its first byte, its form, and a checksum of each piece."""

    offset: int
    dtype: torch.dtype
    shape: torch.Size
    sums: tuple[int, ...]


class Spilled(Mapping[str, Tensor]):
    """An update in a file. Every piece is compared with its checksum when it is read.

    Args:
        site: whose it is.
        path: the file.
        places: by key.
    """

    def __init__(self, site: str, path: Path, places: Mapping[str, _Place]) -> None:
        self.site, self.path, self._places = site, path, places
        self._written = _print_of(path)

    def __getitem__(self, key: str) -> Tensor:
        place = self._places[key]
        pieces = [self.piece(key, i * PIECE) for i in range(len(place.sums))]
        flat = torch.cat(pieces) if pieces else torch.empty(0, dtype=place.dtype)
        return flat.reshape(place.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def piece(self, key: str, start: int) -> Tensor:
        """Read the numbers of a tensor from `start`, a multiple of `PIECE`, up to the next.

        Raises:
            DamagedError: the file is gone, or holds something else.
        """
        place = self._places[key]
        size, length = place.dtype.itemsize, min(PIECE, place.shape.numel() - start)
        content = bytearray(length * size)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(place.offset + start * size)
                read = file.readinto(content)
        except OSError as error:
            raise DamagedError(self.site) from error
        if read != len(content) or zlib.crc32(content) != place.sums[start // PIECE]:
            raise DamagedError(self.site)
        return torch.frombuffer(content, dtype=place.dtype)

    def check_untouched(self) -> None:
        """Make sure that nobody has written to the file, without reading it.

        Raises:
            DamagedError: somebody has, or it is gone.
        """
        try:
            same = _print_of(self.path) == self._written
        except OSError as error:
            raise DamagedError(self.site) from error
        if not same:
            raise DamagedError(self.site)


def _print_of(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_ino, found.st_size, found.st_mtime_ns


class Folder:
    """The folder of a round's contributions, which only the server's user can open.

    What an earlier round left in it, one that was lost with its process for instance, is removed.

    Args:
        path: made when it is needed; gone when it is cleared.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._count = 0
        self.clear()

    def keep(self, site: str, update: Mapping[str, Tensor]) -> Spilled:
        """Write an update to a file of its own.

        Raises:
            OSError: it cannot be written, for instance because the disk is full. Nothing is left.
        """
        self._make()
        # A number and not the site's name, which might lead elsewhere.
        path = self.path / f"{self._count:06d}"
        self._count += 1
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE)
        try:
            with os.fdopen(handle, "wb") as file:
                places = {key: _write(file, value) for key, value in update.items()}
            return Spilled(site, path, places)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def remove(self, kept: Spilled) -> None:
        """Remove one contribution."""
        kept.path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove all contributions, and the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _make(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
        found = self.path.lstat()
        if not stat.S_ISDIR(found.st_mode) or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(
                f"expected {self.path} as a folder of the server's user alone. Remove it."
            )


def _write(file: BinaryIO, value: Tensor) -> _Place:
    offset, flat = file.tell(), value.detach().contiguous().reshape(-1)
    sums = []
    for start in range(0, flat.numel(), PIECE):
        content = flat[start : start + PIECE].view(torch.uint8).numpy().data
        file.write(content)
        sums.append(zlib.crc32(content))
    return _Place(offset, value.dtype, value.shape, tuple(sums))
