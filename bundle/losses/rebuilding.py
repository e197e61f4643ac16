"""How far rebuilt scans are from those that exist."""

from __future__ import annotations

from torch import Tensor


def rebuilding_error(rebuilt: Tensor, image: Tensor, present: Tensor, brain: Tensor) -> Tensor:
    """Mean squared error over the brain voxels of the modalities that were scanned.

    Args:
        rebuilt: (B, M, D, H, W) z-scores (unit: standard deviations of the case's brain).
        image: (B, M, D, H, W), same unit; an absent modality may hold anything, NaN included.
        present: (B, M) bool, True = the modality was scanned.
        brain: (B, 1, D, H, W) bool, True = inside the brain.

    Returns:
        () float32, unit squared, at least 0; exactly 0 if nothing counts (pure background).

    Source: He et al. 2022 (arXiv 2111.06377); that every known voxel counts, masked or not, is ours
        (design.md section 1.1).
    """
    counts = brain & present[:, :, None, None, None]
    error = (rebuilt.float() - image.float()).masked_fill(~counts, 0)
    return error.square().sum() / counts.sum().clamp(min=1)
