"""Gradient-guided modality decoupling (GMD): a loss for each subset, gradients without conflicts.

To understand GMD, read in this order: this file, `gradients` (how conflicts are removed),
`bundle.networks.dynamic_sharing` (the network of the paper) and `dominance` (what is logged).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from bundle.methods.base import Method
from bundle.methods.drawing import Drawing
from bundle.methods.gmd.dominance import Dominance
from bundle.methods.gmd.gradients import REDUCTIONS, decouple_gradients
from bundle.methods.gmd.ranks import from_first_rank, largest_over_ranks, rank_count, sum_over_ranks
from bundle.modalities import names_of, parse_subset, presence, subset_name

logger = logging.getLogger(__name__)


class GMD(Method):
    """Train one network on several modality subsets at every step.

    The subsets are drawn anew for every batch, each at most once, all equally likely among those
    that some case of the batch can form. A case takes part in the loss of a subset if it has all of
    its modalities. The network steps along the mean of the subsets' gradients, after what is in
    conflict has been taken out of each of them.

    Args:
        network: a `bundle.networks.dynamic_sharing.DynamicSharing`, which encodes each modality
            once for all subsets; or any other network with `deep_logits(image, present) -> list of
            logits, finest first`, which is then called for each subset.
        criteria: loss terms by name, each called with (list of logits, label); a subset's loss is
            their sum.
        modalities: the vocabulary.
        subsets_per_step: how many subsets to draw; fewer where fewer can be formed. None = all that
            can be formed.
        decouple: False = the plain mean of the same losses, in one ordinary pass backward.
        reduction: see `gradients.decouple_gradients`. "mean" is at once the paper's and the
            mean variant of PCGrad: the two are one. "mean_where_shared" is what the paper's public
            code does: the norms that belong to one modality, which only some subsets reach, get the
            sum.

    Raises:
        ValueError: `subsets_per_step` below 1, or an unknown reduction.

    Source: our reading of arXiv 2402.16318, design.md section 1.3.
    """

    def __init__(
        self,
        network: nn.Module,
        criteria: Mapping[str, nn.Module],
        modalities: Sequence[str],
        subsets_per_step: int | None = 4,
        decouple: bool = True,
        reduction: str = "mean",
        drawing: Drawing | None = None,
    ) -> None:
        super().__init__(network)
        if subsets_per_step is not None and subsets_per_step < 1:
            raise ValueError(
                f"expected subsets_per_step of at least 1, got {subsets_per_step}. "
                "Set it, or give null for all subsets that can be formed."
            )
        if reduction not in REDUCTIONS:
            raise ValueError(f"expected a reduction among {list(REDUCTIONS)}, got {reduction!r}")
        self.criteria = nn.ModuleDict(criteria)
        self.modalities = tuple(modalities)
        self.subsets_per_step = subsets_per_step
        self.decouple = decouple
        self.reduction = reduction
        self.dominance = Dominance(modalities)
        self.drawing = drawing or Drawing()

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the loss of each drawn subset, named like 't1+flair'; shapes as in `Method`.

        Each is divided by the number of subsets, so that their sum is the mean over the subsets.

        Raises:
            ValueError: no case of the batch has any modality.
        """
        image, label = batch["image"], batch["label"].float()
        present = batch["present"].cpu()
        subsets = draw_subsets(
            present, self.subsets_per_step, image.device, weights=self.drawing.weights
        )
        able = can_form(present, subsets)
        weights = _shares_of_cases(able, image.device) / len(subsets)
        # What no drawn subset asks for is not encoded.
        wanted = (able[:, :, None] & subsets[:, None]).any(0)
        shares = hasattr(self.network, "encode_modalities")
        encoded = self.network.encode_modalities(image, wanted) if shares else []
        losses = {}
        for subset, cases, weight in zip(subsets, able, weights, strict=True):
            name = subset_name(names_of(subset, self.modalities), self.modalities)
            if not bool(cases.any()):
                losses[name] = label.new_zeros(())
                continue
            keep = subset & cases[:, None]
            here = cases.nonzero().flatten().to(image.device)
            if shares:
                logits = self.network.decode(self.network.fuse(encoded, wanted, keep))
            else:
                logits = self.network.deep_logits(image[here], keep[cases].to(image.device))
            terms = [criterion(logits, label[here]) for criterion in self.criteria.values()]
            losses[name] = float(weight) * sum(terms)
        return losses

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Add the decoupled gradient, or the plain one, to the gradient that is there."""
        if not self.decouple:
            super().backward(losses)
            return
        whole = [len(losses) * term for term in losses.values()]
        report = decouple_gradients(whole, list(self.parameters()), reduction=self.reduction)
        names = [parse_subset(name, self.modalities) for name in losses]
        subsets = torch.stack([presence(name, self.modalities) for name in names])
        self.dominance.update(report, subsets)

    def attach(self, engine: Engine) -> None:
        """Add how much each modality dominates to the epoch's metrics; log it at the end."""
        # Every step, because at the end of an epoch others read the metrics before this would run.
        if not engine.has_event_handler(self._show, Events.ITERATION_COMPLETED):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._show)
            engine.add_event_handler(Events.COMPLETED, self._log)

    def _show(self, engine: Engine) -> None:
        engine.state.metrics.update(self.dominance.scalars())

    def _log(self) -> None:
        if line := self.dominance.describe():
            logger.info(line)


def can_form(present: Tensor, subsets: Tensor) -> Tensor:
    """Say which cases have all modalities of which subsets.

    Args:
        present: (B, M) bool, True = available.
        subsets: (S, M) bool, True = the modality belongs to the subset.

    Returns:
        (S, B) bool, True = the case can form the subset.
    """
    return (present[None] | ~subsets[:, None]).all(2)


def draw_subsets(
    present: Tensor,
    count: int | None = None,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Draw distinct subsets that at least one case can form.

    Across processes all ranks draw the same, among the subsets that a case of any rank can form.

    Args:
        present: (B, M) bool on the CPU, True = available.
        count: how many; fewer if fewer can be formed. None = all that can.
        device: through which the ranks speak to each other.
        generator: source of randomness on the CPU; None = PyTorch's global one.
        weights: (2**M,) by `subset_code`, the logarithm of how likely each is to come first; None =
            all alike.

    Returns:
        (S, M) bool on the CPU, True = the modality belongs to the subset.

    Raises:
        ValueError: no case has anything.
    """
    modalities = present.shape[1]
    codes = torch.arange(1, 2**modalities)
    subsets = torch.stack([codes >> index & 1 for index in range(modalities)], 1).bool()
    formed = largest_over_ranks(can_form(present, subsets).any(1), device).nonzero().flatten()
    if not len(formed):
        raise ValueError("cannot draw a subset: no case of the batch has any modality")
    if weights is None:
        order = torch.randperm(len(formed), generator=generator)
    else:
        # A subset that no training case of the census forms has the least chance, not none.
        chances = weights[codes[formed]].softmax(0).clamp_min(1e-12)
        order = torch.multinomial(chances, len(formed), generator=generator)
    return subsets[from_first_rank(formed[order], device)[:count]]


def _shares_of_cases(able: Tensor, device: torch.device) -> Tensor:
    """Weigh a rank's mean over its cases, so that the ranks' mean is that over all cases: (S,)."""
    here = able.sum(1).double()
    return rank_count() * here / sum_over_ranks(here, device)
