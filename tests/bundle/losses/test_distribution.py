from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from bundle.losses.distribution import (
    conditional_matching,
    gaussian_w2,
    marginal_excess,
    marginal_matching,
)


def gaussian(seed: int, features: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(features, features, generator=generator, dtype=torch.float64)
    return torch.randn(features, generator=generator, dtype=torch.float64), root @ root.T


def sample(patches: int, mean: Tensor, cov: Tensor) -> Tensor:
    """Patches whose mean and (population) covariance are exactly the given ones."""
    noise = torch.randn(patches, len(mean), generator=torch.Generator().manual_seed(7)).double()
    noise = noise - noise.mean(0)
    factor = torch.linalg.cholesky(noise.T @ noise / patches)
    white = torch.linalg.solve_triangular(factor, noise.T, upper=False).T
    return white @ torch.linalg.cholesky(cov).T + mean


def test_w2_equals_the_formula_with_matrix_roots():
    (mean_a, cov_a), (mean_b, cov_b) = gaussian(0), gaussian(1)
    root = scipy.linalg.sqrtm(cov_b.numpy())
    middle = scipy.linalg.sqrtm(root @ cov_a.numpy() @ root)
    expected = np.sum((mean_a - mean_b).numpy() ** 2) + np.trace(cov_a + cov_b - 2 * middle.real)
    found = gaussian_w2(mean_a, cov_a, mean_b, cov_b)
    assert found.item() == pytest.approx(expected, rel=1e-6)
    assert gaussian_w2(mean_b, cov_b, mean_a, cov_a).item() == pytest.approx(expected, rel=1e-6)


def test_w2_of_one_dimension_is_the_distance_of_mean_and_deviation():
    found = gaussian_w2(
        torch.tensor([3.0]), torch.tensor([[4.0]]), torch.tensor([0.0]), torch.tensor([[25.0]])
    )
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(9 + (5 - 2) ** 2)


@pytest.mark.parametrize("rank", [3, 1, 0])
def test_w2_of_identical_gaussians_is_0_with_a_finite_gradient(rank):
    mean, cov = gaussian(0)
    root = torch.linalg.cholesky(cov)[:, :rank].requires_grad_()
    distance = gaussian_w2(mean, root @ root.T, mean, (root @ root.T).detach())
    assert 0 <= distance.item() < 1e-12
    distance.backward()
    assert bool(root.grad.isfinite().all())


@pytest.mark.parametrize("scales", [(1, 1, 1), (1, 2, 2), (1, 2, 3)])
def test_the_gradient_of_w2_is_right_where_eigenvalues_coincide(scales):
    mean, cov = torch.zeros(3).double(), torch.eye(3).double()
    root = torch.diag(torch.tensor(scales, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda r: gaussian_w2(mean, r @ r.T, mean + 1, 4 * cov), root, atol=1e-6
    )


def test_marginal_matching_is_0_for_the_distribution_itself():
    mean, cov = gaussian(2)
    assert marginal_matching(sample(50, mean, cov), mean, cov).item() < 1e-10


def test_marginal_matching_weighs_features_of_any_scale_alike():
    mean, cov = gaussian(2)
    scale = torch.tensor([1.0, 100.0, 0.01]).double()
    patches = sample(50, mean, cov) * 1.5 + 0.3
    expected = marginal_matching(patches, mean, cov)
    scaled = marginal_matching(patches * scale, mean * scale, cov * torch.outer(scale, scale))
    assert expected.item() > 0.05
    torch.testing.assert_close(scaled, expected)


def test_marginal_matching_counts_deviations_per_feature():
    mean, cov = torch.tensor([1.0, 2.0]), torch.diag(torch.tensor([4.0, 9.0]))
    off_by_one_deviation = sample(20, mean + torch.tensor([2.0, 0.0]), cov.double())
    assert marginal_matching(off_by_one_deviation, mean, cov).item() == pytest.approx(0.5)
    twice_as_wide = sample(20, mean, 4 * cov.double())
    assert marginal_matching(twice_as_wide, mean, cov).item() == pytest.approx(1, rel=1e-4)


def test_marginal_matching_of_no_patch_is_0_and_of_one_the_mean_alone():
    mean, cov = torch.tensor([1.0, 2.0]), torch.diag(torch.tensor([4.0, 9.0]))
    assert marginal_matching(torch.zeros(0, 2), mean, cov).item() == 0
    assert marginal_matching(torch.tensor([[5.0, 2.0]]), mean, cov).item() == pytest.approx(2)


@pytest.mark.parametrize("patches", [1, 2, 5])
def test_marginal_matching_of_patches_all_alike_has_a_finite_gradient(patches):
    mean, cov = gaussian(2)
    descriptors = torch.zeros(patches, 3, requires_grad=True)
    marginal_matching(descriptors, mean, cov).backward()
    assert bool(descriptors.grad.isfinite().all())
    assert bool((descriptors.grad != 0).all())


NO_SIZES = torch.tensor([False, False, False])


def test_marginal_excess_is_0_for_the_distribution_itself_and_all_that_varies_less():
    mean, cov = gaussian(1)
    patches = sample(50, mean, cov)
    assert marginal_excess(patches, mean, cov, NO_SIZES).item() == pytest.approx(0, abs=1e-12)
    narrow = mean + 0.3 * (patches - mean)
    assert marginal_excess(narrow, mean, cov, NO_SIZES).item() == pytest.approx(0, abs=1e-12)


def test_marginal_excess_of_a_wider_one_is_the_surplus_of_deviation():
    mean, cov = gaussian(1)
    wide = mean + 2.5 * (sample(50, mean, cov) - mean)
    # Three directions, each 1.5 standard deviations too wide, divided by three descriptors.
    assert marginal_excess(wide, mean, cov, NO_SIZES).item() == pytest.approx(1.5**2, rel=1e-6)


def test_marginal_excess_forgives_a_size_that_is_too_small():
    mean, cov = gaussian(2)
    deviation = cov.diagonal().sqrt()
    sizes = torch.tensor([False, True, True])
    patches = sample(50, mean, cov)
    for shift, expected in (((-1, 0, 0), 1 / 3), ((0, -1, -2), 0), ((0, 1, 2), 5 / 3)):
        moved = patches + torch.tensor(shift) * deviation
        found = marginal_excess(moved, mean, cov, sizes).item()
        assert found == pytest.approx(expected, abs=1e-9), shift


def test_marginal_excess_of_no_patch_is_0_and_of_one_the_mean_alone():
    mean, cov = gaussian(3)
    assert marginal_excess(mean.new_zeros(0, 3), mean, cov, NO_SIZES) == 0
    one = (mean + cov.diagonal().sqrt())[None]
    assert marginal_excess(one, mean, cov, NO_SIZES).item() == pytest.approx(1)


@pytest.mark.parametrize("patches", [2, 8])
def test_marginal_excess_of_patches_all_alike_has_a_finite_gradient(patches):
    mean, cov = gaussian(4)
    alike = torch.zeros(patches, 3, dtype=torch.float64, requires_grad=True)
    marginal_excess(alike, mean, cov, NO_SIZES).backward()
    assert bool(alike.grad.isfinite().all())


def test_conditional_matching_is_half_the_mahalanobis_distance_a_feature():
    mean, cov = gaussian(3)
    descriptors = torch.stack((mean, mean + 1, mean - 2))
    expected = [(d - mean) @ torch.linalg.inv(cov) @ (d - mean) / 2 / 3 for d in descriptors]
    found = conditional_matching(descriptors, mean.expand(3, 3), cov)
    torch.testing.assert_close(found, torch.stack(expected).mean())
    assert conditional_matching(mean[None], mean[None], cov).item() == 0
    assert conditional_matching(torch.zeros(0, 3), torch.zeros(0, 3), cov).item() == 0


def test_conditional_matching_is_the_likelihood_of_torch_less_its_constant():
    mean, cov = gaussian(4)
    patches = sample(5, mean + 0.5, cov)
    likelihood = torch.distributions.MultivariateNormal(mean, cov)
    expected = (likelihood.log_prob(mean) - likelihood.log_prob(patches)).mean() / 3
    torch.testing.assert_close(conditional_matching(patches, mean.expand(5, 3), cov), expected)


def test_beyond_the_cap_the_loss_grows_linearly():
    mean, cov = torch.zeros(4, 1), torch.tensor([[4.0]])
    for deviations, expected in ((1, 0.5), (3, 4.5), (10, 3 * (10 - 1.5))):
        found = conditional_matching(mean + 2 * deviations, mean, cov, cap=3.0)
        assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("cap", [None, 1.0])
def test_only_the_descriptors_get_a_gradient(cap):
    mean, cov = (part.requires_grad_() for part in gaussian(5))
    descriptors = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = marginal_matching(descriptors, mean, cov)
    loss = loss + conditional_matching(descriptors, mean.expand(6, 3), cov, cap)
    loss.backward()
    assert bool((descriptors.grad != 0).all())
    assert mean.grad is None
    assert cov.grad is None


def test_the_gradients_are_the_numerical_ones():
    mean, cov = gaussian(6)
    patches = sample(5, mean + 0.5, 2 * cov).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: marginal_matching(x, mean, cov), patches)
    assert torch.autograd.gradcheck(
        lambda x: conditional_matching(x, mean.expand(5, 3), cov, 1.0), patches
    )


def test_mixed_precision_changes_nothing():
    mean, cov = (part.float() for part in gaussian(2))
    patches = sample(50, mean.double() + 0.1, 2 * cov.double()).float()
    expected = (
        marginal_matching(patches, mean, cov),
        conditional_matching(patches, mean + 0 * patches, cov),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = (
            marginal_matching(patches, mean, cov),
            conditional_matching(patches, mean + 0 * patches, cov),
        )
    assert found == expected
    assert found[0].dtype == torch.float32
    assert math.isfinite(found[1])
