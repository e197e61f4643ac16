"""What a teacher tells a student: soft labels and features, as far as the teacher is right."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def confidence(teacher: Tensor, label: Tensor) -> Tensor:
    """Say how far to trust a teacher: the probability that it gives to the truth.

    Args:
        teacher: (B, R, D, H, W) region logits.
        label: (B, R, D, H, W), 1 = inside the region.

    Returns:
        (B, R, D, H, W) from 0 (sure and wrong) to 1 (sure and right).
    """
    inside = teacher.float().sigmoid()
    return torch.where(label > 0.5, inside, 1 - inside)


def soft_label_distance(
    student: Tensor, teacher: Tensor, weight: Tensor, temperature: float = 2.0
) -> Tensor:
    """Kullback-Leibler divergence from the teacher's softened region probabilities, times weight.

    Each region is a yes-or-no question of its own. 0 where the two agree; gradients flow into the
    student alone.

    Args:
        student, teacher: (B, R, D, H, W) region logits.
        weight: (B, R, D, H, W), 0 to 1, as `confidence` gives it.
        temperature: divides the logits; the result is multiplied by its square, which keeps the
            gradient's size.

    Returns:
        () float32, at least 0 but for rounding.

    Source: Hinton et al. 2015 (arXiv 1503.02531); the weight is ours (DESIGN.md section 1.1).
    """
    soft = (teacher.detach().float() / temperature).sigmoid()
    crossed = F.binary_cross_entropy_with_logits(
        student.float() / temperature, soft, reduction="none"
    )
    entropy = -(torch.xlogy(soft, soft) + torch.xlogy(1 - soft, 1 - soft))
    # A mean, not a weighted one: what is trusted nowhere is to teach nothing.
    return temperature**2 * (weight.detach() * (crossed - entropy)).mean()


def feature_distance(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """One minus the cosine between two feature maps, voxel by voxel, times each case's weight.

    Args:
        student, teacher: (B, C, D, H, W); gradients flow into the student alone.
        weight: (B,), 0 to 1.

    Returns:
        () float32, 0 (same direction everywhere) to 2.
    """
    cosine = F.cosine_similarity(student.float(), teacher.detach().float(), dim=1)
    return (weight.detach() * (1 - cosine.flatten(1).mean(1))).mean()
