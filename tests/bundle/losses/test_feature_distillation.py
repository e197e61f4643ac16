from __future__ import annotations

import pytest
import torch

from bundle.losses.feature_distillation import distance_to_teacher


def ramp(cases: int = 2) -> torch.Tensor:
    """Features (B, 3, 2, 1, 1, 2): those of modality m are m everywhere, at the second voxel 3m."""
    levels = torch.arange(3.0)[None, :, None, None, None, None] * torch.tensor([1.0, 3.0])
    return levels.expand(cases, 3, 2, 1, 1, 2).clone()


def pairs(*rows: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.bool)


EVEN = torch.ones(2, 1, 1, 2)


def test_each_modality_that_is_taught_adds_its_mean_over_voxels_features_and_cases():
    # The teacher is modality 0; modality 1 is 1 and 3 away from it, modality 2 twice as far.
    one = distance_to_teacher(ramp(), ramp()[:, 0], EVEN, pairs((0, 1, 0), (0, 1, 0)))
    assert one.item() == 2
    both = distance_to_teacher(ramp(), ramp()[:, 0], EVEN, pairs((0, 1, 1), (0, 0, 1)))
    assert both.item() == 2 + 4


def test_a_case_that_is_not_taught_counts_as_little_as_if_it_were_not_there():
    features = ramp()
    features[1] += 5
    found = distance_to_teacher(features, ramp()[:, 0], EVEN, pairs((0, 1, 1), (0, 0, 0)))
    assert found == distance_to_teacher(features[:1], ramp(1)[:, 0], EVEN[:1], pairs((0, 1, 1)))


def test_voxels_count_by_their_weight_whose_size_plays_no_part():
    for size in (1.0, 0.001):
        weight = size * torch.tensor([3.0, 1.0]).expand(2, 1, 1, 2)
        found = distance_to_teacher(ramp(), ramp()[:, 0], weight, pairs((0, 1, 0), (0, 1, 0)))
        assert found.item() == pytest.approx((3 * 1 + 1 * 3) / 4)


def test_gradients_flow_into_the_taught_alone():
    features = ramp().requires_grad_()
    teacher = features[:, 0]
    distance_to_teacher(features, teacher, EVEN, pairs((0, 1, 0), (0, 0, 1))).backward()
    moved = features.grad.flatten(2).abs().sum(2) > 0
    assert torch.equal(moved, pairs((0, 1, 0), (0, 0, 1)))


def test_without_pairs_it_is_0_and_of_the_usual_type():
    for features in (ramp(), ramp().bfloat16()):
        found = distance_to_teacher(features, features[:, 0], EVEN, pairs((0, 0, 0), (0, 0, 0)))
        assert found.item() == 0
        assert found.shape == ()
        assert found.dtype == torch.float32


def test_half_precision_is_added_up_in_single():
    found = distance_to_teacher(
        ramp().bfloat16(), ramp()[:, 0].bfloat16(), EVEN, pairs((0, 1, 1), (0, 1, 1))
    )
    assert found.item() == 6
    assert found.dtype == torch.float32
