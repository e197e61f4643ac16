"""The moving average of the weights, which is deployed in place of the last ones if asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightAverage:
    """Keep an exponential moving average of a network's weights.

    Buffers are not averaged: what is deployed has the network's own.

    Args:
        network: the deployed network.
        decay: per step, 0 to below 1; 0 = no average, the last weights are deployed.

    Raises:
        ValueError: a decay outside of its range.
    """

    def __init__(self, network: nn.Module, decay: float = 0.0) -> None:
        if not 0 <= decay < 1:
            raise ValueError(
                f"average_decay: expected 0 (off) to below 1, such as 0.998, got {decay}"
            )
        self.network = network
        self.decay = decay
        self.model: AveragedModel | None = None
        if self.is_on:
            self.model = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))
            self.model.requires_grad_(False)

    @property
    def is_on(self) -> bool:
        """True = there is an average."""
        return self.decay > 0

    def follow(self, engine: Engine) -> None:
        """Move the average after every step of a trainer."""
        if self.is_on and not engine.has_event_handler(self._move, Events.ITERATION_COMPLETED):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._move)

    def _move(self, engine: Engine) -> None:
        # While gradients are accumulated the network stands still, and has nothing new to average.
        here = (engine.state.iteration - 1) % engine.state.epoch_length + 1
        if here % getattr(engine, "accumulation_steps", 1) and here != engine.state.epoch_length:
            return
        self.model.update_parameters(self.network)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the network's weights with the average; a second time puts them back."""
        # Before the first step they are the same.
        if self.is_on and self.model.n_averaged:
            pairs = zip(self.network.parameters(), self.model.module.parameters(), strict=True)
            for own, average in pairs:
                kept = own.clone()
                own.copy_(average)
                average.copy_(kept)

    @contextmanager
    def deployed(self) -> Iterator[None]:
        """Let the network have the weights that are deployed."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state_dict(self) -> dict[str, Any]:
        """Return the average and how many steps it has seen."""
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a former average."""
        self.model.load_state_dict(state)


class AverageMoved:
    """Handler for the trainer: the average follows every step.

    Args:
        average: of the weights that the trainer trains.
    """

    def __init__(self, average: WeightAverage) -> None:
        self.average = average

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        self.average.follow(engine)


class AverageValidated:
    """Handler for the validator: it sees, and the best model is, what is deployed.

    Args:
        average: the average of the trainer that it validates for.
    """

    def __init__(self, average: WeightAverage) -> None:
        self.average = average
        self._is_swapped = False

    def attach(self, engine: Engine) -> None:
        """Attach to the validator, before what saves the best network."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.COMPLETED, self._end)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _begin(self) -> None:
        self.average.swap()
        self._is_swapped = True

    def _end(self) -> None:
        if self._is_swapped:
            self.average.swap()
            self._is_swapped = False

    def _fail(self, engine: Engine, error: BaseException) -> None:
        self._end()
        raise error
