"""The ceiling: a network that only ever sees one subset of the modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from bundle.methods.base import Method
from bundle.modalities import names_of, parse_subset, presence


class Specialist(Method):
    """Train one U-Net on one modality subset.

    Args:
        network: a network with `deep_logits(image, present) -> list of logits, finest first`.
        criteria: loss terms by name, as in `ModalityDropout`.
        modalities: the vocabulary.
        subset: what the network sees, such as 't1ce+flair'. Every case must have all of it.

    Source: design.md section 1.4.
    """

    def __init__(
        self,
        network: nn.Module,
        criteria: Mapping[str, nn.Module],
        modalities: Sequence[str],
        subset: str,
    ) -> None:
        super().__init__(network)
        self.criteria = nn.ModuleDict(criteria)
        self.modalities = tuple(modalities)
        self.keep = presence(parse_subset(subset, modalities), modalities)

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute each criterion on the logits of the subset; shapes as in `Method.losses`.

        Raises:
            ValueError: a case that lacks a modality of the subset.
        """
        keep = self.keep.to(batch["present"].device).expand_as(batch["present"])
        lacking = (keep & ~batch["present"]).any(1)
        if bool(lacking.any()):
            rows = lacking.nonzero().flatten().tolist()
            raise ValueError(
                f"expected cases with all of {'+'.join(names_of(self.keep, self.modalities))}, "
                f"got others in item {rows} of the batch. Select them with "
                "`bundle.training.datasets.complete_cases`."
            )
        logits = self.network.deep_logits(batch["image"], keep)
        label = batch["label"].float()
        return {name: criterion(logits, label) for name, criterion in self.criteria.items()}
