"""Whether sums can be those of a `DistributionBank`: of real patches, and of so many cases.

Somebody else may have counted them. Letters besides the legend of `bundle.modalities`: K
descriptors of a patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# Of one case: 512 x 512 x 512 voxels in patches of 4.
MOST_PATCHES = 2**21
# Of eigenvalues of sums whose diagonal is scaled to 1; rounding stays far below.
_TOLERANCE = 1e-5
_TINY = 1e-12


def check_sums(
    sums: Mapping[str, Tensor],
    rounding: Mapping[str, float],
    cases: Sequence[int],
    names: Sequence[str],
) -> None:
    """Check that there are patches whose sums these are.

    Counts are whole numbers from 0, symmetric, and bounded by the cases. For each pair of
    modalities, counts, sums, squares and products form the matrix of inner products of what they
    add up, (1, descriptors of i, descriptors of j), which has no negative eigenvalue: a count times
    a sum of squares is at least the square of the sum.

    Args:
        sums: counts (M, M), sums (M, M, K), squares and products (M, M, K, K), float64, finite.
        rounding: by the same names, how far numbers may be off.
        cases: how many cases have each of the M modalities.
        names: what messages call them.

    Raises:
        ValueError: there are no such patches.
    """
    counts = sums["counts"]
    whole = (counts - counts.round()).abs().max() <= max(rounding["counts"], _TINY)
    if not whole or bool((counts < -rounding["counts"]).any()):
        raise ValueError("its statistics count patches that are no whole numbers from 0")
    for index, name in enumerate(names):
        if float(counts[index].max()) > cases[index] * MOST_PATCHES + rounding["counts"]:
            raise ValueError(
                f"its statistics count {float(counts[index].max()):.6g} patches of {name!r}, "
                f"expected at most {cases[index] * MOST_PATCHES} in {cases[index]} cases"
            )
    for i, one in enumerate(names):
        for j in range(i, len(names)):
            if not _has_patches(sums, rounding, i, j):
                raise ValueError(
                    f"its statistics of {one!r} and {names[j]!r} are inconsistent: counts, sums, "
                    "squares and products are not those of any patches"
                )


def _has_patches(sums: Mapping[str, Tensor], rounding: Mapping[str, float], i: int, j: int) -> bool:
    counts, squares, products = sums["counts"], sums["squares"], sums["products"]
    slack = max(rounding["squares"], rounding["products"], _TINY)
    mirrored = (products[i, j] - products[j, i].T).abs().max() <= slack
    if not mirrored or abs(float(counts[i, j] - counts[j, i])) > max(rounding["counts"], _TINY):
        return False
    if i == j and float((products[i, i] - squares[i, i]).abs().max()) > slack:
        return False
    if float(counts[i, j]) < 0.5:
        empty = (squares[i, j], squares[j, i], products[i, j])
        return all(float(value.abs().max()) <= slack for value in empty)
    matrix, least = _inner_products(sums, i, j), torch.tensor(slack, dtype=torch.float64)
    scale = matrix.diagonal().maximum(least).rsqrt()
    return float(torch.linalg.eigvalsh(matrix * torch.outer(scale, scale))[0]) >= -_TOLERANCE


def _inner_products(sums: Mapping[str, Tensor], i: int, j: int) -> Tensor:
    """Put the matrix (1 + 2 K, 1 + 2 K) of a pair together; of one modality (1 + K, 1 + K)."""
    count = sums["counts"][i, j].reshape(1, 1)
    own, other = sums["sums"][i, j][None], sums["sums"][j, i][None]
    square, square_other = sums["squares"][i, j], sums["squares"][j, i]
    if i == j:
        return torch.cat([torch.cat([count, own], 1), torch.cat([own.T, square], 1)])
    product = sums["products"][i, j]
    rows = [
        torch.cat([count, own, other], 1),
        torch.cat([own.T, square, product], 1),
        torch.cat([other.T, product.T, square_other], 1),
    ]
    return torch.cat(rows)
