"""Weights into a network: all of them, or the part that was pre-trained."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from bundle.training.files import read_checkpoint
from bundle.training.made_with import same_setting

logger = logging.getLogger(__name__)


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
    state = read_checkpoint(Path(path), device)
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
        if name in found and not same_setting(name, found[name], wanted):
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
            "overlay pretrain.yaml, or train without: --pretrained_file None."
        )
    state, own = read_checkpoint(Path(path), device), network.state_dict()
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
        path: what a pre-training wrote; None = there is none. That the training then starts from
            random weights is said in the log, unless something else loads weights: a host, a
            resumed training, a round of a federation.
        network: the part that was pre-trained; None = there is none, and `path` must be None too.
        made_for: what it must have been pre-trained for, see `check_made_for`.
        resumed: True = a state is going to replace all weights, so the file is not asked for.
    """

    def __init__(
        self,
        path: str | None,
        network: nn.Module | None,
        made_for: Mapping[str, Any] | None = None,
        resumed: bool = False,
    ) -> None:
        if path is not None and network is None:
            raise ValueError(
                f"expected no pre-trained weights, because this method's network has no part that "
                f"is pre-trained, got {path}. Leave --pretrained_file away."
            )
        self.path = path
        self.network = network
        self.made_for = dict(made_for or {})
        self.resumed = resumed
        self.done = False

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.STARTED, self)
        if self.path is None:
            # Others may load before the start and at it: what counts is what the first step finds.
            random = _sums(engine)
            say = partial(_say_random, random=random)
            engine.add_event_handler(Events.ITERATION_STARTED(once=1), say)

    def __call__(self, engine: Engine) -> None:
        """Load, at the engine's first run; errors as in `load_pretrained` and `check_made_for`."""
        # A trainer that runs once a round goes on from what it was sent since.
        if self.done:
            return
        self.done = True
        if self.path is None:
            return
        if self.resumed:
            logger.info(f"{self.path} is not read: the training goes on from its own state")
            return
        if Path(self.path).is_file():
            check_made_for(self.path, self.made_for)
        load_pretrained(self.network, self.path, engine.state.device)


def _sums(engine: Engine) -> list[float]:
    """Sum up each tensor of a trainer's network; others as soon as weights are loaded."""
    network = getattr(engine, "network", None)
    if network is None:
        return []
    return [float(value.detach().double().sum()) for value in network.parameters()]


def _say_random(engine: Engine, random: list[float]) -> None:
    if _sums(engine) == random:
        logger.info("no pretrained_file: training starts from random weights")


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
