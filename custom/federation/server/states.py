"""The server's states of a stage: the last three, and one from before each site came in."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bundle.atomic import write_text_atomically
from bundle.training.files import read_checkpoint, save_atomically, set_aside

logger = logging.getLogger(__name__)

LAST = "FL_global_model.pt"
FOLDER = "states"
# {site: the state from before its first contribution}, in the folder of the states.
FIRST_CONTRIBUTIONS = "first_contributions.json"
# How many states stay, and how many federations of before.
_KEPT = 3
_NAME = "after_{:04d}_rounds.pt"
_PATTERN = "after_*_rounds.pt"


class Found(NamedTuple):
    """A state to go on from.

    Attributes:
        path: its file.
        content: `model`, `meta_props`, and what else was saved.
        rounds: how many rounds it has behind it.
        set_aside: {file: why}, newer ones that are damaged.
    """

    path: Path
    content: dict[str, Any]
    rounds: int
    set_aside: dict[str, str]


class States:
    """Keeps what a stage has come to, so that a damaged file costs one round and not all of them.

    `FL_global_model.pt` is the last state, and another name of the newest file in `states/`. There
    also lies, of each site, the state from before its first contribution: copy it to
    `FL_global_model.pt`, and a job that resumes the federation goes on without what that site did.

    Args:
        folder: the stage's folder at the server.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.states = self.folder / FOLDER

    @property
    def last(self) -> Path:
        """The file of the last state."""
        return self.folder / LAST

    def save(
        self, content: Mapping[str, Any], rounds: int, contributors: Collection[str] = ()
    ) -> None:
        """Write a state; it is on disk when this returns.

        Args:
            content: tensors and plain values.
            rounds: how many rounds it has behind it.
            contributors: the sites whose updates are in its last round.

        Raises:
            OSError: the disk is full; the states before are intact.
        """
        path = self.states / _NAME.format(rounds)
        save_atomically(content, path)
        _put_in_place(path, self.last)
        firsts = self.first_contributions()
        newcomers = [site for site in contributors if site not in firsts]
        if newcomers:
            firsts |= dict.fromkeys(newcomers, _NAME.format(rounds - 1))
            write_text_atomically(
                self.states / FIRST_CONTRIBUTIONS, json.dumps(firsts, indent=1) + "\n"
            )
        for old in self._files()[_KEPT:]:
            if old.name not in firsts.values():
                old.unlink()

    def first_contributions(self) -> dict[str, str]:
        """Tell {site: name of the state from before its first contribution}."""
        try:
            text = (self.states / FIRST_CONTRIBUTIONS).read_text(encoding="utf-8")
            found = json.loads(text)
            return {str(site): str(name) for site, name in found.items()}
        except (OSError, ValueError, AttributeError):
            # Without it more states are deleted than need be, and no round is lost.
            return {}

    def newest(self) -> Found | None:
        """Read the newest whole state, and set those aside that are newer; None = there is none.

        Raises:
            ValueError: there are states, and all are damaged.
        """
        damaged: dict[str, str] = {}
        for path in [self.last, *self._files()]:
            if not path.exists():
                continue
            try:
                content = _read(path)
            except (OSError, ValueError) as error:
                kept = set_aside(path, "damaged")
                damaged[kept.relative_to(self.folder).as_posix()] = str(error)
                logger.error(f"{path} is damaged, and set aside: {error}")
                continue
            rounds = content["meta_props"]["current_round"] + 1
            if damaged:
                logger.warning(f"the federation goes on from {path}, after {rounds} rounds")
                _put_in_place(path, self.last)
            self._leave(rounds)
            return Found(path, content, rounds, damaged)
        if damaged:
            raise ValueError(
                f"expected a whole state in {self.folder}, found damaged ones alone: "
                f"{', '.join(damaged)}. Copy one back from a backup as {LAST}, or write the job "
                "without --resume to start anew."
            )
        return None

    def _files(self) -> list[Path]:
        """List the states but the last, the newest first."""
        return sorted(self.states.glob(_PATTERN), reverse=True)

    def _leave(self, rounds: int) -> None:
        """Set aside the states of more rounds: somebody has gone back behind them."""
        for path in self._files():
            if path.name > _NAME.format(rounds):
                set_aside(path, "previous")


def set_aside_stage(folder: Path) -> Path | None:
    """Keep what an earlier federation of the same name left: the last three, with the time.

    Returns:
        Where to; None = nothing was there.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    kept = folder.with_name(f"{folder.name}.previous.{datetime.now():%Y%m%d-%H%M%S-%f}")
    folder.rename(kept)
    folder.mkdir()
    # A rename leaves a folder's own times: the name says when.
    earlier = sorted(folder.parent.glob(f"{folder.name}.previous.*"))
    for old in earlier[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return kept


def _read(path: Path) -> dict[str, Any]:
    """Read a state.

    Raises:
        ValueError: it is damaged, or something else.
    """
    content = read_checkpoint(path, "cpu")
    model, meta = content.get("model"), content.get("meta_props")
    number = meta.get("current_round") if isinstance(meta, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(number, int):
        raise ValueError(f"{path}: expected a federation's state, got {sorted(map(str, content))}")
    for key, value in model.items():
        if not isinstance(value, torch.Tensor) or not bool(value.isfinite().all()):
            raise ValueError(f"{path}: expected finite numbers under {key!r}, got others")
    return content


def _put_in_place(path: Path, last: Path) -> None:
    """Give a state its second name at once; where a file has one name alone, copy it."""
    if path == last:
        return
    new = last.with_name(f".{last.name}.new")
    new.unlink(missing_ok=True)
    try:
        os.link(path, new)
    except OSError:
        shutil.copy2(path, new)
    os.replace(new, last)
