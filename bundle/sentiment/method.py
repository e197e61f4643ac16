"""Regression on feature sequences: one loss for each modality subset, their gradients decoupled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bundle.methods.gmd.gradients import decouple_gradients
from bundle.modalities import all_subsets, subset_name


class FeatureRegression(nn.Module):
    """Train a regressor on every subset that the samples of a batch can form.

    Not a `bundle.methods.base.Method`: there are no images, and no engine of MONAI trains it. A
    sample joins the loss of a subset only if it has all of the subset's modalities; a subset that
    no sample can form has no loss in this step. Every modality is encoded once for all subsets.

    Args:
        network: a `bundle.sentiment.network.FeatureRegressor`.
        decouple: True = `bundle.methods.gmd.gradients.decouple_gradients`, the function that also
            trains the segmentation networks; False = the gradient of the same losses' mean.

    Attributes:
        conflicts, pairs: how many pairs of subsets' gradients disagreed so far (negative scalar
            product), and how many there were; counted only while decoupling.

    Source: our reading of arXiv 2402.16318, which has an experiment on CMU-MOSI; design.md
    section 1.3.
    """

    def __init__(self, network: nn.Module, decouple: bool = True) -> None:
        super().__init__()
        self.network = network
        self.decouple = decouple
        self.conflicts = 0
        self.pairs = 0

    def losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Compute the mean absolute error of every subset over the number of subsets.

        Args:
            batch: `frames`, modality -> (B, T, F) float; `valid`, modality -> (B, T) bool, True =
                the frame counts; `present` (B, M) bool, True = available; `label` (B,) float.

        Returns:
            Scalars by subset, such as "text+audio"; their sum is the mean over the subsets.

        Raises:
            ValueError: no sample of the batch has any modality.
        """
        present, label = batch["present"], batch["label"]
        codes = self.network.encode(batch["frames"], batch["valid"], present)
        modalities = tuple(codes)
        errors = {}
        for subset in all_subsets(modalities):
            members = [modalities.index(name) for name in subset]
            rows = present[:, members].all(1).nonzero().flatten()
            if len(rows):
                prediction = self.network.decode([codes[name][rows] for name in subset])
                name = subset_name(subset, modalities)
                errors[name] = nn.functional.l1_loss(prediction, label[rows])
        if not errors:
            raise ValueError("expected a sample with a modality, got a batch without any")
        return {name: error / len(errors) for name, error in errors.items()}

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Back-propagate the terms, decoupled or as their sum."""
        if not self.decouple:
            sum(losses.values()).backward()
            return
        # The terms are shares of a mean already: their decoupled gradients add up to it.
        report = decouple_gradients(
            list(losses.values()), list(self.network.parameters()), reduction="sum"
        )
        self.conflicts += int(report.conflicts.triu(1).sum())
        self.pairs += len(losses) * (len(losses) - 1) // 2
