"""The handler that tells a method what its training cases have, for a balanced drawing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ignite.engine import Engine, Events
from torch import nn

from bundle.data.filenames import Suffixes
from bundle.training.datasets import patterns_of


class TrainingCensus:
    """Handler that tells the method's drawing, if it is balanced, what each training case has.

    Args:
        method: the method; one without a drawing is left alone.
        modalities: the vocabulary.
        suffixes: as in `bundle.training.datasets.spell_out`.
    """

    def __init__(
        self, method: nn.Module, modalities: Sequence[str], suffixes: Suffixes = None
    ) -> None:
        self.method = method
        self.modalities = modalities
        self.suffixes = suffixes

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, whose data set holds the cases."""
        engine.add_event_handler(Events.STARTED, lambda e: self.take(e.data_loader.dataset))

    def take(self, dataset: Any) -> None:
        """Read what the cases of a data set have; MONAI's data sets keep their items as `data`."""
        drawing = getattr(self.method, "drawing", None)
        if drawing is not None and drawing.kind == "balanced":
            drawing.learn(patterns_of(dataset.data, self.modalities, self.suffixes))
