"""The first baseline: zero fill, and a random subset of what is present at every step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from bundle.methods.base import Method
from bundle.methods.drawing import Drawing


class ModalityDropout(Method):
    """Train one U-Net on random modality subsets.

    Each case of a batch keeps a non-empty subset of its present modalities. Randomness comes from
    PyTorch's global generator on the CPU.

    Args:
        network: a network with `deep_logits(image, present) -> list of logits, finest first`.
        criteria: loss terms by name, each called with (list of logits, label), e.g. MONAI's
            `DeepSupervisionLoss` around `DiceLoss(sigmoid=True)`.
        drawing: how the subset is drawn; None = uniformly.
        whole_share: share of a batch's cases that are shown once more with all that they have, a
            case counting as much there; 0 = none. It costs as much again as this share.

    Raises:
        ValueError: `whole_share` outside of 0 to 1.

    Source: the baseline that nnU-Net users train when scans are missing; design.md section 1.4.
    """

    def __init__(
        self,
        network: nn.Module,
        criteria: Mapping[str, nn.Module],
        drawing: Drawing | None = None,
        whole_share: float = 0.0,
    ) -> None:
        super().__init__(network)
        if not 0 <= whole_share <= 1:
            raise ValueError(f"expected whole_share from 0 to 1, got {whole_share}")
        self.criteria = nn.ModuleDict(criteria)
        self.drawing = drawing or Drawing()
        self.whole_share = whole_share

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute each criterion on the logits of a random subset; shapes as in `Method.losses`."""
        keep = self.drawing(batch["present"])
        logits = self.network.deep_logits(batch["image"], keep)
        label = batch["label"].float()
        losses = {name: criterion(logits, label) for name, criterion in self.criteria.items()}
        return losses | self._from_whole(batch["image"], batch["present"], label)

    def _from_whole(self, image: Tensor, present: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Learn from the first cases of the batch, which has no order, with all that they have."""
        count = round(self.whole_share * len(image))
        if not count:
            return {}
        logits = self.network.deep_logits(image[:count], present[:count])
        return {
            f"whole_{name}": count / len(image) * criterion(logits, label[:count])
            for name, criterion in self.criteria.items()
        }
