"""The contract between a method and the engine that trains it (design.md section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from ignite.engine import Engine
from torch import Tensor, nn


class Method(nn.Module):
    """A way of training: owns the deployed network and whatever exists only while training.

    A new method is one file with one subclass, and one overlay that names it under `method`.

    Args:
        network: the part that is deployed, called as `network(image, present)`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the named, weighted loss terms of one batch; their sum is the loss.

        Args:
            batch: `image` (B, M, D, H, W) float z-scores, `present` (B, M) bool (True = available)
                and `label` (B, R, D, H, W), 1 = inside the region; all on one device.

        Returns:
            Scalars by name; each is logged under its name.
        """
        raise NotImplementedError(f"{type(self).__name__} must define losses(batch)")

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Back-propagate the sum of the terms; the optimiser is stepped by the engine, not here."""
        sum(losses.values()).backward()

    def attach(self, engine: Engine) -> None:
        """Register handlers on the trainer (elections, moving averages); none by default."""

    def add_statistics(self, batches: Iterable[Mapping[str, Any]], device: torch.device) -> bool:
        """Add training cases to the additive statistics, without a step; none by default.

        Args:
            batches: as the training's loader gives them, one pass.
            device: where to compute.

        Returns:
            True = the method has such statistics, and they have been added to.
        """
        return False

    def after_global_update(self) -> None:
        """Adapt what exists only in training to a state that came from elsewhere.

        A federation calls it after it has loaded the global parameters, before each round.
        Nothing by default.
        """

    def forward(self, image: Tensor, present: Tensor | None = None) -> Tensor:
        """Predict with the deployed network: region logits (B, R, D, H, W)."""
        return self.network(image, present)
