from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from bundle.networks.distribution_bank import DistributionBank

NAMES = ("t1", "t2", "flair")


def draw(batch: int, patches: int, seed: int = 0, modalities: int = 3) -> Tensor:
    """Correlated descriptors (B, M, N, 2) whose mean and scale differ by modality."""
    generator = torch.Generator().manual_seed(seed)
    size = 2 * modalities
    mixing = torch.randn(size, size, generator=torch.Generator().manual_seed(99))
    flat = torch.randn(batch, patches, size, generator=generator) @ mixing + torch.arange(size)
    return flat.unflatten(2, (modalities, 2)).transpose(1, 2)


def filled(descriptors: Tensor, present: Tensor | None = None, **options) -> DistributionBank:
    batch, modalities, patches, features = descriptors.shape
    bank = DistributionBank(modalities, features, NAMES[:modalities], **options)
    if present is None:
        present = torch.ones(batch, modalities, dtype=torch.bool)
    bank.update(descriptors, present, torch.ones(batch, patches, dtype=torch.bool))
    return bank


def incomplete(batch: int) -> Tensor:
    """Presence (B, 3) of a batch in which no case is complete."""
    patterns = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 1, 1], [0, 0, 1]], dtype=torch.bool)
    return patterns[torch.arange(batch) % 4]


def assert_same_statistics(one: DistributionBank, other: DistributionBank, rtol: float) -> None:
    for name in one.additive_statistics:
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=rtol, atol=1e-12)


def test_the_sums_are_those_of_the_joint_patches():
    descriptors, present = draw(4, 5), incomplete(4)
    bank = filled(descriptors, present)
    assert bank.counts.tolist() == [[10, 5, 5], [5, 10, 5], [5, 5, 15]]
    first = descriptors[0].double()
    torch.testing.assert_close(bank.sums[0, 1], first[0].sum(0))
    torch.testing.assert_close(bank.sums[1, 0], first[1].sum(0))
    torch.testing.assert_close(bank.squares[0, 1], first[0].T @ first[0])
    torch.testing.assert_close(bank.products[0, 1], first[0].T @ first[1])
    torch.testing.assert_close(bank.products[1, 0], first[1].T @ first[0])


def test_complete_data_gives_the_exact_gaussian():
    descriptors = draw(3, 400)
    bank = filled(descriptors, shrinkage=0, floor=1e-9)
    pooled = descriptors.double().transpose(1, 2).flatten(0, 1).flatten(1).numpy()
    mean, covariance = pooled.mean(0), np.cov(pooled.T, bias=True)
    found_mean, found_covariance = bank.marginal(1)
    np.testing.assert_allclose(found_mean, mean[2:4], atol=1e-6)
    np.testing.assert_allclose(found_covariance, covariance[2:4, 2:4], atol=1e-6)

    target, known = slice(2, 4), [0, 1, 4, 5]
    cross = covariance[target][:, known]
    weight = cross @ np.linalg.inv(covariance[np.ix_(known, known)])
    expected = mean[target] + (pooled[:7, known] - mean[known]) @ weight.T
    gaussian = bank.conditional(1, torch.tensor([True, False, True]))
    np.testing.assert_allclose(gaussian.weight, weight, atol=1e-6)
    np.testing.assert_allclose(
        gaussian.mean(torch.from_numpy(pooled[:7, known])), expected, atol=1e-6
    )
    np.testing.assert_allclose(
        gaussian.covariance, covariance[target, target] - weight @ cross.T, atol=1e-6
    )


def test_nothing_given_leaves_the_marginal_and_the_target_itself_is_never_given():
    bank = filled(draw(2, 50))
    mean, covariance = bank.marginal(2)
    for given in ([False, False, False], [False, False, True]):
        gaussian = bank.conditional(2, torch.tensor(given))
        assert gaussian.weight.shape == (2, 0)
        torch.testing.assert_close(gaussian.mean(torch.zeros(3, 0)).double(), mean.expand(3, 2))
        torch.testing.assert_close(gaussian.covariance, covariance)


def test_incomplete_cases_are_enough_for_a_conditional_on_several():
    # t1 = a, t2 = b, flair = a + b, and never all three in one case.
    a, b = draw(1, 8000)[:, :, :, 0].reshape(3, 8000)[:2]
    descriptors = torch.stack((a, b, a + b))[None, :, :, None].expand(4, 3, 8000, 1)
    bank = filled(descriptors, incomplete(4), shrinkage=0, floor=1e-6)
    gaussian = bank.conditional(2, torch.tensor([True, True, False]))
    assert gaussian.weight.flatten().tolist() == pytest.approx([1, 1], abs=1e-3)
    assert gaussian.bias.item() == pytest.approx(0, abs=1e-2)


def test_cases_are_pooled_in_any_batches():
    descriptors, present = draw(6, 20), incomplete(6)
    bank = DistributionBank(3, 2, NAMES)
    for case in range(6):
        valid = torch.ones(1, 20, dtype=torch.bool)
        bank.update(descriptors[case : case + 1], present[case : case + 1], valid)
    assert_same_statistics(bank, filled(descriptors, present), rtol=1e-12)


def test_merged_sites_equal_the_pooled_cases_to_rounding():
    descriptors, present = draw(8, 50), incomplete(8)
    present[:4, 2] = False  # the first site owns no FLAIR
    present[:4, 0] = True
    here = filled(descriptors[:4], present[:4])
    there = filled(descriptors[4:], present[4:])
    pooled = filled(descriptors, present)
    here.merge(there)
    assert_same_statistics(here, pooled, rtol=1e-12)
    given = torch.tensor([True, True, False])
    for mine, theirs in zip(here.conditional(2, given), pooled.conditional(2, given), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_absent_modalities_and_invalid_patches_leave_no_trace():
    descriptors, present = draw(2, 6), torch.tensor([[True, False, True], [True, True, False]])
    valid = torch.arange(6).expand(2, 6) < 4
    bank = DistributionBank(3, 2)
    bank.update(descriptors, present, valid)
    spoilt = descriptors.clone()
    spoilt[0, 1], spoilt[1, 2], spoilt[:, :, 4:] = float("nan"), float("inf"), float("nan")
    other = DistributionBank(3, 2)
    other.update(spoilt, present, valid)
    assert_same_statistics(bank, other, rtol=0)
    assert bank.counts[0].tolist() == [8, 4, 4]


def test_a_pair_never_seen_together_is_independent():
    present = torch.tensor([[True, False, True], [False, True, True]])
    bank = filled(draw(2, 200), present, shrinkage=0)
    gaussian = bank.conditional(0, torch.tensor([False, True, False]))
    mean, covariance = bank.marginal(0)
    torch.testing.assert_close(gaussian.weight, torch.zeros(2, 2).double(), atol=0.05, rtol=0)
    torch.testing.assert_close(gaussian.covariance, covariance, rtol=0.01, atol=0.01)
    torch.testing.assert_close(
        gaussian.mean(torch.zeros(1, 2))[0].double(), mean, rtol=0.05, atol=0
    )


def test_shrinkage_weighs_like_ordinary_patches_without_correlation():
    descriptors = draw(1, 100)[..., :1]
    given = torch.tensor([False, True, False])
    exact = filled(descriptors, shrinkage=0)
    shrunk = filled(descriptors, shrinkage=300)
    for mine, theirs in zip(shrunk.marginal(0), exact.marginal(0), strict=True):
        torch.testing.assert_close(mine, theirs)
    weight = exact.conditional(0, given).weight
    torch.testing.assert_close(shrunk.conditional(0, given).weight, weight / 4)


def test_contradicting_pairs_still_make_a_positive_definite_covariance():
    # t1 = t2, t2 = flair, flair = -t1: each is possible alone, all three together are not.
    x = draw(1, 100)[:, :1, :, :1]
    bank = DistributionBank(3, 1, shrinkage=0, floor=1e-2)
    for pair, sign in (([0, 1], 1), ([1, 2], 1), ([0, 2], -1)):
        descriptors = torch.full((1, 3, 100, 1), float("nan"))
        descriptors[:, pair[:1]], descriptors[:, pair[1:]] = x, sign * x
        present = torch.zeros(1, 3, dtype=torch.bool)
        present[0, pair] = True
        bank.update(descriptors, present, torch.ones(1, 100, dtype=torch.bool))
    gaussian = bank.conditional(0, torch.tensor([False, True, True]))
    assert 0 < gaussian.covariance.item() < bank.marginal(0)[1].item()
    # By symmetry t2 speaks for t1 as much as flair speaks against it.
    assert gaussian.weight[0, 0].item() == pytest.approx(-gaussian.weight[0, 1].item())


@pytest.mark.parametrize("patches", [1, 2])
def test_few_or_constant_patches_give_finite_gaussians(patches):
    for descriptors in (draw(1, patches), torch.ones(1, 3, patches, 2)):
        gaussian = filled(descriptors).conditional(0, torch.tensor([False, True, True]))
        assert all(bool(part.isfinite().all()) for part in gaussian)
        assert bool((torch.linalg.eigvalsh(gaussian.covariance) > 0).all())


def test_cases_without_the_target_do_not_distort_what_is_known_of_it():
    # t2 = 2 t1 + 1 in both descriptors; the cases without t2 have another t1 altogether.
    t1 = draw(1, 300)[:, :1]
    bank = filled(torch.cat((t1, 2 * t1 + 1), 1), shrinkage=0, floor=1e-9)
    without = torch.cat((10 + 5 * t1.flip(3) ** 3, torch.full_like(t1, float("nan"))), 1)
    here = torch.ones(1, 300, dtype=torch.bool)
    bank.update(without, torch.tensor([[True, False]]), here)
    gaussian = bank.conditional(1, torch.tensor([True, False]))
    torch.testing.assert_close(gaussian.mean(t1[0, 0]), 2 * t1[0, 0] + 1, rtol=0, atol=1e-3)


def test_with_one_modality_given_it_is_least_squares_on_the_patches_of_both():
    descriptors, present = draw(4, 100), incomplete(4)
    bank = filled(descriptors, present, shrinkage=0, floor=1e-9)
    known, wanted = descriptors[1, 0].double().numpy(), descriptors[1, 2].double().numpy()
    design = np.column_stack((known, np.ones(len(known))))
    solution, *_ = np.linalg.lstsq(design, wanted, rcond=None)
    residual = wanted - design @ solution
    gaussian = bank.conditional(2, torch.tensor([True, False, False]))
    np.testing.assert_allclose(gaussian.weight, solution[:2].T, atol=1e-6)
    np.testing.assert_allclose(gaussian.bias, solution[2], atol=1e-6)
    np.testing.assert_allclose(gaussian.covariance, residual.T @ residual / 100, atol=1e-6)


def test_a_modality_never_seen_is_named():
    bank = filled(draw(2, 5), torch.tensor([[True, True, False]] * 2))
    with pytest.raises(ValueError, match=r"scan of each modality, got none of 'flair'.*drop it"):
        bank.check_seen()
    with pytest.raises(ValueError, match=r"patches of modality 'flair' in the bank, got none"):
        bank.marginal(2)
    with pytest.raises(ValueError, match=r"patches of modality 'flair'"):
        bank.conditional(2, torch.tensor([True, True, False]))
    filled(draw(2, 5)).check_seen()


def test_an_unseen_modality_that_is_given_says_nothing():
    bank = filled(draw(2, 300), torch.tensor([[True, True, False]] * 2))
    gaussian = bank.conditional(0, torch.tensor([False, True, True]))
    torch.testing.assert_close(gaussian.weight[:, 2:], torch.zeros(2, 2).double())


def test_the_statistics_are_float64_and_survive_a_state_dict():
    bank = filled(draw(2, 30))
    assert set(bank.state_dict()) == set(bank.additive_statistics)
    other = DistributionBank(3, 2, NAMES)
    before = other.version
    other.load_state_dict(bank.state_dict())
    assert_same_statistics(bank, other, rtol=0)
    assert other.version > before
    other.load_state_dict({name: value.float() for name, value in bank.state_dict().items()})
    assert {value.dtype for value in other.state_dict().values()} == {torch.float64}
    assert_same_statistics(bank, other, rtol=1e-6)


def test_every_change_raises_the_version():
    bank = filled(draw(1, 5))
    versions = [bank.version]
    bank.merge(copy.deepcopy(bank))
    versions.append(bank.version)
    bank.reset()
    versions.append(bank.version)
    assert versions == sorted(set(versions))
    assert not any(bool(value.any()) for value in bank.state_dict().values())


def test_what_does_not_fit_is_refused():
    bank = DistributionBank(3, 2, NAMES)
    with pytest.raises(
        ValueError, match=r"descriptors of shape \(1, 3, 5, 2\).*got \(1, 2, 5, 2\)"
    ):
        bank.update(torch.zeros(1, 2, 5, 2), torch.ones(1, 3).bool(), torch.ones(1, 5).bool())
    with pytest.raises(ValueError, match=r"expected a bank of \['t1', 't2', 'flair'\] with 2"):
        bank.merge(DistributionBank(3, 3, NAMES))
    with pytest.raises(ValueError, match=r"expected 3 names, got \['t1'\]"):
        DistributionBank(3, 2, ["t1"])
