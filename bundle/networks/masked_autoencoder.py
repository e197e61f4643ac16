"""The multimodal masked autoencoder: rebuild masked patches and absent modalities together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork
from monai.networks.nets.segresnet_ds import SegResEncoder
from torch import Tensor, nn

from bundle.modalities import derive_presence


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
            image: (B, M, D, H, W) z-scores; hidden places may hold anything, NaN included.
            visible: bool, True = keep; broadcasts to `image`, e.g. (B, M, 1, 1, 1).
        """
        size = self.tile.shape[-1]
        filled = self.tile
        for axis in range(1, 4):
            places = torch.arange(image.shape[axis + 1], device=image.device) % size
            filled = filled.index_select(axis, places)
        return torch.where(visible, image, filled.to(image.dtype)[None])


def rescaling(visible: Tensor) -> Tensor:
    """Say by what to multiply the input, so that a sum over few modalities is as large as over all.

    The first convolution adds up its channels. Without this, a set of modalities that no training
    case has gives sums of a size that the network has never met.

    Args:
        visible: bool, True = the encoder may see it; (B, M, ...).

    Returns:
        (B,) float: M over the number of modalities of which anything is visible.
    """
    seen = visible.flatten(2).any(2).sum(1)
    return visible.shape[1] / seen.clamp(min=1).float()


class MaskedAutoencoder(nn.Module):
    """An encoder that segmentation takes over, and a light decoder that rebuilds its input.

    Args:
        modalities: M, number of input and output channels.
        filters: channels at full resolution; each level down doubles them.
        blocks_down: residual blocks per level, as in `bundle.networks.unet.UNet`.
        stand_in_size: see `StandIn`.
        rescale: True = what the encoder sees is multiplied by M over the number of modalities that
            are visible in the case, see `rescaling`.

    Source: our reading of the masked autoencoder of arXiv 2406.01987; the encoder is M3AE's and
        SegResNet's, the decoder MONAI's feature pyramid (DESIGN.md section 1.1).
    """

    def __init__(
        self,
        modalities: int,
        filters: int = 16,
        blocks_down: Sequence[int] = (1, 2, 2, 4),
        stand_in_size: int = 4,
        rescale: bool = True,
    ) -> None:
        super().__init__()
        self.rescale = rescale
        self.stand_in = StandIn(modalities, stand_in_size)
        self.encoder = SegResEncoder(
            init_filters=filters,
            in_channels=modalities,
            norm="instance",
            blocks_down=tuple(blocks_down),
        )
        channels = [filters * 2**level for level in range(len(blocks_down))]
        self.pyramid = FeaturePyramidNetwork(3, channels, filters)
        # Only the finest level is read.
        self.pyramid.layer_blocks = nn.ModuleList(
            [self.pyramid.layer_blocks[0], *(nn.Identity() for _ in channels[1:])]
        )
        # Without the norm the ReLU dies within a few steps, and all that still learns is a bias.
        norm = nn.InstanceNorm3d(filters, affine=True)
        self.head = nn.Sequential(norm, nn.ReLU(), nn.Conv3d(filters, modalities, 1))

    def encode(self, image: Tensor, visible: Tensor) -> list[Tensor]:
        """Encode what is visible: features, finest first.

        Args:
            image: (B, M, D, H, W) z-scores, 0 outside the brain.
            visible: (B, M, ...) or (1, M, ...) bool that broadcasts to `image`, True = the encoder
                may see it.
        """
        filled = self.stand_in(image, visible)
        if self.rescale:
            filled = filled * rescaling(visible)[:, None, None, None, None].to(filled.dtype)
        return self.encoder(filled)

    def rebuild(self, features: list[Tensor]) -> Tensor:
        """Rebuild every modality from the encoder's features: (B, M, D, H, W) z-scores."""
        levels = {str(level): features[level] for level in range(len(features))}
        return self.head(self.pyramid(levels)["0"])

    def forward(self, image: Tensor, present: Tensor | None = None) -> Tensor:
        """Rebuild every modality, (B, M, D, H, W), from the present ones.

        Without `present`, the channels that are not all zero are: that holds for whole cases only.
        """
        if present is None:
            present = derive_presence(image)
        return self.rebuild(self.encode(image, present[:, :, None, None, None]))
