"""How the subset that a case shows in a training step is drawn: uniformly, or as evenly as can be.

Where cases lack scans for good, a uniform draw among what each has shows few scans most of the
time: with half of the scans missing, one scan in two thirds of the steps and four in one of 250. An
evaluation asks for all subsets alike. Balanced weights come as near to that as the cases allow.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bundle.modalities import draw_subset, subset_code

DRAWINGS = ("uniform", "balanced")
_ROUNDS = 2000
_CLOSE = 1e-7


class Drawing:
    """Draws what each case of a batch shows.

    Args:
        kind: "uniform" = every non-empty subset of what a case has is equally likely; "balanced" =
            all subsets are shown equally often over the training cases, as near as can be, once
            `learn` has told what these have.

    Attributes:
        weights: (2**M,) float64 by `subset_code`, logarithms: how likely a subset is beside the
            others that a case can show; None = all alike.

    Raises:
        ValueError: neither kind.
    """

    def __init__(self, kind: str = "uniform") -> None:
        if kind not in DRAWINGS:
            raise ValueError(f"drawing: expected one of {list(DRAWINGS)}, got {kind!r}")
        self.kind = kind
        self.weights: Tensor | None = None

    def learn(self, patterns: Tensor) -> None:
        """Find the weights of a balanced drawing.

        Args:
            patterns: (N, M) bool, what each training case has.

        Raises:
            ValueError: no case.
        """
        if not len(patterns):
            raise ValueError("drawing: expected training cases to balance the subsets of, got none")
        self.weights = balanced_weights(patterns)
        codes = range(len(self.weights))
        self._table = torch.stack([self._of_pattern(code) for code in codes])

    def __call__(self, present: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw a subset of each case's modalities.

        Args:
            present: (B, M) bool, at least one True per row.
            generator: source of randomness on the CPU; None = PyTorch's global one.

        Returns:
            (B, M) bool on the device of `present`, True = keep.

        Raises:
            ValueError: a row with nothing present.
            RuntimeError: balanced, and nothing was learnt.
        """
        if self.kind == "uniform":
            return draw_subset(present, generator)
        if self.weights is None:
            raise RuntimeError(
                "drawing: 'balanced' was to draw before it has learnt what training cases have. "
                "Attach bundle.training.census.TrainingCensus to the trainer, or draw uniformly."
            )
        if not bool(present.any(1).all()):
            raise ValueError("cannot draw a subset: a case has no modality present")
        chances = self._table[subset_code(present.cpu())]
        codes = torch.multinomial(chances, 1, generator=generator)
        bits = torch.arange(present.shape[1])
        return (codes >> bits & 1).bool().to(present.device)

    def _of_pattern(self, code: int) -> Tensor:
        """Give the chances of a case that has the subset of a code: (2**M,) float64."""
        codes = torch.arange(len(self.weights))
        within = (codes & ~code == 0) & (codes > 0)
        known = self.weights.masked_fill(~within, -torch.inf)
        # What no training case shows may stand in a batch all the same, at another site.
        known = known if bool(known.isfinite().any()) else self.weights.new_zeros(len(known))
        return torch.nan_to_num(known.masked_fill(~within, -torch.inf).softmax(0))


def balanced_weights(patterns: Tensor) -> Tensor:
    """Weigh the subsets so that training shows them as evenly as the cases allow.

    A case with pattern P shows a subset s of P with the chance w_s / (sum of the weights within P).
    Each weight is multiplied by what should be shown over what is shown, again and again: iterative
    proportional fitting, which comes to the least Kullback-Leibler divergence.

    Args:
        patterns: (N, M) bool, what each training case has.

    Returns:
        (2**M,) float64 by `subset_code`, logarithms of the weights; minus infinity for what no case
        can show.

    Source: Deming and Stephan, Annals of Mathematical Statistics 1940.
    """
    codes, counts = subset_code(patterns.cpu()).unique(return_counts=True)
    shares = counts.double() / counts.sum()
    subsets = torch.arange(2 ** patterns.shape[1])
    within = (subsets[None] & ~codes[:, None] == 0) & (subsets > 0)
    target = within.any(0).double()
    target /= target.sum()
    # Logarithms, for where the cases do not allow even shares weights grow without end.
    weights, before = torch.where(target > 0, 0.0, -torch.inf).double(), None
    for _ in range(_ROUNDS):
        shown = shown_shares(weights, within, shares)
        if before is not None and float((shown - before).abs().max()) < _CLOSE:
            break
        before = shown
        weights = torch.where(target > 0, weights + torch.log(target / shown), -torch.inf)
    return weights


def shown_shares(weights: Tensor, within: Tensor, shares: Tensor) -> Tensor:
    """Say how often each subset is shown: (2**M,), its sum is 1.

    Args:
        weights: (2**M,) of the subsets, logarithms.
        within: (P, 2**M) bool, True = a case of the pattern can show the subset.
        shares: (P,) of the cases that have the pattern.
    """
    chances = weights.expand_as(within).masked_fill(~within, -torch.inf).softmax(1)
    return (shares[:, None] * chances).sum(0)
