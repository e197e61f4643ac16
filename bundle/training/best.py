"""The network that a training leaves: the best one, or the last where none was validated."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import nn

from bundle.atomic import write_text_atomically
from bundle.training.average import WeightAverage
from bundle.training.files import keep_previous, save_atomically

logger = logging.getLogger(__name__)


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
        """Go on from a former best value, unless the weights that reached it are gone."""
        if state["epoch"] and not self.path.exists():
            logger.warning(f"{self.path} is gone: the next validation counts as the best")
            return
        self.metric, self.epoch = float(state["metric"]), int(state["epoch"])


class FinalModel:
    """Keep the last network where no validation chose one: no such cases, or a short training.

    Args:
        best: the best model so far, and where it goes.
        average: of the weights, which are kept in place of the last ones; None = there is none.
    """

    def __init__(self, best: BestModel, average: WeightAverage | None = None) -> None:
        self.best = best
        self.average = average

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save the flat state dict, unless a best one has been saved."""
        if not self.best.epoch:
            with self.average.deployed() if self.average is not None else nullcontext():
                self.best.save()
            logger.info(f"nothing was validated: kept the last network in {self.best.path}")
