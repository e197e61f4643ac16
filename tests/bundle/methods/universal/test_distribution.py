from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from bundle.methods.universal.distribution import KINDS, DistributionApproximation
from bundle.methods.universal.distribution import approximation as kinds
from bundle.networks.descriptors import DESCRIPTORS, patch_descriptors
from bundle.networks.distribution_bank import DistributionBank

SIDE, PATCH = 8, 4
ALL_PRESENT = torch.ones(4, 3, dtype=torch.bool)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def patchwise(values: Tensor) -> Tensor:
    """Spread one value a patch, (B, C, 2, 2, 2), over the voxels (B, C, 8, 8, 8)."""
    for axis in (2, 3, 4):
        values = values.repeat_interleave(PATCH, axis)
    return values


def images(batch: int, modalities: int = 3, seed: int = 0) -> Tensor:
    """Patches that differ in mean, the modalities resembling each other."""
    level = patchwise(noise(batch, 1, 2, 2, 2, seed=seed))
    return level + 0.3 * noise(batch, modalities, SIDE, SIDE, SIDE, seed=seed + 1)


def brains(batch: int) -> Tensor:
    """All brain but the last patch, of which a few voxels are."""
    brain = torch.ones(batch, 1, SIDE, SIDE, SIDE, dtype=torch.bool)
    brain[..., PATCH:, PATCH:, PATCH:] = False
    brain[..., PATCH, PATCH, PATCH:] = True
    return brain


def approximation(modalities: int = 3, **options) -> DistributionApproximation:
    """An approximation whose bank has seen 40 complete cases."""
    bank = DistributionBank(modalities, len(DESCRIPTORS), shrinkage=0)
    matching = DistributionApproximation(bank, PATCH, **options)
    present = torch.ones(40, modalities, dtype=torch.bool)
    matching.update(images(40, modalities, seed=50), present, brains(40))
    return matching


@pytest.fixture
def present() -> Tensor:
    return torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 0]], dtype=torch.bool)


def test_two_named_finite_positive_terms(present):
    terms = approximation()(noise(4, 3, SIDE, SIDE, SIDE), images(4), present, brains(4))
    assert list(terms) == ["marginal", "conditional"]
    for term in terms.values():
        assert term.shape == ()
        assert term.dtype == torch.float32
        assert 0 < term.item() < float("inf")


def test_the_terms_prefer_the_true_image_to_another_and_that_to_noise(present):
    truth, brain = images(4), brains(4)
    other, rough = images(4, seed=10), 3 * noise(4, 3, SIDE, SIDE, SIDE)
    matching = approximation()
    right, wrong, worst = (matching(x, truth, present, brain) for x in (truth, other, rough))
    assert right["conditional"] < 0.5 * wrong["conditional"]
    assert right["marginal"] < worst["marginal"]
    assert wrong["marginal"] < worst["marginal"]


def test_gradients_reach_only_the_valid_patches_of_absent_modalities(present):
    image = images(4).masked_fill(~present[..., None, None, None], float("nan")).requires_grad_()
    rebuilt = noise(4, 3, SIDE, SIDE, SIDE).requires_grad_()
    matching, brain = approximation(), brains(4)
    sum(matching(rebuilt, image, present, brain).values()).backward()
    expected = (~present)[..., None, None, None].expand(rebuilt.shape).clone()
    expected[..., PATCH:, PATCH:, PATCH:] = False
    assert torch.equal(rebuilt.grad != 0, expected)
    assert image.grad is None
    assert not any(value.requires_grad for value in matching.state_dict().values())


@pytest.mark.parametrize("what", ["nothing absent", "no brain", "empty bank"])
def test_without_anything_to_match_the_terms_are_exactly_0(what, present):
    matching, brain = approximation(), brains(4)
    if what == "nothing absent":
        present = ALL_PRESENT
    elif what == "no brain":
        brain = torch.zeros_like(brain)
    else:
        matching.bank.reset()
    rebuilt = noise(4, 3, SIDE, SIDE, SIDE).requires_grad_()
    terms = matching(rebuilt, images(4), present, brain)
    assert [term.item() for term in terms.values()] == [0, 0]
    sum(terms.values(), rebuilt.sum()).backward()
    assert bool((rebuilt.grad == 1).all())


def test_a_case_without_any_modality_is_matched_to_the_marginal():
    present = torch.zeros(1, 3, dtype=torch.bool)
    terms = approximation()(images(1), images(1), present, brains(1))
    assert all(bool(term.isfinite()) and term > 0 for term in terms.values())


def test_cautiously_of_a_case_without_any_modality_only_the_marginal_is_known():
    present = torch.zeros(1, 3, dtype=torch.bool)
    terms = approximation(cautious=True)(3 * images(1), images(1), present, brains(1))
    assert 0 < terms["marginal"].item() < float("inf")
    assert terms["conditional"].item() == 0


def test_cautiously_what_was_never_scanned_together_is_told_nothing_about():
    bank = DistributionBank(2, len(DESCRIPTORS), shrinkage=0)
    matching = DistributionApproximation(bank, PATCH, minimum_patches=1, cautious=True)
    apart = torch.eye(2, dtype=torch.bool).repeat(20, 1)
    matching.update(images(40, 2), apart, brains(40))
    rebuilt = noise(2, 2, SIDE, SIDE, SIDE).requires_grad_()
    terms = matching(rebuilt, images(2, 2), apart[:2], brains(2))
    assert terms["conditional"].item() == 0
    assert terms["marginal"].item() > 0


def test_the_cautious_conditional_term_counts_as_much_as_the_scans_explain():
    shares = []
    for noise_level in (0.5, 1.0):
        matching = DistributionApproximation(
            DistributionBank(2, len(DESCRIPTORS), shrinkage=0), PATCH
        )
        level = patchwise(noise(200, 1, 2, 2, 2, seed=7))
        other = level + noise_level * patchwise(noise(200, 1, 2, 2, 2, seed=8))
        image = torch.cat((level, other), 1) + 0.1 * noise(200, 2, SIDE, SIDE, SIDE, seed=9)
        both = torch.ones(200, 2, dtype=torch.bool)
        matching.update(image, both, torch.ones(200, 1, SIDE, SIDE, SIDE, dtype=torch.bool))
        shares.append(matching._share_explained(1, (True, False), torch.device("cpu")))
    # Of a patch's brightness: 1 / (1 + noise squared).
    assert shares == pytest.approx([1 / 1.25, 1 / 2], abs=0.04)


def test_modalities_seen_in_too_few_patches_are_left_out():
    present = torch.tensor([[True, False, False]])
    matching = approximation(minimum_patches=10_000)
    terms = matching(noise(1, 3, SIDE, SIDE, SIDE), images(1), present, brains(1))
    assert [term.item() for term in terms.values()] == [0, 0]


def test_weights_are_factors(present):
    arguments = noise(4, 3, SIDE, SIDE, SIDE), images(4), present, brains(4)
    plain = approximation()(*arguments)
    weighted = approximation(marginal_weight=2.0, conditional_weight=0.5)(*arguments)
    torch.testing.assert_close(weighted["marginal"], 2 * plain["marginal"])
    torch.testing.assert_close(weighted["conditional"], plain["conditional"] / 2)


def test_mixed_precision_matches_in_single(present):
    rebuilt, matching = noise(4, 3, SIDE, SIDE, SIDE).bfloat16(), approximation()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = matching(rebuilt, images(4), present, brains(4))
    single = matching(rebuilt.float(), images(4), present, brains(4))
    assert mixed == single
    again = copy.deepcopy(matching)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again.update(images(4), present, brains(4))
    matching.update(images(4), present, brains(4))
    for name, value in matching.bank.state_dict().items():
        assert torch.equal(value, again.bank.state_dict()[name])


def test_a_bank_changed_by_others_is_noticed_at_once(present):
    matching = approximation()
    arguments = noise(4, 3, SIDE, SIDE, SIDE), images(4), present, brains(4)
    before = matching(*arguments)["marginal"].item()
    other = approximation()
    other.update(3 * images(4), ALL_PRESENT, brains(4))
    matching.load_state_dict(other.state_dict())
    after = matching(*arguments)["marginal"].item()
    assert after == other(*arguments)["marginal"].item() != before


def test_the_state_is_the_bank_alone():
    assert set(approximation().state_dict()) == {
        f"bank.{name}" for name in DistributionBank.additive_statistics
    }


def related_pair(batch: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images x and y of 8 patches a case, with y = 2 x + 1 and a little noise at patch level."""
    level, contrast, shift = (
        patchwise(noise(batch, 1, 2, 2, 2, seed=seed + i)) for i in (0, 100, 200)
    )
    x = level + (0.4 * contrast).exp() * noise(batch, 1, SIDE, SIDE, SIDE, seed=seed + 300)
    return x, 2 * x + 1 + 0.05 * shift


def rebuild(
    term: str, present: Tensor, image: Tensor, matching: DistributionApproximation
) -> Tensor:
    """Fit the voxels of a free image to one term alone; return its descriptors (B, M, N, K)."""
    brain = torch.ones_like(image[:, :1], dtype=torch.bool)
    rebuilt = noise(*image.shape, seed=3).requires_grad_()
    optimizer = torch.optim.Adam([rebuilt], lr=0.2)
    for _ in range(160):
        optimizer.zero_grad()
        matching(rebuilt, image, present, brain)[term].backward()
        optimizer.step()
    return patch_descriptors(rebuilt.detach(), brain, PATCH).values


@pytest.fixture(scope="module")
def half_seen() -> DistributionApproximation:
    """y = 2 x + 1, seen in every other of 60 cases."""
    x, y = related_pair(60, seed=20)
    present = torch.ones(60, 2, dtype=torch.bool)
    present[::2, 1] = False
    y[::2] = float("nan")
    bank = DistributionBank(2, len(DESCRIPTORS), ["x", "y"], shrinkage=0)
    matching = DistributionApproximation(bank, PATCH)
    brain = torch.ones(60, 1, SIDE, SIDE, SIDE, dtype=torch.bool)
    matching.update(torch.cat((x, y), 1), present, brain)
    return matching


def test_the_conditional_term_rebuilds_each_patch_of_a_scan_nobody_took(half_seen):
    x, y = related_pair(6, seed=200)
    image = torch.cat((x, torch.full_like(y, float("nan"))), 1)
    present = torch.tensor([True, False]).expand(6, 2)
    found = rebuild("conditional", present, image, half_seen)[:, 1, :, 0]
    brain = torch.ones_like(x, dtype=torch.bool)
    expected = patch_descriptors(2 * x + 1, brain, PATCH).values[:, 0, :, 0]
    assert (found - expected).abs().max() < 0.15
    assert expected.std() > 1.5


def test_the_marginal_term_recovers_mean_and_spread(half_seen):
    x, _ = related_pair(6, seed=200)
    image = torch.cat((x, torch.full_like(x, float("nan"))), 1)
    present = torch.tensor([True, False]).expand(6, 2)
    found = rebuild("marginal", present, image, half_seen)[:, 1].flatten(0, 1)
    mean, covariance = half_seen.bank.marginal(1)
    torch.testing.assert_close(found.mean(0).double(), mean, rtol=0.05, atol=0.05)
    spread = found.std(0, unbiased=False).double()
    torch.testing.assert_close(spread, covariance.diagonal().sqrt(), rtol=0.1, atol=0.01)


def test_the_cautious_marginal_term_narrows_what_is_too_wide_and_leaves_the_rest(half_seen):
    bank = half_seen.bank
    mean, covariance = bank.marginal(1)
    widest = covariance.diagonal().sqrt()
    matching = DistributionApproximation(bank, PATCH, cautious=True)
    x, _ = related_pair(6, seed=200)
    present = torch.tensor([True, False]).expand(6, 2)
    image = torch.cat((x, torch.full_like(x, float("nan"))), 1)
    brain = torch.ones_like(x, dtype=torch.bool)
    wide = torch.cat((x, 6 * x + 1), 1)
    flat = torch.cat((x, torch.full_like(x, float(mean[0]))), 1)
    assert matching(wide, image, present, brain)["marginal"] > 0.5
    assert matching(flat, image, present, brain)["marginal"] == pytest.approx(0, abs=1e-9)
    found = rebuild("marginal", present, image, matching)[:, 1].flatten(0, 1)
    assert bool((found.std(0, unbiased=False) < 1.05 * widest).all())
    assert found.mean(0)[0].item() == pytest.approx(float(mean[0]), abs=0.1)


def test_the_kind_is_one_of_four_words():
    bank = DistributionBank(2, 3)
    assert kinds("none", bank) is None
    assert kinds("marginal", bank, conditional_weight=0.5).conditional_weight == 0
    assert kinds("conditional", bank, conditional_weight=0.5, patch=4).conditional_weight == 0.5
    assert kinds("cautious", bank, conditional_weight=0.5).conditional_weight == 0.5
    assert [kinds(name, bank).cautious for name in KINDS[1:]] == [False, False, True]
    with pytest.raises(ValueError, match=r"expected one of .*'conditional'.*, got 'Conditional'"):
        kinds("Conditional", bank)
