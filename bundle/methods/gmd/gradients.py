"""Gradient decoupling: take out of each loss's gradient what works against the other losses.

A function of losses and parameters and of nothing else, so it serves any model. Letters besides the
legend of `bundle.modalities`: S losses (one for each subset of the modalities), N numbers in one
parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bundle.methods.gmd.ranks import from_first_rank, largest_over_ranks, rank_count, sum_over_ranks

REDUCTIONS = ("mean", "sum", "mean_where_shared")


class GradientReport(NamedTuple):
    """What the gradients of the losses were like before they were decoupled.

    Attributes:
        gram: (S, S) float64 on the CPU, the scalar products of the original gradients, for the
            losses as given: a loss scaler's factor is in it, squared.
        weights: (S,) float64 on the CPU, how often each original gradient went into the sum of the
            decoupled ones; all 1 = nothing had to be removed.
    """

    gram: Tensor
    weights: Tensor

    @property
    def norms(self) -> Tensor:
        """(S,) float64, the norms of the original gradients."""
        return self.gram.diagonal().sqrt()

    @property
    def conflicts(self) -> Tensor:
        """(S, S) bool, True = the two gradients pull apart: their scalar product is negative."""
        return self.gram < 0


def decouple_gradients(
    losses: Sequence[Tensor],
    parameters: Sequence[nn.Parameter],
    *,
    reduction: str = "mean",
    generator: torch.Generator | None = None,
) -> GradientReport:
    """Back-propagate several losses, each one's gradient rid of what conflicts with the others.

    For each gradient, in a freshly shuffled order of the others: where its scalar product with
    another one's *original* gradient is negative, the component along that one is removed. The
    results are reduced and **added** to `p.grad`, so that gradients accumulate as with
    `Tensor.backward`; like there, a parameter that no loss reaches is left alone, and the graphs
    are freed.

    At every stage a gradient is a linear combination of the original ones. Everything is therefore
    computed on their scalar products, in float64 whatever the gradients' type, and the result is
    one weighted sum. A common factor of the losses (a gradient scaler's) is a factor of the result.

    Across processes (`torch.distributed` initialised), each loss's gradient is averaged over the
    ranks *before* it is decoupled, and all ranks add the same: what one process would add for the
    union of their batches, if the losses are means over equally many cases. Every rank must pass as
    many losses in the same order; a loss that a rank has no case for is a constant 0 there. The
    hooks of DistributedDataParallel are neither called nor needed. S times the usual traffic.

    Args:
        losses: S scalars. One without a graph has the gradient zero.
        parameters: whose gradients are decoupled, together as one long vector, and set; a loss that
            does not reach one of them has the gradient zero there. Those that do not learn are
            left alone.
        reduction: of the decoupled gradients. "mean"; "sum", S times that; or "mean_where_shared",
            the mean for parameters that every loss reaches and the sum for the others, as the
            public code of the paper has it.
        generator: source of the orders, on the CPU; None = PyTorch's global one.

    Returns:
        The original gradients' scalar products and what became of them. If a gradient is not
        finite, nothing is removed and the plain reduction is added, for a gradient scaler to find.

    Raises:
        ValueError: no loss, an unknown reduction, or ranks with different numbers of losses.

    Source: Wang et al., AAAI 2024 (arXiv 2402.16318), whose projection is that of PCGrad (Yu et al.
        2020); the scalar products, the average over ranks and the rest are our reading (design.md
        section 1.3).
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"expected a reduction among {list(REDUCTIONS)}, got {reduction!r}")
    if not losses:
        raise ValueError("expected at least one loss to back-propagate, got none")
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    gradients = _back_propagate(losses, learning)
    device = losses[0].device
    with torch.no_grad():
        reached = torch.tensor(
            [[g is not None for g in row] for row in gradients], dtype=torch.bool
        )
        reached = _reached_on_any_rank(reached, device)
        stacks = {
            index: _mean_over_ranks(_stack(gradients, index, parameter))
            for index, parameter in enumerate(learning)
            if bool(reached[:, index].any())
        }
        gram = sum(map(_products, stacks.values()), torch.zeros(len(losses), len(losses)).double())
        weights = from_first_rank(_decouple(gram, generator).sum(0), device)
        for index, stack_SN in stacks.items():
            divisor = _divisor(reduction, bool(reached[:, index].all()), len(losses))
            _add_gradient(learning[index], weights / divisor, stack_SN)
    return GradientReport(gram, weights)


def _back_propagate(
    losses: Sequence[Tensor], parameters: Sequence[nn.Parameter]
) -> list[tuple[Tensor | None, ...]]:
    """Compute each loss's gradient, None where it does not reach a parameter."""
    nothing = (None,) * len(parameters)
    graphs = [index for index, loss in enumerate(losses) if loss.requires_grad]
    gradients: list[tuple[Tensor | None, ...]] = [nothing] * len(losses)
    for index in graphs if parameters else ():
        gradients[index] = torch.autograd.grad(
            losses[index], parameters, retain_graph=index != graphs[-1], allow_unused=True
        )
    return gradients


def _stack(
    gradients: Sequence[Sequence[Tensor | None]], index: int, parameter: nn.Parameter
) -> Tensor:
    """Put the losses' gradients of one parameter side by side: (S, N)."""
    found = [row[index] for row in gradients]
    return torch.stack([torch.zeros_like(parameter) if g is None else g for g in found]).flatten(1)


def _mean_over_ranks(stack_SN: Tensor) -> Tensor:
    return sum_over_ranks(stack_SN / rank_count(), stack_SN.device)


def _products(stack_SN: Tensor) -> Tensor:
    """Compute (S, S) float64 scalar products on the CPU."""
    wide = stack_SN.double()
    return (wide @ wide.T).cpu()


def _decouple(gram: Tensor, generator: torch.Generator | None) -> Tensor:
    """Write each decoupled gradient, a row, as a combination of the original ones: (S, S)."""
    size = len(gram)
    mixture = torch.eye(size, dtype=torch.float64)
    if not bool(gram.isfinite().all()):
        return mixture
    for own, row in enumerate(mixture):
        for other in torch.randperm(size, generator=generator).tolist():
            product = row @ gram[other]
            if other != own and product < 0 and gram[other, other] > 0:
                row[other] -= product / gram[other, other]
    return mixture


def _divisor(reduction: str, shared: bool, losses: int) -> int:
    mean = reduction == "mean" or (reduction == "mean_where_shared" and shared)
    return losses if mean else 1


def _add_gradient(parameter: nn.Parameter, weights_S: Tensor, stack_SN: Tensor) -> None:
    # Half precision has too few digits for a sum of gradients that nearly cancel.
    dtype = torch.promote_types(stack_SN.dtype, torch.float32)
    update = weights_S.to(stack_SN.device, dtype) @ stack_SN.to(dtype)
    update = update.to(parameter.dtype).view_as(parameter)
    if parameter.grad is None:
        parameter.grad = update
    else:
        parameter.grad += update


def _reached_on_any_rank(reached: Tensor, device: torch.device) -> Tensor:
    """Mark (S, parameters) what any rank's loss reaches, True = reached, so that all agree."""
    count = torch.tensor([len(reached), -len(reached)])
    most, least = largest_over_ranks(count, device).abs().tolist()
    if most != least:
        raise ValueError(
            f"expected every rank to pass as many losses, got {least} on one and {most} on another "
            f"({len(reached)} here). Give a constant 0 for a loss that a rank has no case for."
        )
    return largest_over_ranks(reached, device)
