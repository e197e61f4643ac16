"""One tensor of all sites: their weighted mean or sum, or a mean that single sites cannot bend.

Legend: H sites that hold a tensor or a block of it, N numbers of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from federation.protocol.exchange import Kind, Part
from federation.server.agreement import Agreement
from federation.server.counts import Counts
from federation.server.kept import PIECE, Held, Spilled

NONE, CLIPPED, TRIMMED = "none", "clipped", "trimmed"
ROBUST = (NONE, CLIPPED, TRIMMED)
# Of the holders, at each end; see `trimmed_mean`.
_TRIMMED_SHARE = 0.2
_FEWEST_TO_TRIM = 3
# Adding -0.0 leaves every number as it is, bit for bit; adding 0.0 turns -0.0 into 0.0.
_UNMOVED = -0.0


class Voice(NamedTuple):
    """One site's part in one tensor.

    Attributes:
        site: who.
        update: its differences by key.
        counts: the cases by which it is weighed.
        scale: what its numbers are multiplied with, 0 to 1; of sums counted afresh the sums
            themselves, not their differences.
    """

    site: str
    update: Held | Spilled
    counts: Counts
    scale: float = 1.0


def weighted_sum(values_HN: Sequence[Tensor] | Tensor, weights: Sequence[float]) -> Tensor:
    """Add up weighted numbers (N,) in the order of the sites, in double precision."""
    total = torch.zeros(values_HN[0].shape, dtype=torch.float64)
    for value, weight in zip(values_HN, weights, strict=True):
        total += torch.tensor(weight, dtype=torch.float64) * value
    return total


def weighted_mean(values_HN: Tensor, weights: Sequence[float]) -> Tensor:
    """Average numbers (N,), in the order of the sites, in double precision."""
    total = torch.zeros((), dtype=torch.float64)
    for weight in weights:
        total = total + weight
    return weighted_sum(values_HN, weights) / total


def trimmed_mean(values_HN: Tensor, weights: Sequence[float]) -> Tensor:
    """Average each number (N,) over the sites, without its lowest and its highest values.

    A fifth of the sites at each end is left out, rounded down, and at least one. Those that are
    left count alike, whatever they claim. One site or two have no ends to leave out: their mean is
    weighted.

    Source: Yin et al. 2018, "Byzantine-robust distributed learning", definition 2.
    """
    holders = len(values_HN)
    if holders < _FEWEST_TO_TRIM:
        return weighted_mean(values_HN, weights)
    left_out = max(1, int(_TRIMMED_SHARE * holders))
    values_NH = values_HN.numpy().T.copy()
    # Divides at both ends, in a fraction of the time and memory that sorting takes.
    values_NH.partition((left_out, holders - left_out - 1), axis=1)
    return torch.from_numpy(values_NH[:, left_out : holders - left_out].mean(axis=1))


def combine(
    key: str,
    part: Part,
    own: Tensor,
    voices: Sequence[Voice],
    modalities: Sequence[str],
    robust: str = NONE,
    agreement: Agreement | None = None,
) -> Tensor:
    """Combine one tensor of the sites that sent it, piece by piece, in double precision.

    Args:
        key, part: which tensor, and what the rules say of it.
        own: the server's; only its shape and type are read, and of sums counted afresh the values.
        voices: at least one, in the order of the sites' names.
        modalities: the vocabulary.
        robust: one of `ROBUST`; it concerns parameters alone.
        agreement: is shown the parameters; None = nobody compares.

    Returns:
        The difference, in the type of `own`; -0.0 in blocks that nobody holds.

    Raises:
        DamagedError: what was kept of a site has changed.
    """
    merge = _merger(part, robust)
    total = torch.full((own.numel(),), _UNMOVED, dtype=torch.float64)
    blocks = _blocks(part, own.shape, len(modalities))
    for start in range(0, own.numel(), PIECE):
        values_HN = _stack(key, start, voices)
        target = total[start : start + PIECE]
        for columns, name in _segments(part, blocks, start, modalities):
            weights = [_weight(part, name, voice.counts) for voice in voices]
            rows = [row for row, weight in enumerate(weights) if weight > 0]
            if not rows:
                continue
            some = values_HN if len(rows) == len(voices) else values_HN[rows]
            some = some[:, columns]
            if agreement is not None and part.kind == Kind.PARAMETER:
                agreement.add([voices[row].site for row in rows], some)
            base_N = None
            if part.kind == Kind.RECOUNTED:
                base_N = own.reshape(-1)[start : start + PIECE][columns].double()
            scaled = _scaled(some, [voices[row].scale for row in rows], base_N)
            target[columns] = merge(scaled, [weights[row] for row in rows])
    if not own.is_floating_point():
        total = total.round()
    return total.to(own.dtype).reshape(own.shape)


def _scaled(values_HN: Tensor, scales: Sequence[float], base_N: Tensor | None) -> Tensor:
    """Scale what the sites have found: the differences, or with them what they differ from."""
    if all(scale == 1.0 for scale in scales):
        return values_HN
    scales_H1 = torch.tensor(scales, dtype=torch.float64)[:, None]
    if base_N is None:
        return values_HN * scales_H1
    return (values_HN + base_N) * scales_H1 - base_N


def _merger(part: Part, robust: str) -> Callable[[Tensor, Sequence[float]], Tensor]:
    if part.kind == Kind.ADDITIVE:
        return weighted_sum
    return trimmed_mean if robust == TRIMMED and part.kind == Kind.PARAMETER else weighted_mean


def _stack(key: str, start: int, voices: Sequence[Voice]) -> Tensor:
    """Read a piece of every site: (H, N) float64."""
    first = voices[0].update.piece(key, start)
    values_HN = torch.empty(len(voices), len(first), dtype=torch.float64)
    for row, voice in enumerate(voices):
        values_HN[row] = voice.update.piece(key, start)
    return values_HN


def _blocks(part: Part, shape: torch.Size, count: int) -> Tensor | None:
    """Tell the block of each number, flat, of a tensor that holds all modalities; else None."""
    if part.axis is None:
        return None
    length = shape[part.axis]
    form = [1] * len(shape)
    form[part.axis] = length
    index = torch.arange(count).repeat_interleave(length // count).reshape(form)
    return index.expand(shape).reshape(-1)


def _segments(
    part: Part, blocks: Tensor | None, start: int, modalities: Sequence[str]
) -> Iterator[tuple[slice | Tensor, str | None]]:
    """Divide a piece by who holds it: its columns, and the modality that they serve."""
    if blocks is None:
        yield slice(None), None if part.modality is None else modalities[part.modality]
        return
    own = blocks[start : start + PIECE]
    for index, name in enumerate(modalities):
        columns = (own == index).nonzero().flatten()
        if len(columns):
            yield columns, name


def _weight(part: Part, name: str | None, counts: Counts) -> float:
    if part.is_statistic:
        return 1
    return counts.all_cases if name is None else counts.cases.get(name, 0)
