"""What a training leaves on disk: the best network, and the state from which it can go on."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from bundle.atomic import write_text_atomically, written_atomically

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


def _read(path: Path, device: torch.device | str) -> dict[str, Any]:
    """Read a checkpoint of tensors and plain values; whatever else it is becomes a ValueError."""
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


def load_weights(network: nn.Module, path: str, device: torch.device | str = "cpu") -> None:
    """Load a flat state dict into a network, every key or none.

    Raises:
        FileNotFoundError: no such file.
        ValueError: keys or shapes that do not match, with how many of how many did.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"expected trained weights in {path}, found no such file. Train first, or give another "
            "folder with --ckpt_dir."
        )
    state = _read(Path(path), device)
    own = network.state_dict()
    fits = [k for k, v in own.items() if k in state and getattr(state[k], "shape", None) == v.shape]
    if len(fits) < len(own) or len(state) > len(own):
        wrong = sorted((set(own) | set(state)) - set(fits))
        raise ValueError(
            f"{path}: {len(fits)} of the network's {len(own)} tensors fit; for instance "
            f"{wrong[0]!r} does not. "
            "The file was made with another network, other modalities or regions, or it is "
            "not a flat state dict. Use the config it was trained with."
        )
    network.load_state_dict(state)
    logger.info(f"loaded {len(fits)} of {len(own)} tensors from {path}")


def keep_previous(path: Path) -> None:
    """Copy a file to `<name>.previous`, so that a new training does not end an old one's life."""
    if path.exists():
        kept = path.with_name(f"{path.name}.previous")
        shutil.copy2(path, kept)
        logger.info(f"kept what was in {path} as {kept.name}")


def check_made_for(path: str, made_for: Mapping[str, Any]) -> None:
    """Compare what weights were trained for with what they are about to be used for.

    Shapes do not tell: the same tensors fit another voxel size or another order of modalities.

    Args:
        path: the weights; what they were made for lies beside them, as `.json`.
        made_for: this config's modalities, regions (in order) and voxel size.

    Raises:
        ValueError: naming what differs.
    """
    note = Path(path).with_suffix(".json")
    if not note.exists():
        logger.warning(f"{note} is missing: nothing tells what {path} was trained for")
        return
    found = json.loads(note.read_text(encoding="utf-8"))
    for name, wanted in made_for.items():
        # As text, because the order of regions counts and dicts do not compare it.
        if name in found and json.dumps(found[name]) != json.dumps(wanted):
            raise ValueError(
                f"{path} was trained with {name} {json.dumps(found[name])}, this config has "
                f"{json.dumps(wanted)}. Give the overlay that it was trained with, and its {name} "
                "if that was overridden or the default has changed since."
            )


def load_pretrained(network: nn.Module, path: str, device: torch.device | str = "cpu") -> None:
    """Start a network from pre-trained weights: every tensor whose name and shape fit.

    Raises:
        FileNotFoundError: no such file.
        ValueError: less than half of the network would be started, a tile or a bias for instance,
            which fit whatever the width; with how many of how many parameters fit.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"expected pre-trained weights in {path}, found no such file. Pre-train first with the "
            "overlay pretrain.yaml, or train without: --pretrained_file '$None'."
        )
    state, own = _read(Path(path), device), network.state_dict()
    fits = {
        key: value
        for key, value in state.items()
        if key in own and getattr(value, "shape", None) == own[key].shape
    }
    numbers = sum(value.numel() for value in own.values())
    fitting = sum(value.numel() for value in fits.values())
    if fitting < numbers / 2:
        raise ValueError(
            f"{path}: {len(fits)} of its {len(state)} tensors fit, {fitting} of the {numbers} "
            "parameters of the part to be started, expected at least half. The file holds for "
            f"instance {next(iter(state), None)!r}, the part {next(iter(own))!r}. "
            "Pre-train with the same modalities, filters and blocks_down."
        )
    network.load_state_dict(fits, strict=False)
    level = logging.INFO if len(fits) == len(own) == len(state) else logging.WARNING
    logger.log(
        level,
        f"pre-trained: {len(fits)} of the file's {len(state)} tensors fit, {fitting} of {numbers} "
        f"parameters start from {path}",
    )


class PretrainedLoader:
    """Handler that starts a part of the network from pre-trained weights when training starts.

    Attach it before what resumes a training, which then has the last word.

    Args:
        path: what a pre-training wrote; None = start from nothing, which is said in the log.
        network: the part that was pre-trained; None = there is none, and `path` must be None too.
        made_for: what it must have been pre-trained for, see `check_made_for`.
    """

    def __init__(
        self,
        path: str | None,
        network: nn.Module | None,
        made_for: Mapping[str, Any] | None = None,
    ) -> None:
        if path is not None and network is None:
            raise ValueError(
                f"expected no pre-trained weights, because this method's network has no part that "
                f"is pre-trained, got {path}. Leave --pretrained_file away."
            )
        self.path = path
        self.network = network
        self.made_for = dict(made_for or {})
        self.done = False

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load, at the engine's first run; errors as in `load_pretrained` and `check_made_for`."""
        # A trainer that runs once a round goes on from what it was sent since.
        if self.done:
            return
        self.done = True
        if self.path is None:
            logger.info("no pretrained_file: training starts from random weights")
            return
        if Path(self.path).is_file():
            check_made_for(self.path, self.made_for)
        load_pretrained(self.network, self.path, engine.state.device)


class WeightsLoader:
    """Handler that loads trained weights into a network when the engine starts.

    Args:
        path: a flat state dict, as `BestModel` writes it.
        network: where to.
        made_for: what the weights must have been trained for, see `check_made_for`.
    """

    def __init__(
        self, path: str, network: nn.Module, made_for: Mapping[str, Any] | None = None
    ) -> None:
        self.path = path
        self.network = network
        self.made_for = dict(made_for or {})

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer or an evaluator."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load; errors as in `load_weights` and `check_made_for`."""
        if Path(self.path).is_file():
            check_made_for(self.path, self.made_for)
        load_weights(self.network, self.path, engine.state.device)


class BestModel:
    """Keep the network with the best key metric as a flat state dict; attach to the validator.

    MONAI's CheckpointSaver and ignite's Checkpoint do the same but delete the previous file before
    they write the next, and lose the best value on resuming or store it inside the weights.

    Args:
        network: the deployed network, without what exists only in training.
        path: where to, usually `models/model.pt`.
        made_for: modalities, regions and voxel size, written beside it as `.json`.
        made_with: what else a reader should know of the weights, such as the prompts' provenance;
            written to the same file, and not compared on loading.
    """

    def __init__(
        self,
        network: nn.Module,
        path: str,
        made_for: Mapping[str, Any] | None = None,
        made_with: Mapping[str, Any] | None = None,
    ) -> None:
        self.network = network
        self.path = Path(path)
        self.made_for = dict(made_for or {})
        self.made_with = dict(made_with or {})
        self.metric = float("-inf")
        self.epoch = 0

    def attach(self, engine: Engine) -> None:
        """Attach to the validator, whose key metric is compared: larger is better."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save if the key metric has grown."""
        metric = float(engine.state.metrics[engine.state.key_metric_name])
        # Written so that NaN, which compares false with everything, is never the best.
        if not metric > self.metric:
            return
        self.save()
        self.metric, self.epoch = metric, engine.state.epoch
        logger.info(f"best so far: {metric:.4f} in epoch {self.epoch}, saved to {self.path}")

    def save(self) -> None:
        """Write the network as it is; the first time, keep what another training left there."""
        if not self.epoch:
            keep_previous(self.path)
        save_atomically(self.network.state_dict(), self.path)
        note = json.dumps({**self.made_for, **self.made_with}, indent=2)
        write_text_atomically(self.path.with_suffix(".json"), note + "\n")

    def state_dict(self) -> dict[str, float]:
        """Return the best value and its epoch."""
        return {"metric": self.metric, "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take up a former best value, unless the network that reached it is gone."""
        if state["epoch"] and not self.path.exists():
            logger.warning(f"{self.path} is gone: the next validation counts as the best")
            return
        self.metric, self.epoch = float(state["metric"]), int(state["epoch"])


class FinalModel:
    """Keep the last network where no validation chose one: no such cases, or a short training.

    Args:
        best: the best model so far, and where it goes.
    """

    def __init__(self, best: BestModel) -> None:
        self.best = best

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save the flat state dict, unless a best one has been saved."""
        if not self.best.epoch:
            self.best.save()
            logger.info(f"nothing was validated: kept the last network in {self.best.path}")


class TrainingState:
    """Save all that training needs to go on, and take it up again; attach last to the trainer.

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
        """Take up a former state.

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
        content = _read(self.path, engine.state.device)
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
