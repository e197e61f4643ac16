"""Where a network's weights lie: on which device, and in which order in memory."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import convert_conv3d_weight_memory_format


def place(network: nn.Module, device: torch.device | str, channels_last: bool = False) -> nn.Module:
    """Move a network to a device, in place.

    Args:
        network: any.
        device: where to.
        channels_last: True = the weights of its 3D convolutions keep a voxel's channels side by
            side. The convolutions then work in that order, and the input may come in either. Faster
            in bfloat16 on a CPU; results differ by rounding.
    """
    network = network.to(device)
    if channels_last:
        network = convert_conv3d_weight_memory_format(network, torch.channels_last_3d)
    return network
