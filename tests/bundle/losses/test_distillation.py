from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, kl_divergence

from bundle.losses.distillation import (
    confidence,
    distance_to_teacher,
    feature_distance,
    soft_label_distance,
)

SHAPE = (2, 3, 4, 4, 4)


def noise(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ones(*shape: int) -> Tensor:
    return torch.ones(shape or SHAPE)


def test_confidence_is_the_probability_given_to_the_truth():
    teacher = torch.tensor([40.0, 40.0, -40.0, -40.0, 0.0, 0.0]).view(1, 1, 1, 1, 6)
    label = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0]).view(1, 1, 1, 1, 6)
    trust = confidence(teacher, label)
    torch.testing.assert_close(trust.flatten(), torch.tensor([1.0, 0, 1, 0, 0.5, 0.5]))
    assert torch.equal(confidence(teacher, label.to(torch.uint8)), trust)


def test_confidence_of_half_precision_is_single():
    assert confidence(noise(*SHAPE).half(), ones()).dtype == torch.float32


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_soft_labels_are_compared_by_bernoulli_divergence(temperature):
    student, teacher = noise(*SHAPE), noise(*SHAPE, seed=1)
    told, heard = (Bernoulli(logits=logits / temperature) for logits in (teacher, student))
    expected = temperature**2 * kl_divergence(told, heard).mean()
    found = soft_label_distance(student, teacher, ones(), temperature)
    assert found.shape == ()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    assert found > 0.1


def test_one_voxel_by_hand():
    # Probabilities 3/4 and 1/2: 3/4 log(3/2) + 1/4 log(1/2).
    teacher = torch.tensor(3.0).log().view(1, 1, 1, 1, 1)
    found = soft_label_distance(torch.zeros(1, 1, 1, 1, 1), teacher, ones(1, 1, 1, 1, 1), 1.0)
    assert found.item() == pytest.approx(0.13081, abs=1e-5)


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_agreement_costs_nothing_and_pulls_nowhere(scale):
    student = noise(*SHAPE, scale=scale).requires_grad_()
    distance = soft_label_distance(student, student.detach(), ones())
    distance.backward()
    assert abs(distance.item()) < 1e-6
    assert student.grad.abs().max() < 1e-8


@pytest.mark.parametrize("seed", range(5))
def test_disagreement_costs_more_than_0_also_where_both_are_sure(seed):
    student, teacher = noise(*SHAPE, seed=seed, scale=40), noise(*SHAPE, seed=seed + 9, scale=40)
    distance = soft_label_distance(student, teacher, ones())
    assert 0 < distance.item() < float("inf")


def test_the_temperature_leaves_the_gradients_size():
    def slope(temperature: float) -> Tensor:
        student = noise(*SHAPE, scale=0.01).requires_grad_()
        distance = soft_label_distance(
            student, noise(*SHAPE, seed=1, scale=0.01), ones(), temperature
        )
        return torch.autograd.grad(distance, student)[0]

    torch.testing.assert_close(slope(4.0), slope(1.0), rtol=1e-2, atol=1e-9)


def test_a_voxel_of_weight_0_says_nothing():
    student, teacher = noise(*SHAPE).requires_grad_(), noise(*SHAPE, seed=1)
    weight = (noise(*SHAPE, seed=2) > 0).float()
    distance = soft_label_distance(student, teacher, weight)
    (slope,) = torch.autograd.grad(distance, student)
    assert torch.equal(slope != 0, weight > 0)
    other = torch.where(weight > 0, teacher, noise(*SHAPE, seed=3))
    assert torch.equal(soft_label_distance(student, other, weight), distance)


def test_nothing_trusted_costs_nothing():
    assert soft_label_distance(noise(*SHAPE), noise(*SHAPE, seed=1), 0 * ones()).item() == 0
    assert feature_distance(noise(*SHAPE), noise(*SHAPE, seed=1), torch.zeros(2)).item() == 0


def test_only_the_student_learns():
    student, teacher = noise(*SHAPE).requires_grad_(), noise(*SHAPE, seed=1).requires_grad_()
    weight = ones().requires_grad_()
    soft_label_distance(student, teacher, weight).backward()
    feature_distance(student, teacher, ones(2).requires_grad_()).backward()
    assert teacher.grad is None
    assert weight.grad is None
    assert bool(student.grad.any())


def test_a_teacher_that_is_sure_and_wrong_everywhere_is_not_listened_to():
    label = (noise(*SHAPE) > 0).float()
    wrong = 10 * (1 - 2 * label)
    distance = soft_label_distance(torch.zeros(SHAPE), wrong, confidence(wrong, label))
    assert distance.item() < 0.01


def test_the_features_of_a_teacher_that_is_wrong_count_little():
    student, teacher = noise(1, 8, 2, 2, 2), noise(1, 8, 2, 2, 2, seed=1)
    full, little = (feature_distance(student, teacher, torch.tensor([w])) for w in (1.0, 0.01))
    assert little < 0.1 * full


def test_a_sure_and_wrong_voxel_counts_little_among_right_ones():
    label = torch.zeros(SHAPE)
    teacher = torch.full(SHAPE, -10.0)
    student = teacher.clone()
    teacher[0, 0, 0, 0, 0] = 10
    poisoned = soft_label_distance(student, teacher, confidence(teacher, label))
    assert poisoned < 1e-3 * soft_label_distance(student, teacher, ones())


def test_half_precision_is_compared_in_single():
    found = soft_label_distance(noise(*SHAPE).half(), noise(*SHAPE, seed=1).half(), ones())
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found, soft_label_distance(noise(*SHAPE), noise(*SHAPE, seed=1), ones()), rtol=1e-2, atol=0
    )


def test_features_are_compared_by_direction_voxel_by_voxel():
    features = noise(2, 8, 2, 2, 2)
    assert feature_distance(features, 3 * features, ones(2)).item() == pytest.approx(0, abs=1e-6)
    assert feature_distance(features, -features, ones(2)).item() == pytest.approx(2)
    turned = features.clone()
    turned[:, :, 0] *= -1
    assert feature_distance(features, turned, ones(2)).item() == pytest.approx(1, abs=1e-6)


def test_a_case_of_weight_0_has_no_say_in_the_features():
    student, teacher = noise(2, 8, 2, 2, 2).requires_grad_(), noise(2, 8, 2, 2, 2, seed=1)
    distance = feature_distance(student, teacher, torch.tensor([1.0, 0.0]))
    (slope,) = torch.autograd.grad(distance, student)
    assert bool(slope[0].any())
    assert not bool(slope[1].any())


def test_features_of_zero_have_no_direction_and_no_nan():
    student = torch.zeros(1, 8, 2, 2, 2).requires_grad_()
    distance = feature_distance(student, torch.zeros(1, 8, 2, 2, 2), ones(1))
    distance.backward()
    assert distance.item() == 1
    assert bool(student.grad.isfinite().all())


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
