"""The state from which a stopped training goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch.optim import Optimizer

from bundle.training.average import WeightAverage
from bundle.training.files import keep_previous, read_checkpoint, save_atomically
from bundle.training.made_with import difference, differences
from bundle.training.record import TrainingRecord, case_changes
from bundle.training.schedule import continue_optimizer

logger = logging.getLogger(__name__)

# Where a state has what it was made with.
RECORD = "record"
_UNSAID = "it does not say what it was made with (it is of version 0.5.0 or earlier)"


class TrainingState:
    """Save all that training needs to go on, and restore it; attach it last to the trainer.

    Args:
        path: the file; not in `models/` and not called `.pt`, where MONAI Label would offer it.
        objects: what to save, by name: method, optimizer, lr_scheduler, best (a `BestModel`).
        interval: epochs between two saves.
        resume: True = go on from the file if there is one.
        record: what the training is made with, see `bundle.training.record`; None = neither written
            nor compared.
        average: of the weights; it is saved, too, if there is one.
        accept_changes: True = go on although what must stay the same has changed. That is said, and
            written into the states that follow.
    """

    def __init__(
        self,
        path: str,
        objects: Mapping[str, Any],
        interval: int = 1,
        resume: bool = False,
        record: TrainingRecord | None = None,
        accept_changes: bool = False,
        average: WeightAverage | None = None,
    ) -> None:
        self.path = Path(path)
        self.objects = dict(objects)
        # A state without an average is that of every former version.
        if average is not None and average.is_on:
            self.objects["average"] = average
        self.interval = interval
        self.resume = resume
        self.record = record
        self.accept_changes = accept_changes
        self.accepted: list[str] = []

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
        if self.record is not None:
            content[RECORD] = {
                "settings": dict(self.record.settings),
                "cases": {name: dict(cases) for name, cases in self.record.cases.items()},
                "accepted": list(self.accepted),
            }
        save_atomically(content, self.path)

    def load(self, engine: Engine) -> None:
        """Go on from a saved state, with this config's settings.

        Without `resume`, what another training left at the path is kept as `.previous`. What may
        change takes effect and is said: 'learning_rate: 0.001, now 1e-05, from epoch 5 on'.

        Raises:
            ValueError: the file lacks a part that this config has or has one that it lacks, a part
                does not fit, or what must stay the same has changed, which is listed.
        """
        if not self.resume:
            keep_previous(self.path)
            return
        if not self.path.exists():
            logger.info(f"nothing to resume in {self.path}: training starts at epoch 1")
            return
        content = read_checkpoint(self.path, engine.state.device)
        progress, scaler = content.pop("progress", None), content.pop("scaler", None)
        before = content.pop(RECORD, None)
        if progress is None or set(content) != set(self.objects):
            held = sorted(content)[:8]
            raise ValueError(
                f"{self.path} holds {held}, this config expects {sorted(self.objects)}. "
                "Resume with the config that wrote it, or start anew without --resume."
            )
        changed = self._check_record(before, progress["epoch"])
        changed = [*self._restore(content), *changed]
        if scaler is not None and getattr(engine, "scaler", None) is not None:
            engine.scaler.load_state_dict(scaler)
        last = engine.state.max_epochs
        if progress["max_epochs"] != last:
            changed.insert(0, difference("max_epochs", progress["max_epochs"], last))
        if progress["epoch"] < last:
            for line in changed:
                logger.info(f"{line}, from epoch {progress['epoch'] + 1} on")
        if progress["epoch_length"] != engine.state.epoch_length:
            logger.warning(
                f"the data changed: an epoch had {progress['epoch_length']} iterations, now it has "
                f"{engine.state.epoch_length}"
            )
        self._go_to(engine, progress["epoch"])

    def _restore(self, content: Mapping[str, Any]) -> list[str]:
        """Restore every part, and return what changes for the optimiser."""
        changed = []
        for name, part in self.objects.items():
            try:
                if isinstance(part, Optimizer):
                    schedule = self.objects.get("lr_scheduler")
                    states = content[name], content.get("lr_scheduler")
                    changed += continue_optimizer(part, schedule, *states)
                # A schedule goes on with its optimiser.
                elif name != "lr_scheduler":
                    part.load_state_dict(content[name])
            except (RuntimeError, ValueError, KeyError) as error:
                raise ValueError(
                    f"{self.path}: its {name} does not fit this config ({error}). Resume with the "
                    "config that wrote it, or start anew."
                ) from error
        return changed

    def _check_record(self, before: Any, epoch: int) -> list[str]:
        """Refuse what must not change; return what does."""
        if self.record is None:
            return []
        told = before if isinstance(before, Mapping) else {}
        if not isinstance(told.get("settings"), Mapping):
            refused, free = [_UNSAID], []
        else:
            found = differences(told["settings"], self.record.settings)
            free = [line for name, line in found.items() if self.record.may_change(name)]
            refused = [line for name, line in found.items() if not self.record.may_change(name)]
        if refused and not self.accept_changes:
            raise ValueError(
                f"{self.path} cannot be resumed, because what its numbers mean has changed: "
                f"{'; '.join(refused)}. Give the settings that it was made with, or start anew "
                "without --resume. To go on all the same, give --accept_changes true; that is "
                "written into the state."
            )
        self.accepted = [*told.get("accepted", ())]
        for line in refused:
            self.accepted.append(f"after epoch {epoch}: {line}")
            logger.warning(f"training goes on with a change: {line}, from epoch {epoch + 1} on")
        for line in case_changes(told.get("cases", self.record.cases), self.record.cases):
            logger.warning(f"the data changed: {line}")
        return free

    def _go_to(self, engine: Engine, epoch: int) -> None:
        if epoch >= engine.state.max_epochs:
            logger.info(f"{epoch} of {engine.state.max_epochs} epochs were done: nothing is left")
            engine.terminate()
            return
        length, last = engine.state.epoch_length, engine.state.max_epochs
        engine.load_state_dict({"epoch": epoch, "max_epochs": last, "epoch_length": length})
        logger.info(f"resuming after epoch {epoch} of {last} from {self.path}")
