"""What a teacher tells a student: soft labels and features, as far as the teacher is right.

Letter besides the legend of `bundle.modalities`: C features.
"""

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

    Source: Hinton et al. 2015 (arXiv 1503.02531); the weight is ours (design.md section 1.1).
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


def distance_to_teacher(features: Tensor, teacher: Tensor, weight: Tensor, pairs: Tensor) -> Tensor:
    """Mean absolute difference from the teacher, summed over the modalities that are taught.

    Args:
        features: (B, M, C, D, H, W); where `pairs` is False they may hold any finite number.
        teacher: (B, C, D, H, W), the teaching scan of each case; no gradient flows into it.
        weight: (B, D, H, W), at least 0, how much each voxel counts; its size plays no part.
        pairs: (B, M) bool, True = this modality of this case is taught. Where it is True, some
            weight of the case must be above 0.

    Returns:
        () float32, at least 0: for each modality the mean over the cases that are taught in it; the
        sum of these. Exactly 0, without a gradient, where nobody is taught.

    Source: the L1 term of arXiv 2310.01035's official code; weights and cases that differ in what
    they have are ours (design.md section 1.2).
    """
    case, modality = pairs.nonzero(as_tuple=True)
    if len(case) == 0:
        return features.new_zeros((), dtype=weight.float().dtype)
    # Only the pairs: the others would cost and, being no part of the result, are not looked at.
    apart = (features[case, modality].float() - teacher.detach()[case].float()).abs().mean(1)
    share = weight[case].float()
    distance = (apart * share).flatten(1).sum(1) / share.flatten(1).sum(1)
    taught = pairs.sum(0).to(distance.dtype)
    return (distance / taught[modality]).sum()
