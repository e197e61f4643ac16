"""A residual 3D U-Net, cut into encoder and decoder so that methods can take either."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets import SegResNetDS
from torch import Tensor, nn

from bundle.modalities import keep_only
from bundle.networks.decoder import Decoder


class UNet(nn.Module):
    """SegResNetDS's encoder and decoder behind the bundle's `network(image, present)` contract.

    Absent modalities are zeroed inside, so what their channels hold changes nothing.

    Args:
        modalities: M, number of input channels.
        regions: R, number of output channels.
        filters: channels at full resolution; each level down doubles them.
        blocks_down: residual blocks per level. (1, 1) is one downsampling, (1, 1, 1, 1) three: D, H
            and W must be divisible by 2 ** (levels - 1), and at least twice that.
        deep_supervision: how many decoder levels, finest first, have a head of their own. 1 = only
            the output.

    Raises:
        ValueError: `deep_supervision` does not suit `blocks_down`.

    Source: Myronenko 2018 (arXiv 1810.11654) as in MONAI, without its variational branch.
    """

    def __init__(
        self,
        modalities: int,
        regions: int,
        filters: int = 16,
        blocks_down: Sequence[int] = (1, 2, 2, 4),
        deep_supervision: int = 3,
    ) -> None:
        super().__init__()
        levels = len(blocks_down)
        if not 1 <= deep_supervision < levels:
            raise ValueError(
                f"expected 1 <= deep_supervision < {levels}, the number of levels in blocks_down, "
                f"got {deep_supervision}"
            )
        body = SegResNetDS(
            init_filters=filters,
            in_channels=modalities,
            out_channels=regions,
            norm="instance",
            blocks_down=tuple(blocks_down),
            dsdepth=deep_supervision,
        )
        self.encoder = body.encoder
        self.decoder = Decoder(body, deep_supervision)

    def deep_logits(self, image: Tensor, present: Tensor | None = None) -> list[Tensor]:
        """Predict at every supervised level.

        Args:
            image: (B, M, D, H, W) z-scores, 0 outside the brain.
            present: (B, M) bool, True = available; None = take the image as it is.

        Returns:
            Region logits, finest first: (B, R, D, H, W), then (B, R, D/2, H/2, W/2), ...
        """
        if present is not None:
            image = keep_only(image, present)
        return self.decoder(self.encoder(image))

    def forward(self, image: Tensor, present: Tensor | None = None) -> Tensor:
        """Predict region logits (B, R, D, H, W); arguments as in `deep_logits`."""
        return self.deep_logits(image, present)[0]
