"""The multimodal masked autoencoder: rebuild masked patches and absent modalities together."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork
from monai.networks.nets.segresnet_ds import SegResEncoder
from torch import Tensor, nn

from bundle.modalities import derive_presence
from bundle.networks.modality_encoders import ModalityEncoders
from bundle.networks.stand_in import StandIn

ENCODERS = ("joint", "separate")


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
        stand_in_size: see `bundle.networks.stand_in.StandIn`.
        encoders: "joint" = one encoder, whose input channels are the modalities; "separate" = one
            for each modality, see `bundle.networks.modality_encoders.ModalityEncoders`.
        rescale: for a joint encoder; True = what it sees is multiplied by M over the number of
            modalities that are visible in the case, see `rescaling`.

    Raises:
        ValueError: `encoders` is neither.

    Source: our reading of the masked autoencoder of arXiv 2406.01987; the encoder is M3AE's and
        SegResNet's, the decoder MONAI's feature pyramid (design.md section 1.1).
    """

    def __init__(
        self,
        modalities: int,
        filters: int = 16,
        blocks_down: Sequence[int] = (1, 2, 2, 4),
        stand_in_size: int = 4,
        rescale: bool = True,
        encoders: str = "joint",
    ) -> None:
        super().__init__()
        if encoders not in ENCODERS:
            raise ValueError(f"encoders: expected one of {list(ENCODERS)}, got {encoders!r}")
        self.joint = encoders == "joint"
        self.rescale = rescale and self.joint
        self.stand_in: StandIn | None = None
        if self.joint:
            self.stand_in = StandIn(modalities, stand_in_size)
            self.encoder = SegResEncoder(
                init_filters=filters,
                in_channels=modalities,
                norm="instance",
                blocks_down=tuple(blocks_down),
            )
        else:
            self.encoder = ModalityEncoders(modalities, filters, blocks_down, stand_in_size)
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
        if self.stand_in is None:
            return self.encoder(image, visible)
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
