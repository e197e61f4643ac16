"""The first baseline: zero fill, and a random subset of what is present at every step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from bundle.methods.base import Method
from bundle.modalities import draw_subset


class ModalityDropout(Method):
    """Train one U-Net on random modality subsets.

    Each case of a batch keeps a non-empty subset of its present modalities, all such subsets being
    equally likely. Randomness comes from PyTorch's global generator on the CPU.

    Args:
        network: a network with `deep_logits(image, present) -> list of logits, finest first`.
        criteria: loss terms by name, each called with (list of logits, label), e.g. MONAI's
            `DeepSupervisionLoss` around `DiceLoss(sigmoid=True)`.

    Source: the baseline that nnU-Net users train when scans are missing; design.md section 1.4.
    """

    def __init__(self, network: nn.Module, criteria: Mapping[str, nn.Module]) -> None:
        super().__init__(network)
        self.criteria = nn.ModuleDict(criteria)

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute each criterion on the logits of a random subset; shapes as in `Method.losses`."""
        keep = draw_subset(batch["present"])
        logits = self.network.deep_logits(batch["image"], keep)
        label = batch["label"].float()
        return {name: criterion(logits, label) for name, criterion in self.criteria.items()}
