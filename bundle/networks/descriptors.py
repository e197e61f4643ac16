"""Few numbers that say how a patch of brain looks, differentiable in its voxels.

Letters besides the legend of `bundle.modalities`: N patches, K descriptors of a patch, V voxels of
a patch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

DESCRIPTORS = ("mean", "deviation", "texture")
# Which of them are sizes: never negative, and less of it where an answer is cautious.
SIZES = (False, True, True)

# Keeps the derivative of the square root finite where a patch is constant; z-scores squared.
_LEAST_VARIANCE = 1e-6


class PatchDescriptors(NamedTuple):
    """What `patch_descriptors` returns.

    Attributes:
        values: (B, M, N, K) float, K in the order of `DESCRIPTORS`.
        valid: (B, N) bool, True = at least half of the patch's voxels lie inside the brain.
    """

    values: Tensor
    valid: Tensor


def patch_descriptors(image: Tensor, brain: Tensor, patch: int) -> PatchDescriptors:
    """Describe every patch by mean, standard deviation and texture of its brain voxels.

    Texture is the mean absolute difference between neighbours along the three axes, over the pairs
    that lie inside both patch and brain. Voxels outside the brain count nowhere, whatever they hold
    (NaN included), and get no gradient. Patches do not overlap; N = (D // patch) * (H // patch) *
    (W // patch), and what remains at the far end of an axis is ignored. Half precision is computed
    and returned in single.

    Args:
        image: (B, M, D, H, W) float, z-scores.
        brain: (B, 1, D, H, W) bool, True = inside the brain.
        patch: side of a patch in voxels, at least 2.

    Returns:
        Finite values and gradients wherever the brain voxels are finite; a patch without any brain
        voxel has mean and texture 0. Units: z-scores, for texture per voxel.

    Raises:
        ValueError: shapes that do not fit, or a patch below 2 voxels or larger than the image.

    Source: our reading of the "distribution approximation" of arXiv 2406.01987 (design.md 1.1).
    """
    _check(image, brain, patch)
    image = image.to(torch.promote_types(image.dtype, torch.float32))
    inside = _to_patches(brain, patch)
    voxels = _to_patches(image, patch).masked_fill(~inside, 0)
    mean = _mean_inside(voxels, inside)
    deviations = voxels - mean[..., None, None, None]
    variance = _mean_inside(deviations.square(), inside)
    texture = _mean_difference(voxels, inside)
    values = torch.stack((mean, (variance + _LEAST_VARIANCE).sqrt(), texture), dim=-1)
    valid = 2 * inside[:, 0].flatten(2).sum(2) >= patch**3
    return PatchDescriptors(values, valid)


def _to_patches(volume: Tensor, patch: int) -> Tensor:
    """Cut (B, C, D, H, W) into (B, C, N, patch, patch, patch)."""
    for axis in (2, 3, 4):
        volume = volume.unfold(axis, patch, patch)
    return volume.flatten(2, 4)


def _mean_inside(values: Tensor, inside: Tensor) -> Tensor:
    """Average the last three axes where `inside` is True; 0 where it is nowhere."""
    count = inside.sum((-3, -2, -1)).clamp_min(1)
    return values.masked_fill(~inside, 0).sum((-3, -2, -1)) / count


def _mean_difference(voxels: Tensor, inside: Tensor) -> Tensor:
    total, pairs = 0, 0
    for axis in (-3, -2, -1):
        last = voxels.shape[axis] - 1
        both = inside.narrow(axis, 0, last) & inside.narrow(axis, 1, last)
        steps = voxels.diff(dim=axis).abs().masked_fill(~both, 0)
        total = total + steps.sum((-3, -2, -1))
        pairs = pairs + both.sum((-3, -2, -1))
    return total / pairs.clamp_min(1)


def _check(image: Tensor, brain: Tensor, patch: int) -> None:
    if image.ndim != 5:
        raise ValueError(f"expected image of shape (B, M, D, H, W), got {tuple(image.shape)}")
    expected = (image.shape[0], 1, *image.shape[2:])
    if brain.shape != expected or brain.dtype != torch.bool:
        raise ValueError(
            f"expected brain of shape {expected} and type bool, "
            f"got {tuple(brain.shape)} and {brain.dtype}"
        )
    if not 2 <= patch <= min(image.shape[2:]):
        raise ValueError(
            f"expected patch from 2 to the image's shortest side of {min(image.shape[2:])} voxels, "
            f"got {patch}. Set a smaller patch, or train on larger crops."
        )
