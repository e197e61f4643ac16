from __future__ import annotations

import pytest
import torch
from monai.networks.nets import SegResNetDS

from bundle.modalities import BRATS_MODALITIES, all_subsets, presence
from bundle.networks.unet import UNet


@pytest.fixture
def network():
    torch.manual_seed(0)
    return UNet(4, 3, filters=4, blocks_down=(1, 1, 1), deep_supervision=2).eval()


@pytest.fixture
def image():
    return torch.randn(1, 4, 8, 12, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("junk", [1e6, float("nan"), float("inf")])
def test_the_voxels_of_an_absent_modality_change_nothing(network, image, junk):
    for subset in all_subsets(BRATS_MODALITIES)[:-1]:
        present = presence(subset, BRATS_MODALITIES)[None]
        other = image.clone()
        other[~present] = junk
        assert torch.equal(network(other, present), network(image, present))


def test_a_present_modality_does_count(network, image):
    other = image.clone()
    other[:, 3] += 1
    present = torch.ones(1, 4, dtype=torch.bool)
    assert not torch.allclose(network(other, present), network(image, present))


def test_presence_is_each_cases_own(network, image):
    batch = torch.cat([image, image])
    present = torch.tensor([[True, False, False, True], [False, True, True, False]])
    alone = [network(image, present[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(network(batch, present), torch.cat(alone))


def test_without_presence_the_image_counts_as_it_is(network, image):
    assert torch.equal(network(image), network(image, torch.ones(1, 4, dtype=torch.bool)))


def test_deep_logits_come_finest_first_and_the_output_is_the_first(network, image):
    logits = network.deep_logits(image)
    assert [tuple(level.shape) for level in logits] == [(1, 3, 8, 12, 16), (1, 3, 4, 6, 8)]
    assert torch.equal(network(image), logits[0])


def test_cutting_monais_network_in_two_changes_no_number(network, image):
    whole = SegResNetDS(
        init_filters=4,
        in_channels=4,
        out_channels=3,
        norm="instance",
        blocks_down=(1, 1, 1),
        dsdepth=2,
    )
    whole.encoder.load_state_dict(network.encoder.state_dict())
    whole.up_layers.load_state_dict(network.decoder.levels.state_dict())
    for ours, theirs in zip(network.deep_logits(image), whole.train()(image), strict=True):
        assert torch.equal(ours, theirs)


def test_every_parameter_of_a_fully_supervised_network_learns(image):
    network = UNet(4, 3, filters=4, blocks_down=(1, 1), deep_supervision=1)
    network(image, torch.ones(1, 4, dtype=torch.bool)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


# MONAI's ckpt_export still scripts.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_the_scripted_network_gives_the_same_numbers(network, image):
    scripted = torch.jit.script(network)
    present = torch.tensor([[True, False, True, False]])
    torch.testing.assert_close(scripted(image, present), network(image, present))
    torch.testing.assert_close(scripted(image), network(image))


@pytest.mark.parametrize("levels", [0, 3])
def test_supervised_levels_must_exist(levels):
    with pytest.raises(ValueError, match=rf"1 <= deep_supervision < 3, .*got {levels}"):
        UNet(4, 3, blocks_down=(1, 1, 1), deep_supervision=levels)
