from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from bundle.methods.universal.distribution import DistributionApproximation
from bundle.methods.universal.pretraining import MaskedPretraining, draw_visible
from bundle.modalities import BRATS_MODALITIES, brain_mask
from bundle.networks.descriptors import DESCRIPTORS
from bundle.networks.distribution_bank import DistributionBank
from bundle.networks.masked_autoencoder import MaskedAutoencoder

SIDE, PATCH = 16, 4
ALL, ONE = [True] * 4, [False, False, True, False]
MIXED = [ALL, ONE, [True, False, False, True]]


@pytest.fixture
def batch(batch):
    """Give batch(*rows, seed): no labels, which pre-training does not need."""

    def make(*rows: Sequence[bool], seed: int = 0) -> dict[str, Tensor]:
        given = batch(torch.tensor(rows), SIDE, seed)
        del given["label"]
        return given

    return make


@pytest.fixture
def approximation(batch):
    """Give approximation(filled): its bank has seen eight complete cases, or nothing."""

    def make(filled: bool = True) -> DistributionApproximation:
        bank = DistributionBank(4, len(DESCRIPTORS), BRATS_MODALITIES)
        made = DistributionApproximation(bank, PATCH)
        if filled:
            known = batch(*[ALL] * 8, seed=5)
            made.update(**known, brain=brain_mask(**known))
        return made

    return make


def method(**options) -> MaskedPretraining:
    torch.manual_seed(0)
    network = MaskedAutoencoder(4, filters=4, blocks_down=(1, 1, 1))
    return MaskedPretraining(network, **({"patch": PATCH} | options))


def attach(pretraining: MaskedPretraining, *batches: dict) -> Engine:
    engine = Engine(lambda engine, batch: None)
    cases = [
        {name: rows[index] for name, rows in given.items()}
        for given in batches
        for index in range(len(given.get("present", [])))
    ]
    # An epoch draws the first case alone, over and over.
    engine.data_loader = DataLoader(cases, batch_size=2, sampler=[0] * len(cases))
    engine.state.device = torch.device("cpu")
    pretraining.attach(engine)
    return engine


def start(pretraining: MaskedPretraining, *batches: dict) -> Engine:
    engine = attach(pretraining, *batches)
    engine.run([0])
    return engine


@pytest.mark.parametrize("masking", [0.0, 0.999])
@pytest.mark.parametrize("known", [False, True])
def test_terms_are_there_as_configured_and_finite_at_any_masking(
    batch, approximation, masking, known
):
    pretraining = method(masking=masking, distribution=approximation() if known else None)
    for rows in ([ONE], [ALL], MIXED):
        pretraining.zero_grad()
        losses = pretraining.losses(batch(*rows))
        assert list(losses) == ["rebuilding", *(["marginal", "conditional"] if known else [])]
        assert all(term.shape == () and bool(term.isfinite()) for term in losses.values())
        assert losses["rebuilding"] > 0
        if known:
            absent = rows != [ALL]
            assert [bool(losses[name] > 0) for name in ("marginal", "conditional")] == [absent] * 2
        pretraining.backward(losses)
        for name, parameter in pretraining.network.named_parameters():
            assert bool(parameter.grad.isfinite().all()), name


@pytest.mark.parametrize("masking", [0.0, 0.875])
def test_pure_background_costs_nothing_and_moves_nothing(masking, batch, approximation):
    pretraining = method(masking=masking, distribution=approximation())
    losses = pretraining.losses({**batch(*MIXED), "image": torch.zeros(3, 4, SIDE, SIDE, SIDE)})
    assert [term.item() for term in losses.values()] == [0, 0, 0]
    pretraining.backward(losses)
    assert not any(bool(p.grad.any()) for p in pretraining.network.parameters())


def test_an_empty_bank_costs_nothing(batch, approximation):
    losses = method(distribution=approximation(filled=False)).losses(batch(*MIXED))
    assert [losses[name].item() for name in ("marginal", "conditional")] == [0, 0]


def test_the_junk_of_absent_modalities_changes_no_loss(batch, approximation):
    pretraining = method(distribution=approximation())
    torch.manual_seed(3)
    expected = pretraining.losses(batch(*MIXED))
    torch.manual_seed(3)
    other = batch(*MIXED)
    other["image"] = other["image"].nan_to_num(1e6)
    for name, term in pretraining.losses(other).items():
        assert torch.equal(term, expected[name])


def test_targets_are_all_scanned_voxels_and_only_they(batch):
    """A network that always answers 0 errs by the mean square of what was scanned."""
    pretraining, given = method(masking=0.5), batch(*MIXED)
    for parameter in pretraining.network.head.parameters():
        torch.nn.init.zeros_(parameter)
    scanned = given["image"][given["present"]][..., 3:]
    found = pretraining.losses(given)["rebuilding"].item()
    assert found == pytest.approx(scanned.square().mean().item(), rel=1e-5)


def related(seed: int) -> dict[str, Tensor]:
    """Two cases whose modalities share a smooth pattern, so that each tells of the others."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(2, 1, 4, 4, 4, generator=generator)
    pattern = interpolate(coarse, size=(SIDE,) * 3, mode="trilinear")
    grain = torch.randn(2, 4, SIDE, SIDE, SIDE, generator=generator)
    signs = torch.tensor([1.0, -1.0, 0.7, 1.2])[:, None, None, None]
    image = signs * pattern / pattern.std() + 0.3 * grain
    image[..., :3] = 0
    return {"image": image, "present": torch.tensor([ALL, [True, True, False, False]])}


def test_the_encoder_learns_to_rebuild_at_the_rate_of_the_configs():
    pretraining = method()
    network = pretraining.network
    optimizer = torch.optim.AdamW(pretraining.parameters(), lr=0.003)
    found = []
    for step in range(40):
        optimizer.zero_grad()
        losses = pretraining.losses(related(step))
        pretraining.backward(losses)
        torch.nn.utils.clip_grad_norm_(pretraining.parameters(), 12.0)
        optimizer.step()
        found.append(losses["rebuilding"].item())
    assert bool(network.encoder.conv_init.weight.grad.norm() > 1e-2)
    # 1.0 is what answering 0 everywhere gives.
    assert sum(found[-5:]) / 5 < 0.85


@pytest.mark.parametrize("masking", [-0.1, 1.0, 1.5])
def test_masking_everything_or_less_than_nothing_is_refused(masking):
    with pytest.raises(ValueError, match=rf"masking from 0 to below 1, got {masking}"):
        method(masking=masking)


def test_the_bank_is_filled_once_before_the_first_step(batch, approximation):
    pretraining = method(distribution=approximation(filled=False))
    first, second = batch(*MIXED), batch(ALL, seed=1)
    by_hand = approximation(filled=False)
    for given in (first, second):
        image = given["image"].nan_to_num(0)
        by_hand.update(image, given["present"], brain_mask(image, given["present"]))
    first["image"], second["image"] = (MetaTensor(given["image"]) for given in (first, second))
    engine = start(pretraining, first, second)
    bank = pretraining.distribution.bank
    for name, value in by_hand.bank.state_dict().items():
        torch.testing.assert_close(bank.state_dict()[name], value)
    assert type(bank.sums) is Tensor
    # 48 of the 64 patches of a case lie in the brain by at least half.
    assert bank.counts.diagonal().tolist() == [144, 96, 144, 144]
    version = bank.version
    pretraining.attach(engine)
    engine.run([0], max_epochs=3)
    assert bank.version == version


def test_a_bank_that_was_loaded_is_not_filled_again(approximation):
    first, second = (method(distribution=approximation(filled)) for filled in (True, False))
    # A former state is loaded after the method was attached.
    engine = attach(second, {"image": None})
    second.load_state_dict(first.state_dict())
    engine.run([0])
    assert torch.equal(second.distribution.bank.counts, first.distribution.bank.counts)


def test_a_modality_that_nobody_has_is_refused_at_the_start(batch, approximation):
    pretraining = method(distribution=approximation(filled=False))
    with pytest.raises(ValueError, match=r"scan of each modality, got none of 't1ce', 't2'\. .*"):
        start(pretraining, batch([True, False, False, False]), batch([True, False, False, True]))


def test_without_the_approximation_no_data_are_read_first():
    engine = Engine(lambda engine, batch: None)
    engine.data_loader = None
    method().attach(engine)
    engine.run([0])


def count_patches(visible: Tensor) -> Tensor:
    """Number of visible patches of each modality, (B, M)."""
    return visible[..., ::PATCH, ::PATCH, ::PATCH].flatten(2).sum(2)


@pytest.mark.parametrize("scanned", [1, 2, 3, 4])
@pytest.mark.parametrize("masking", [0.0, 0.3, 0.5, 0.875])
def test_the_hidden_share_is_of_what_was_scanned(scanned, masking):
    present = (torch.arange(4) < scanned).expand(300, 4)
    generator = torch.Generator().manual_seed(0)
    counts = count_patches(draw_visible(present, (SIDE,) * 3, masking, PATCH, generator))
    found = counts.sum(1)
    wanted = round((1 - masking) * scanned * 64)
    kept = (counts > 0).sum(1)
    # A modality that was kept has a visible patch, or is too unlucky for these numbers.
    assert torch.equal(found, (kept * 64).clamp(max=wanted))
    assert not bool(counts[:, scanned:].any())
    assert set(kept.tolist()) == set(range(1, scanned + 1))
    if masking == 0:
        assert bool(((counts == 0) | (counts == 64)).all())


def test_the_visible_patches_are_drawn_evenly():
    present = torch.ones(2000, 2, dtype=torch.bool)
    visible = draw_visible(present, (8, 8, 8), 0.5, PATCH, torch.Generator().manual_seed(0))
    cells = visible[..., ::PATCH, ::PATCH, ::PATCH].flatten(2)
    subsets = Counter(tuple(row) for row in (cells.sum(2) > 0).tolist())
    assert len(subsets) == 3
    # Two of three cases show half of a modality's patches or all of them: (1/2 + 1) / 3.
    share = cells.float().mean(0)
    torch.testing.assert_close(share, torch.full((2, 8), 0.5), atol=0.06, rtol=0)


@pytest.mark.parametrize(("size", "patch"), [((16, 8, 12), 4), ((9, 6, 5), 4), ((3, 4, 5), 8)])
def test_patches_are_aligned_and_cut_off_by_the_edge(size, patch):
    present = torch.tensor(MIXED)
    visible = draw_visible(present, size, 0.6, patch, torch.Generator().manual_seed(1))
    assert visible.shape == (3, 4, *size)
    assert visible.dtype == torch.bool
    corner = [torch.arange(length) // patch * patch for length in size]
    spread = visible[:, :, corner[0]][:, :, :, corner[1]][..., corner[2]]
    assert torch.equal(spread, visible)
    assert bool(visible.flatten(1).any(1).all())
    assert not bool(visible[~present].any())


def test_at_least_one_patch_stays_visible():
    present = torch.tensor([ONE, ALL])
    visible = draw_visible(present, (8, 8, 8), 0.9999, PATCH)
    assert count_patches(visible).sum(1).tolist() == [1, 1]


def test_a_generator_makes_the_draws_repeatable_and_leaves_the_global_one_alone():
    present, before = torch.tensor(MIXED), torch.get_rng_state()

    def draw(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return draw_visible(present, (SIDE,) * 3, 0.5, PATCH, generator)

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_seed_fixes_the_losses(batch):
    pretraining, given = method(), batch(*MIXED)
    found = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        found.append(pretraining.losses(given)["rebuilding"].item())
    assert found[0] == found[1] != found[2]


def test_only_the_autoencoder_is_deployed(batch, approximation):
    pretraining = method(distribution=approximation())
    given = batch(*MIXED)
    rebuilt = pretraining(given["image"], given["present"])
    assert torch.equal(rebuilt, pretraining.network(given["image"], given["present"]))
    assert not [name for name in pretraining.network.state_dict() if "bank" in name]
    assert "distribution.bank.counts" in pretraining.state_dict()


def test_patches_of_nothing_are_refused():
    with pytest.raises(ValueError, match="at least 1 voxel, got 0"):
        method(patch=0)
