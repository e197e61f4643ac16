"""Files that a training writes: complete or not at all, and the former ones are kept."""

from __future__ import annotations

import logging
import shutil
import zipfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from bundle.atomic import sync_folder, written_atomically

logger = logging.getLogger(__name__)

# In a zip archive: the entry is a folder. PyTorch would read nothing, and go on.
_FOLDER = 0x10


def check_writable(folder: str) -> str:
    """Create a folder and prove that files can be written there, before hours are spent.

    Raises:
        OSError: naming the folder and what the system said.
        ValueError: it begins with ~, for which a config has no folder: one of that name would be
            made in the current folder.
    """
    if str(folder).startswith("~"):
        raise ValueError(
            f"expected a folder, got {folder!r}: in a config nothing puts your folder in the place "
            "of ~. Write the whole path, or ./~ for a folder of this name."
        )
    probe = Path(folder) / ".write_test"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"0")
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"expected a folder that can be written, got {folder} ({error.strerror or error}). "
            "Give another one with --output_dir (results) or --ckpt_dir (weights)."
        ) from error
    return str(folder)


def save_atomically(content: Mapping[str, Any], path: Path, private: bool = False) -> None:
    """Write a checkpoint beside its final place and move it there only when it is complete.

    Args:
        content: tensors and plain values by name.
        path: the file.
        private: as in `written_atomically`.

    Raises:
        OSError: the disk is full or the folder went away. What stood at `path` before still does.
    """
    try:
        with written_atomically(path, private) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        kept = "the previous one is intact" if path.exists() else "there was none before"
        raise OSError(
            f"could not write the checkpoint {path} ({error}); {kept}{_free_space(path.parent)}. "
            "Make room, or choose another folder, and continue with --resume true."
        ) from error


def _free_space(folder: Path) -> str:
    if not folder.is_dir():
        return ""
    return f"; {shutil.disk_usage(folder).free / 2**20:.0f} MiB are free there"


def read_checkpoint(path: Path, device: torch.device | str) -> dict[str, Any]:
    """Read a checkpoint of tensors and plain values; refuse anything else.

    PyTorch's format is a zip archive with a checksum for each tensor. `torch.load` does not compare
    them, so that it takes a flipped bit for another number; here they are compared.

    Raises:
        ValueError: the file is damaged, or something else.
        OSError: there is no such file, or it may not be read.
    """
    # A file that is missing or forbidden is not damaged.
    Path(path).open("rb").close()
    try:
        _compare_checksums(path)
        content = torch.load(path, map_location=device, weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # as many kinds as there are damages
        reason = (str(error) or "it ends too early").splitlines()[0]
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({reason}). "
            "It is damaged, or something else. Copy it again, or train anew."
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected a checkpoint, got a {type(content).__name__}")
    return dict(content)


def _compare_checksums(path: Path) -> None:
    """Refuse a damaged archive; files from before PyTorch 1.6 are none, and have no checksums."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        folders = [entry.filename for entry in archive.infolist() if entry.external_attr & _FOLDER]
        damaged = folders[0] if folders else archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} differs")


def set_aside(path: Path, why: str, keep: int = 3) -> Path:
    """Rename a file to `<name>.<why>.<time>`, and delete all but the newest of these.

    Args:
        path: the file.
        why: a word, such as previous or damaged.
        keep: how many stay, this one included; at least 1.

    Returns:
        What it is called now.

    Raises:
        OSError: it cannot be renamed.
    """
    kept = path.with_name(f"{path.name}.{why}.{datetime.now():%Y%m%d-%H%M%S-%f}")
    path.rename(kept)
    sync_folder(path.parent)
    # Clocks are set back now and then: the newest is the one that has just come.
    others = sorted(set(path.parent.glob(f"{path.name}.{why}.*")) - {kept})
    for old in others[: len(others) - keep + 1]:
        old.unlink(missing_ok=True)
    logger.info(f"kept what was in {path} as {kept.name}")
    return kept


def keep_previous(path: Path) -> None:
    """Copy a file to `<name>.previous`, before a new training overwrites it."""
    if path.exists():
        kept = path.with_name(f"{path.name}.previous")
        with path.open("rb") as source, written_atomically(kept) as target:
            shutil.copyfileobj(source, target)
        shutil.copystat(path, kept)
        logger.info(f"kept what was in {path} as {kept.name}")
