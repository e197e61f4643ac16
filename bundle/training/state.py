"""The state from which a stopped training goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from bundle.training.files import keep_previous, read_checkpoint, save_atomically

logger = logging.getLogger(__name__)


class TrainingState:
    """Save all that training needs to go on, and restore it; attach it last to the trainer.

    Args:
        path: the file; not in `models/` and not called `.pt`, where MONAI Label would offer it.
        objects: what to save, by name: method, optimizer, lr_scheduler, best (a `BestModel`).
        interval: epochs between two saves.
        resume: True = go on from the file if there is one.
    """

    def __init__(
        self, path: str, objects: Mapping[str, Any], interval: int = 1, resume: bool = False
    ) -> None:
        self.path = Path(path)
        self.objects = dict(objects)
        self.interval = interval
        self.resume = resume

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, after the validation handler: the best value is part of it."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def save(self, engine: Engine) -> None:
        """Write the state every `interval` epochs and after the last one."""
        epoch = engine.state.epoch
        if epoch % self.interval and epoch != engine.state.max_epochs:
            return
        content = {name: part.state_dict() for name, part in self.objects.items()}
        # Absent on engines that are not MONAI trainers, None without mixed precision.
        if getattr(engine, "scaler", None) is not None:
            content["scaler"] = engine.scaler.state_dict()
        content["progress"] = {
            "epoch": epoch,
            "epoch_length": engine.state.epoch_length,
            "max_epochs": engine.state.max_epochs,
        }
        save_atomically(content, self.path)

    def load(self, engine: Engine) -> None:
        """Go on from a saved state.

        Without `resume`, what another training left at the path is kept as `.previous`.

        Raises:
            ValueError: the file lacks a part that this config has or has one that it lacks, a part
                does not fit, or the training was planned for another number of epochs.
        """
        if not self.resume:
            keep_previous(self.path)
            return
        if not self.path.exists():
            logger.info(f"nothing to resume in {self.path}: training starts at epoch 1")
            return
        content = read_checkpoint(self.path, engine.state.device)
        progress, scaler = content.pop("progress", None), content.pop("scaler", None)
        if progress is None or set(content) != set(self.objects):
            held = sorted(content)[:8]
            raise ValueError(
                f"{self.path} holds {held}, this config expects {sorted(self.objects)}. "
                "Resume with the config that wrote it, or start anew without --resume."
            )
        if progress["max_epochs"] != engine.state.max_epochs:
            raise ValueError(
                f"{self.path} is a training planned for {progress['max_epochs']} epochs, whose "
                f"learning rate ends there, not for {engine.state.max_epochs}. Resume it with "
                f"--max_epochs {progress['max_epochs']}, or start anew."
            )
        for name, part in self.objects.items():
            try:
                part.load_state_dict(content[name])
            except (RuntimeError, ValueError, KeyError) as error:
                raise ValueError(
                    f"{self.path}: its {name} does not fit this config ({error}). Resume with the "
                    "config that wrote it, or start anew."
                ) from error
        if scaler is not None and getattr(engine, "scaler", None) is not None:
            engine.scaler.load_state_dict(scaler)
        if progress["epoch_length"] != engine.state.epoch_length:
            logger.warning(
                f"the data changed: an epoch had {progress['epoch_length']} iterations, now it has "
                f"{engine.state.epoch_length}"
            )
        self._go_to(engine, progress["epoch"])

    def _go_to(self, engine: Engine, epoch: int) -> None:
        if epoch >= engine.state.max_epochs:
            logger.info(f"{epoch} of {engine.state.max_epochs} epochs were done: nothing is left")
            engine.terminate()
            return
        length, last = engine.state.epoch_length, engine.state.max_epochs
        engine.load_state_dict({"epoch": epoch, "max_epochs": last, "epoch_length": length})
        logger.info(f"resuming after epoch {epoch} of {last} from {self.path}")
