"""How much each modality dominates a training: gradient norms and conflicts, summed up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bundle.methods.gmd.gradients import GradientReport
from bundle.modalities import subset_code


class Dominance(nn.Module):
    """Statistics of the gradients of the subsets' losses over all steps of a training.

    They live in buffers, so a training that is resumed goes on with them, and they are sums. Norms
    are taken relative to the mean norm of their step: a training's first steps would outweigh all
    others.

    Letters besides the legend of `bundle.modalities`: A = 2^M - 1, all subsets in the order of
    `subset_code`.

    Args:
        modalities: the vocabulary.

    Source: our reading of "dominating modalities" in arXiv 2402.16318 (design.md section 1.3).
    """

    def __init__(self, modalities: Sequence[str]) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        subsets = 2 ** len(self.modalities) - 1
        self.register_buffer("norms", torch.zeros(subsets))
        self.register_buffer("drawn", torch.zeros(subsets))
        self.register_buffer("conflicts", torch.zeros(subsets, subsets))
        self.register_buffer("together", torch.zeros(subsets, subsets))

    @torch.no_grad()
    def update(self, report: GradientReport, subsets: Tensor) -> None:
        """Add one step.

        A step whose gradients are not finite, or all zero, tells nothing and is left out.

        Args:
            report: what `decouple_gradients` returned, one loss for each of the subsets.
            subsets: (S, M) bool, True = the modality belongs to the subset; no subset twice.
        """
        norms = report.norms
        if not bool(report.gram.isfinite().all()) or not bool(norms.any()):
            return
        rows = (subset_code(subsets) - 1).to(self.drawn.device)
        self.norms[rows] += (norms / norms.mean()).to(self.norms)
        self.drawn[rows] += 1
        pairs = rows[:, None], rows[None]
        self.conflicts[pairs] += report.conflicts.to(self.conflicts)
        self.together[pairs] += 1 - torch.eye(len(rows)).to(self.together)

    def mean_norms(self) -> Tensor:
        """Return (A,) mean norms relative to the steps' means; NaN = the subset was never drawn."""
        return self.norms / self.drawn

    def shares(self) -> Tensor:
        """Return (M,) shares of the modalities in the gradients' norms, which sum to 1.

        The mean norm of each subset that was ever drawn is divided equally among its modalities.
        1 / M each = none dominates, if all subsets can be formed. All 0 before the first step.
        """
        indices = range(len(self.modalities))
        codes = torch.arange(1, len(self.drawn) + 1, device=self.drawn.device)
        members = torch.stack([codes >> index & 1 for index in indices], 1).float()
        norms = self.mean_norms().nan_to_num(0)
        parts = (norms[:, None] * members / members.sum(1, keepdim=True)).sum(0)
        return parts / norms.sum() if bool(norms.any()) else parts

    def scalars(self) -> dict[str, float]:
        """Return what is logged: the modalities' shares, and the rate of conflicts over all pairs.

        Empty before the first step; without the rate while every step had one subset only.
        """
        if not bool(self.drawn.any()):
            return {}
        names = [f"dominance_{name}" for name in self.modalities]
        logged = dict(zip(names, self.shares().tolist(), strict=True))
        if bool(self.together.any()):
            logged["conflict_rate"] = float(self.conflicts.sum() / self.together.sum())
        return logged

    def describe(self) -> str:
        """Say in one line what `scalars` returns; empty before the first step."""
        logged = self.scalars()
        if not logged:
            return ""
        shares = [f"{name} {100 * logged[f'dominance_{name}']:.1f} %" for name in self.modalities]
        line = f"shares of the modalities in the gradients' norms: {', '.join(shares)}"
        if "conflict_rate" in logged:
            rate = 100 * logged["conflict_rate"]
            line += f"; pairs of subsets whose gradients were in conflict: {rate:.1f} %"
        return line
