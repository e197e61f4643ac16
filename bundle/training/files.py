"""Files that a training writes: complete or not at all, and the former ones are kept."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from bundle.atomic import written_atomically

logger = logging.getLogger(__name__)


def check_writable(folder: str) -> str:
    """Create a folder and prove that files can be written there, before hours are spent.

    Raises:
        OSError: naming the folder and what the system said.
    """
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


def save_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint beside its final place and move it there only when it is complete.

    Raises:
        OSError: the disk is full or the folder went away. What stood at `path` before still does.
    """
    try:
        with written_atomically(path) as file:
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
    """Read a checkpoint of tensors and plain values; refuse anything else with a ValueError."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (EOFError, RuntimeError, UnpicklingError) as error:
        reason = (str(error) or "it ends too early").splitlines()[0]
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({reason}). "
            "It is damaged, or something else. Copy it again, or train anew."
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected a checkpoint, got a {type(content).__name__}")
    return dict(content)


def keep_previous(path: Path) -> None:
    """Copy a file to `<name>.previous`, before a new training overwrites it."""
    if path.exists():
        kept = path.with_name(f"{path.name}.previous")
        shutil.copy2(path, kept)
        logger.info(f"kept what was in {path} as {kept.name}")
