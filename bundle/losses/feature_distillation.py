"""How far the scans of a case are from the one that teaches them, feature by feature.

Letter besides the legend of `bundle.modalities`: C features.
"""

from __future__ import annotations

from torch import Tensor


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
    they have are ours (DESIGN.md section 1.2).
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
