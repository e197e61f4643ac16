from __future__ import annotations

import torch

from bundle.networks.placement import place
from bundle.networks.unet import UNet


def small():
    torch.manual_seed(0)
    return UNet(2, 1, filters=4, blocks_down=(1, 1), deep_supervision=1).eval()


def test_channels_last_turns_every_convolution_and_changes_no_number():
    network, image = small(), torch.randn(2, 2, 8, 8, 8)
    expected = network(image)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    placed = place(network, "cpu", channels_last=True)
    assert placed is network
    weights = [m.weight for m in placed.modules() if isinstance(m, torch.nn.Conv3d)]
    assert len(weights) > 5
    assert all(w.is_contiguous(memory_format=torch.channels_last_3d) for w in weights)
    assert all(torch.equal(value, state[name]) for name, value in placed.state_dict().items())
    assert torch.allclose(placed(image), expected, atol=1e-5)


def test_without_it_the_order_in_memory_stays():
    weights = [m.weight for m in place(small(), "cpu").modules() if isinstance(m, torch.nn.Conv3d)]
    assert all(w.is_contiguous() for w in weights)
