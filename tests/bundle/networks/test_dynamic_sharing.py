from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bundle.modalities import BRATS_MODALITIES, all_subsets, keep_only, presence
from bundle.networks.dynamic_sharing import DynamicSharing
from bundle.networks.unet import UNet

SUBSETS = [presence(subset, BRATS_MODALITIES) for subset in all_subsets(BRATS_MODALITIES)]
SHAPE = {"filters": 4, "blocks_down": (1, 1, 1), "deep_supervision": 2}
MIXED = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 1, 0]], dtype=torch.bool)


def image(batch: int = 1) -> Tensor:
    """Noise in a brain that does not fill the volume."""
    made = torch.randn(batch, 4, 8, 12, 16, generator=torch.Generator().manual_seed(1))
    made[:, :, :2] = 0
    return made


def fresh() -> DynamicSharing:
    torch.manual_seed(0)
    return DynamicSharing(4, 3, **SHAPE).eval()


@pytest.fixture
def network() -> DynamicSharing:
    """As after a training: the modalities' norms differ."""
    made = fresh()
    for parameter in made.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=1, std=0.3)
    return made


class Convolutions:
    """Counts the volumes that pass through the convolutions of a network, and the multiply-adds."""

    def __init__(self, network: nn.Module) -> None:
        self.volumes: dict[str, int] = {}
        self.work = 0
        for name, layer in network.named_modules():
            if isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d)):
                layer.register_forward_hook(lambda *call, name=name: self.count(name, *call))

    def count(self, name: str, layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        # A transposed convolution spreads each input voxel, the others gather for each output one.
        voxels = given[0] if isinstance(layer, nn.ConvTranspose3d) else out
        self.volumes[name] = self.volumes.get(name, 0) + len(out)
        self.work += voxels[:, 0].numel() * layer.weight.numel()


def work(network: DynamicSharing, case: Tensor, present: Tensor) -> int:
    counted = Convolutions(network)
    before = counted.work
    with torch.no_grad():
        network(case, present)
    return counted.work - before


@pytest.mark.parametrize("row", range(15))
def test_absent_branches_are_not_computed(network, row):
    present = SUBSETS[row][None]
    counted = Convolutions(network)
    with torch.no_grad():
        network(image(), present)
    encoder = {n: v for n, v in counted.volumes.items() if n.startswith("encoder.")}
    others = {n: v for n, v in counted.volumes.items() if n not in encoder}
    assert len(encoder) == 9
    assert set(encoder.values()) == {int(present.sum())}
    assert set(others.values()) == {1}


def test_the_cost_falls_with_every_absent_modality(network):
    full, three, two, one = (
        work(network, image(), presence(BRATS_MODALITIES[:n], BRATS_MODALITIES)[None])
        for n in (4, 3, 2, 1)
    )
    assert full - three == three - two == two - one > 0.4 * one
    # Of a batch, each case pays for its own.
    assert work(network, image(3), MIXED) == full + two + one


@torch.no_grad()
def test_modalities_have_norms_of_their_own_and_share_all_else(network):
    alike = image()[:, :1].expand(-1, 4, -1, -1, -1)
    found = [network(alike, row[None]) for row in torch.eye(4, dtype=torch.bool)]
    for i in range(4):
        for j in range(i):
            assert not torch.allclose(found[i], found[j], atol=1e-2)
    untrained = fresh()
    found = [untrained(alike, row[None]) for row in torch.eye(4, dtype=torch.bool)]
    assert all(torch.equal(found[0], other) for other in found)


def test_a_modality_costs_two_numbers_for_each_feature_of_each_norm():
    def size(modalities: int) -> int:
        made = DynamicSharing(modalities, 3, **SHAPE)
        return sum(p.numel() for p in made.parameters())

    # Two norms a level with 4, 8 and 16 features.
    assert size(5) - size(4) == size(4) - size(3) == 2 * 2 * (4 + 8 + 16)
    unet = UNet(1, 3, **SHAPE)
    assert size(2) - sum(p.numel() for p in unet.parameters()) == 2 * 2 * (4 + 8 + 16)


@torch.no_grad()
def test_untrained_with_one_modality_it_is_a_unet():
    made = fresh()
    torch.manual_seed(0)
    unet = UNet(1, 3, **SHAPE).eval()
    ours, theirs = made.deep_logits(image(), SUBSETS[0][None]), unet.deep_logits(image()[:, 2:3])
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


@torch.no_grad()
def test_fusion_is_the_mean_over_what_is_present_at_every_level(network):
    batch, single = image(3), torch.eye(4, dtype=torch.bool)
    alone = [
        network.fuse(network.encode_modalities(batch, row), row, row)
        for row in (single[m].expand(3, 4) for m in range(4))
    ]
    fused = network.fuse(network.encode_modalities(batch, MIXED), MIXED, MIXED)
    assert [tuple(level.shape) for level in fused] == [
        (3, 4, 8, 12, 16),
        (3, 8, 4, 6, 8),
        (3, 16, 2, 3, 4),
    ]
    for level, found in enumerate(fused):
        for case, present in enumerate(MIXED):
            parts = [alone[m][level][case] for m in range(4) if present[m]]
            torch.testing.assert_close(found[case], sum(parts) / len(parts), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("row", range(15))
def test_one_encoding_serves_every_subset(network, row):
    batch, subset = image(3), SUBSETS[row]
    present = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1], [0, 1, 1, 0]], dtype=torch.bool)
    able = (present | ~subset).all(1)
    encoded = network.encode_modalities(batch, present)
    keep = subset & able[:, None]
    found = network.decode(network.fuse(encoded, present, keep))
    expected = network.deep_logits(batch[able], keep[able])
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("junk", [1e6, float("nan"), float("inf")])
def test_the_voxels_of_an_absent_modality_change_nothing(network, junk):
    case = image()
    for present in SUBSETS[:-1]:
        other = case.clone()
        other[0, ~present] = junk
        assert torch.equal(network(other, present[None]), network(case, present[None]))
    personal, other = network.personalise(SUBSETS[4]), case.clone()
    other[0, ~SUBSETS[4]] = junk
    assert torch.equal(personal(other), personal(case))


@torch.no_grad()
def test_presence_is_each_cases_own(network):
    batch = image(3)
    alone = [network(batch[i : i + 1], MIXED[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(network(batch, MIXED), torch.cat(alone), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_without_presence_an_empty_channel_of_a_whole_case_is_absent(network):
    batch = keep_only(image(3), MIXED)
    assert torch.equal(network(batch), network(batch, MIXED))


@torch.no_grad()
def test_a_case_with_nothing_is_one_whose_first_modality_is_zero(network):
    batch, present = image(2), torch.tensor([[False] * 4, [True] * 4])
    batch[0] = float("nan")
    found = network(batch, present)
    zero, first = torch.zeros_like(batch[:1]), torch.tensor([[True, False, False, False]])
    torch.testing.assert_close(found[:1], network(zero, first), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1:], network(batch[1:]), atol=1e-5, rtol=1e-5)
    assert bool(network(zero).isfinite().all())


@torch.no_grad()
def test_deep_logits_come_finest_first_and_the_output_is_the_first(network):
    logits = network.deep_logits(image(), MIXED[:1])
    assert [tuple(level.shape) for level in logits] == [(1, 3, 8, 12, 16), (1, 3, 4, 6, 8)]
    assert torch.equal(network(image(), MIXED[:1]), logits[0])


@pytest.mark.parametrize("row", range(15))
def test_the_norms_of_absent_modalities_and_they_alone_do_not_learn(network, row):
    present = SUBSETS[row]
    logits = network.deep_logits(image(3), present.expand(3, -1))
    sum(level.square().mean() for level in logits).backward()
    for name, parameter in network.named_parameters():
        absent = ".norms." in name and not present[int(name.split(".norms.")[1][0])]
        assert (parameter.grad is None) == absent, name
        assert absent or bool(parameter.grad.any()), name


@torch.no_grad()
def test_the_personalised_network_gives_the_same_logits_on_every_subset(network):
    case = image(2)
    for present in SUBSETS:
        expected = network(case, present.expand(2, -1))
        personal = network.personalise(present)
        assert not personal.training
        torch.testing.assert_close(personal(case), expected, atol=1e-5, rtol=1e-5)
        norms = {n.split(".norms.")[1][0] for n in personal.state_dict() if ".norms." in n}
        assert len(norms) == int(present.sum())
    with pytest.raises(ValueError, match="at least one present modality"):
        network.personalise(torch.zeros(4, dtype=torch.bool))


@torch.no_grad()
def test_personalising_takes_a_copy(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for parameter in network.train().personalise(SUBSETS[3]).parameters():
        parameter.zero_()
    assert network.training
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


@torch.no_grad()
def test_the_scripted_network_gives_the_same_numbers(network):
    scripted, batch = torch.jit.script(network), keep_only(image(3), MIXED)
    torch.testing.assert_close(scripted(batch, MIXED), network(batch, MIXED))
    torch.testing.assert_close(scripted(batch), network(batch))
    empty = torch.zeros_like(batch)
    torch.testing.assert_close(scripted(empty), network(empty))


# PyTorch's own check of the number of channels.
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean")
@torch.no_grad()
def test_the_personalised_network_can_be_traced_and_exported(network):
    personal, case, wider = network.personalise(SUBSETS[10]), image(), image(2)[..., :8]
    traced = torch.jit.trace(personal, case)
    torch.testing.assert_close(traced(case), personal(case))
    torch.testing.assert_close(traced(wider), personal(wider))
    torch.testing.assert_close(torch.jit.script(personal)(wider), personal(wider))
    exported = torch.export.export(personal, (case,)).module()
    torch.testing.assert_close(exported(case), personal(case))


@pytest.mark.parametrize("levels", [0, 3])
def test_supervised_levels_must_exist(levels):
    with pytest.raises(ValueError, match=rf"1 <= deep_supervision < 3, .*got {levels}"):
        DynamicSharing(4, 3, blocks_down=(1, 1, 1), deep_supervision=levels)
