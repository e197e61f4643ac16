from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bundle.modalities import BRATS_MODALITIES, all_subsets, keep_only, presence
from bundle.networks.unet import UNet
from bundle.networks.universal import UniversalNetwork

SUBSETS = [presence(subset, BRATS_MODALITIES) for subset in all_subsets(BRATS_MODALITIES)]
SHAPE = {"filters": 4, "blocks_down": (1, 1, 1), "deep_supervision": 2}
MIXED = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 1, 0]], dtype=torch.bool)


def image(batch: int = 1) -> Tensor:
    """Noise in a brain that does not fill the volume."""
    made = torch.randn(batch, 4, 8, 12, 16, generator=torch.Generator().manual_seed(1))
    made[:, :, :2] = 0
    return made


def fresh(**options) -> UniversalNetwork:
    torch.manual_seed(0)
    return UniversalNetwork(4, 3, **(SHAPE | options)).eval()


@pytest.fixture
def network() -> UniversalNetwork:
    return trained()


@pytest.fixture(params=["joint", "separate"])
def either(request) -> UniversalNetwork:
    """One with a joint encoder, one with an encoder for each modality."""
    return trained(encoders=request.param)


def trained(**options) -> UniversalNetwork:
    """As after a training: prompts, tile, norms and the hypernetwork's last layer are not zero."""
    made = fresh(**options)
    for parameter in made.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=1, std=0.3)
    nn.init.normal_(made.hypernetwork.prompts)
    nn.init.normal_(made.hypernetwork.output.weight, std=0.05)
    nn.init.normal_(made.hypernetwork.output.bias, std=0.3)
    for name, parameter in made.named_parameters():
        if name.endswith("stand_in.tile"):
            nn.init.normal_(parameter)
    return made


def plain(network: UniversalNetwork) -> UNet:
    """A U-Net with the network's encoder and decoder."""
    made = UNet(4, 3, **SHAPE).eval()
    made.encoder.load_state_dict(network.autoencoder.encoder.state_dict())
    made.decoder.load_state_dict(network.decoder.state_dict())
    return made


def multiply_adds(network: nn.Module, *inputs: Tensor) -> int:
    """Count those of all convolutions of one call."""
    counted = []

    def count(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        # A transposed convolution spreads each input voxel, the others gather for each output one.
        voxels = given[0] if isinstance(layer, nn.ConvTranspose3d) else out
        counted.append(voxels[0, 0].numel() * layer.weight.numel())

    hooks = [
        layer.register_forward_hook(count)
        for layer in network.modules()
        if isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d, nn.Linear))
    ]
    network(*inputs)
    for hook in hooks:
        hook.remove()
    return sum(counted)


@pytest.mark.parametrize("rescale", [True, False])
@torch.no_grad()
def test_at_the_start_it_is_a_unet_for_every_subset(rescale):
    made = fresh(rescale=rescale)
    nn.init.normal_(made.hypernetwork.prompts)
    unet, case = plain(made), image()
    for present in SUBSETS:
        larger = case * (4 / present.sum() if rescale else 1)
        ours, theirs = (
            made.deep_logits(case, present[None]),
            unet.deep_logits(larger, present[None]),
        )
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_trained_it_has_parameters_of_its_own_for_every_subset(network):
    features = network.encode(image(), MIXED[:1])
    logits = [network.decode(features, present[None])[0] for present in SUBSETS]
    for i in range(15):
        for j in range(i):
            assert not torch.allclose(logits[i], logits[j], atol=1e-2)


@torch.no_grad()
def test_the_personalised_network_gives_the_same_logits_on_every_subset(either):
    case = image(2)
    for present in SUBSETS:
        dynamic = either(case, present.expand(2, -1))
        personal = either.personalise(present)
        torch.testing.assert_close(personal(case), dynamic, atol=1e-5, rtol=1e-5)
        assert torch.equal(personal(case, present.expand(2, -1)), personal(case))


def test_the_personalised_network_is_plain_and_costs_no_more_than_a_unet(network):
    personal, case = network.personalise(SUBSETS[5]), image()
    assert not personal.training
    names = set(personal.state_dict())
    assert not [name for name in names if "hyper" in name or "prompt" in name]
    assert not [name for name in names if "pyramid" in name]
    unet = plain(network)
    assert names - {f"encoder.{n}" for n in unet.encoder.state_dict()} - {
        f"decoder.{n}" for n in unet.decoder.state_dict()
    } == {"stand_in.tile", "present"}
    cost = multiply_adds(unet, case, SUBSETS[5][None])
    assert multiply_adds(personal, case) == cost
    assert cost > 1e6
    assert multiply_adds(network, case, SUBSETS[5][None]) > cost


@torch.no_grad()
def test_personalising_takes_a_copy(either):
    before = {name: value.clone() for name, value in either.state_dict().items()}
    personal = either.train().personalise(SUBSETS[0])
    for parameter in personal.parameters():
        parameter.zero_()
    assert either.training
    assert all(torch.equal(either.state_dict()[name], value) for name, value in before.items())


@torch.no_grad()
@pytest.mark.parametrize("junk", [1e6, float("nan"), float("inf")])
def test_the_voxels_of_an_absent_modality_change_nothing(either, junk):
    case = image()
    for present in SUBSETS[:-1]:
        other = case.clone()
        other[0, ~present] = junk
        assert torch.equal(either(other, present[None]), either(case, present[None]))
    personal = either.personalise(SUBSETS[4])
    other = case.clone()
    other[0, ~SUBSETS[4]] = junk
    assert torch.equal(personal(other), personal(case))


@torch.no_grad()
def test_presence_is_each_cases_own(either):
    batch = image(3)
    alone = [either(batch[i : i + 1], MIXED[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(either(batch, MIXED), torch.cat(alone), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_without_presence_an_empty_channel_of_a_whole_case_is_absent(either):
    batch = keep_only(image(3), MIXED)
    assert torch.equal(either(batch), either(batch, MIXED))


@torch.no_grad()
def test_deep_logits_come_finest_first_and_the_output_is_the_first(network):
    logits = network.deep_logits(image(), MIXED[:1])
    assert [tuple(level.shape) for level in logits] == [(1, 3, 8, 12, 16), (1, 3, 4, 6, 8)]
    assert torch.equal(network(image(), MIXED[:1]), logits[0])


@torch.no_grad()
def test_it_works_without_a_hypernetwork():
    made = fresh(hypernetwork=False)
    nn.init.normal_(made.autoencoder.stand_in.tile)
    assert not [name for name in made.state_dict() if "hyper" in name]
    for present in (SUBSETS[0], SUBSETS[-1]):
        logits = made(image(), present[None])
        personal = made.personalise(present)
        torch.testing.assert_close(personal(image()), logits)
        assert personal.decoder is not made.decoder


def test_every_parameter_but_the_rebuilding_ones_learns_from_the_logits(network):
    sum(level.square().mean() for level in network.deep_logits(image(3), MIXED)).backward()
    idle = {name for name, p in network.named_parameters() if p.grad is None}
    rebuilding = {
        n for n in dict(network.named_parameters()) if n.split(".")[1] in ("pyramid", "head")
    }
    assert idle == {name for name in rebuilding if name.startswith("autoencoder.")} != set()
    for name, parameter in network.named_parameters():
        assert name in idle or bool(parameter.grad.any()), name


@pytest.mark.parametrize("hypernetwork", [True, False])
@torch.no_grad()
def test_the_scripted_network_gives_the_same_numbers(either, hypernetwork):
    if not hypernetwork:
        either.hypernetwork = None
    scripted, batch = torch.jit.script(either), keep_only(image(3), MIXED)
    torch.testing.assert_close(scripted(batch, MIXED), either(batch, MIXED))
    torch.testing.assert_close(scripted(batch), either(batch))


# PyTorch's own check of the number of channels.
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean")
@torch.no_grad()
def test_the_personalised_network_can_be_traced_and_exported(either):
    personal, case, wider = either.personalise(SUBSETS[7]), image(), image(2)[..., :8]
    traced = torch.jit.trace(personal, case)
    torch.testing.assert_close(traced(case), personal(case))
    torch.testing.assert_close(traced(wider), personal(wider))
    torch.testing.assert_close(torch.jit.script(personal)(wider), personal(wider))
    exported = torch.export.export(personal, (case,)).module()
    torch.testing.assert_close(exported(case), personal(case))


@pytest.mark.parametrize("levels", [0, 3])
def test_supervised_levels_must_exist(levels):
    with pytest.raises(ValueError, match=rf"1 <= deep_supervision < 3, .*got {levels}"):
        UniversalNetwork(4, 3, blocks_down=(1, 1, 1), deep_supervision=levels)


def test_encoders_of_their_own_leave_a_site_with_one_modality_little_to_send():
    """At most 40 % of what a site with all four has, at the size of train.json."""
    network = UniversalNetwork(4, 3, encoders="separate")
    counts = {name: parameter.numel() for name, parameter in network.named_parameters()}
    branches = [
        sum(count for name, count in counts.items() if f".branches.{place}." in name)
        for place in range(4)
    ]
    assert len(set(branches)) == 1
    assert (sum(counts.values()) - 3 * branches[0]) / sum(counts.values()) < 0.4


def test_encoders_are_one_of_two_words():
    with pytest.raises(ValueError, match=r"encoders: expected one of .*'separate'.*, got 'own'"):
        UniversalNetwork(4, 3, encoders="own")
