"""How MONAI's SupervisedTrainer drives a method: one iteration, seeding, progress."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from bundle.modalities import plain

logger = logging.getLogger(__name__)


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Move a batch's tensors to the device as plain tensors (no MetaTensor); leave the rest."""
    moved = {}
    for key, value in batch.items():
        if isinstance(value, Tensor):
            value = plain(value).to(device, non_blocking=True)
        moved[key] = value
    return moved


class MethodIteration:
    """One training iteration, for SupervisedTrainer's `iteration_update`.

    The trainer's `network` must be a `bundle.methods.base.Method`. Gradient accumulation and AMP
    with a gradient scaler are the trainer's own settings.

    Args:
        clip_norm: largest allowed norm of the whole gradient; None = no clipping.
        amp: True = mixed precision even where the trainer's own `amp` is off. On a CPU it must be
            off, because it brings a gradient scaler, which bfloat16 neither needs nor has there.
    """

    def __init__(self, clip_norm: float | None = 12.0, amp: bool = False) -> None:
        self.clip_norm = clip_norm
        self.amp = amp

    def __call__(self, engine: SupervisedTrainer, batchdata: Mapping[str, Any]) -> dict[str, float]:
        """Compute the losses, back-propagate, step.

        Returns:
            The loss terms by name and their sum as `loss`, detached.

        Raises:
            FloatingPointError: loss or gradient is NaN or infinite; nothing has been stepped.
        """
        method, optimizer = engine.network, engine.optimizer
        batch = to_device(batchdata, engine.state.device)
        method.train()
        first, last = self._accumulation_window(engine)
        if first:
            optimizer.zero_grad(set_to_none=True)
        amp = engine.amp or self.amp
        with torch.autocast(batch["image"].device.type, enabled=amp, **engine.amp_kwargs):
            losses = method.losses(batch)
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        output = {name: float(term.detach()) for name, term in losses.items()}
        output["loss"] = sum(output.values())
        self._check_finite(output, batch, engine)
        scale = engine.scaler.scale if engine.scaler is not None else (lambda term: term)
        method.backward(
            {name: scale(term / engine.accumulation_steps) for name, term in losses.items()}
        )
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if last:
            self._step(engine, batch)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return output

    @staticmethod
    def _accumulation_window(engine: SupervisedTrainer) -> tuple[bool, bool]:
        """Say whether this iteration opens and whether it closes an accumulation window."""
        index = (engine.state.iteration - 1) % engine.state.epoch_length
        steps = engine.accumulation_steps
        closes = (index + 1) % steps == 0 or index + 1 == engine.state.epoch_length
        return index % steps == 0, closes

    def _step(self, engine: SupervisedTrainer, batch: Mapping[str, Any]) -> None:
        parameters = [p for group in engine.optimizer.param_groups for p in group["params"]]
        if engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        norm = clip_grad_norm_(parameters, self.clip_norm or float("inf"))
        # A scaler skips such a step by itself and tries again with a smaller scale.
        if engine.scaler is None and not torch.isfinite(norm):
            raise FloatingPointError(_not_finite("gradient", f"norm {norm:g}", batch, engine))
        if engine.scaler is not None:
            engine.scaler.step(engine.optimizer)
            engine.scaler.update()
        else:
            engine.optimizer.step()

    @staticmethod
    def _check_finite(
        output: Mapping[str, float], batch: Mapping[str, Any], engine: SupervisedTrainer
    ) -> None:
        if np.isfinite(output["loss"]):
            return
        terms = ", ".join(f"{name} {value:g}" for name, value in output.items())
        raise FloatingPointError(_not_finite("loss", terms, batch, engine))


def _not_finite(what: str, values: str, batch: Mapping[str, Any], engine: Engine) -> str:
    return (
        f"the {what} is not finite in epoch {engine.state.epoch}, iteration "
        f"{engine.state.iteration} ({values}); cases of the batch: {batch.get('case')}. "
        "Nothing was stepped and the last checkpoint is kept. Look at these cases, lower "
        "the learning rate, or train without mixed precision (--amp false), and continue with "
        "--resume true."
    )


class MethodHandlers:
    """Handler that lets the trainer's method attach handlers of its own."""

    def attach(self, engine: SupervisedTrainer) -> None:
        """Call `method.attach(engine)` once training starts, after the network is in place."""
        engine.add_event_handler(Events.STARTED, lambda e: e.network.attach(e))


def epoch_seed(seed: int, epoch: int) -> int:
    """Mix seed and epoch into one 32-bit seed, so that near seeds do not share epochs."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


class EpochSeed:
    """Reseed everything at the start of every epoch from (seed, epoch).

    An epoch then depends on nothing but the weights and the optimiser it starts from, which is what
    makes a resumed training equal to an uninterrupted one.

    Args:
        seed: the run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed Python, NumPy, PyTorch and the data set's random transforms."""
        value = epoch_seed(self.seed, engine.state.epoch)
        random.seed(value)
        np.random.seed(value)
        torch.manual_seed(value)
        transform = getattr(getattr(engine.data_loader, "dataset", None), "transform", None)
        if hasattr(transform, "set_random_state"):
            transform.set_random_state(seed=value)


class Progress:
    """A progress bar over all iterations of a run, with the latest numbers behind it.

    Silent when the output is not a terminal; the epoch lines of the log remain. ignite's
    ProgressBar has a bar for each epoch: it does not tell how long the whole training still takes.

    Args:
        name: what stands before the bar.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer or an evaluator."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(Events.COMPLETED, self._close)
        engine.add_event_handler(Events.TERMINATE, self._close)

    def _open(self, engine: Engine) -> None:
        self._close(engine)
        self.bar = tqdm(desc=self.name, disable=None, dynamic_ncols=True, leave=False)

    def _advance(self, engine: Engine) -> None:
        state = engine.state
        if self.bar is None or self.bar.disable:
            return
        # A validator takes over the trainer's epoch number; its pass is one all the same.
        passes = state.max_epochs if isinstance(engine, SupervisedTrainer) else 1
        self.bar.total = passes * state.epoch_length
        self.bar.n = state.iteration if passes > 1 else (state.iteration - 1) % self.bar.total + 1
        if isinstance(state.output, dict) and "loss" in state.output:
            self.bar.set_postfix(
                epoch=state.epoch, loss=f"{state.output['loss']:.3f}", refresh=False
            )
        self.bar.refresh()

    def _close(self, engine: Engine) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
