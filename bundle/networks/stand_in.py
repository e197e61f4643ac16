"""What an encoder sees where nothing was scanned, or where a patch is masked."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StandIn(nn.Module):
    """What the encoder sees where nothing was scanned or a patch is masked: a learned tile.

    One small tile per modality, repeated over the volume, so that it does not depend on where a
    window lies or how large it is. It starts at zero, which is the mean of a z-scored brain.

    Args:
        modalities: M.
        size: voxels along each side of the tile.
    """

    def __init__(self, modalities: int, size: int = 4) -> None:
        super().__init__()
        self.tile = nn.Parameter(torch.zeros(modalities, size, size, size))

    def forward(self, image: Tensor, visible: Tensor) -> Tensor:
        """Put the stand-ins where `visible` is False.

        Args:
            image: (B, M, D, H, W) z-scores; hidden voxels may hold anything, NaN included.
            visible: bool, True = keep; broadcasts to `image`, e.g. (B, M, 1, 1, 1).
        """
        size = self.tile.shape[-1]
        filled = self.tile
        for axis in range(1, 4):
            indices = torch.arange(image.shape[axis + 1], device=image.device) % size
            filled = filled.index_select(axis, indices)
        return torch.where(visible, image, filled.to(image.dtype)[None])
