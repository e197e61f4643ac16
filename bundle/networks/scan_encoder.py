"""One encoder for all modalities, run on each scan alone, and a decoder of what they say together.

Letters besides the legend of `bundle.modalities`: N scans, C features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bundle.modalities import derive_presence
from bundle.networks.unet import UNet


class ScanEncoderNetwork(nn.Module):
    """Encodes every scan by itself with the same weights, fuses the levels, decodes as a `UNet`.

    At every level the M feature maps of a case are put side by side and mixed by a 1x1x1
    convolution. What an absent modality would have said is, at the bottleneck, the mean of what the
    present ones say, and nothing above it. An absent scan is not encoded: the cost of the encoder,
    by far the larger part, grows with the number of scans. Its voxels, whatever they hold, are not
    read.

    Args:
        modalities: M.
        regions: R.
        filters, blocks_down, deep_supervision: as in `bundle.networks.unet.UNet`.
        skips: what stands for absent modalities above the bottleneck: "zeros", close to the
            official code, whose skips are those of an image of zeros, or "mean", as at the
            bottleneck. With "mean" a lone scan is segmented alike whatever its modality.

    Raises:
        ValueError: `skips` is neither, or `deep_supervision` does not suit `blocks_down`.

    Source: our reading of arXiv 2310.01035, design.md section 1.2.
    """

    def __init__(
        self,
        modalities: int,
        regions: int,
        filters: int = 16,
        blocks_down: Sequence[int] = (1, 2, 2, 4),
        deep_supervision: int = 3,
        skips: str = "zeros",
    ) -> None:
        super().__init__()
        if skips not in ("mean", "zeros"):
            raise ValueError(f"expected skips 'mean' or 'zeros', got {skips!r}. Correct it.")
        body = UNet(1, regions, filters, blocks_down, deep_supervision)
        self.encoder = body.encoder
        self.fusion = nn.ModuleList(
            Fusion(modalities, filters * 2**level, level == len(blocks_down) - 1 or skips == "mean")
            for level in range(len(blocks_down))
        )
        self.decoder = body.decoder

    def encode(self, image: Tensor, keep: Tensor) -> list[Tensor]:
        """Encode the kept scans, and no other.

        Args:
            image: (B, M, D, H, W) z-scores, 0 outside the brain; what is not kept is not read.
            keep: (B, M) bool, True = encode.

        Returns:
            Features of the N kept scans, all of the first case in vocabulary order, then all of the
            second ...; finest first: (N, C, D, H, W), (N, 2C, D/2, H/2, W/2), ...

        Raises:
            ValueError: nothing is kept in the whole batch.
        """
        scans = image[keep][:, None]
        # A trace takes no decisions; asking would only make it warn.
        if not torch.jit.is_tracing() and scans.shape[0] == 0:
            raise ValueError(
                "expected at least one present modality in the batch, got none. Leave out cases "
                "without scans; without `present`, an image of zeros is such a case."
            )
        return self.encoder(scans)

    def decode(self, features: list[Tensor], keep: Tensor) -> list[Tensor]:
        """Fuse the scans of each case and predict at every supervised level, finest first.

        Args:
            features: what `encode` returned.
            keep: (B, M) bool, as it was there.
        """
        scans = keep.nonzero()
        return self._decode(features, keep, scans[:, 0], scans[:, 1])

    def _decode(
        self, features: list[Tensor], keep: Tensor, case: Tensor, modality: Tensor
    ) -> list[Tensor]:
        fused: list[Tensor] = []
        for level, fuse in enumerate(self.fusion):
            fused.append(fuse(features[level], keep, case, modality))
        return self.decoder(fused)

    def deep_logits(self, image: Tensor, present: Tensor | None = None) -> list[Tensor]:
        """Predict at every supervised level.

        Args:
            image: (B, M, D, H, W) z-scores, 0 outside the brain.
            present: (B, M) bool, True = available; None = every channel that is not all zero, which
                holds for whole cases only. A case with nothing, beside others that have something,
                gets finite logits without meaning.

        Returns:
            Region logits, finest first: (B, R, D, H, W), then (B, R, D/2, H/2, W/2), ...

        Raises:
            ValueError: nothing is present in the whole batch.
        """
        if present is None:
            present = derive_presence(image)
        if not torch.jit.is_scripting():  # noqa: SIM102 TorchScript skips this form alone
            if torch.compiler.is_exporting():
                return self._deep_logits_of_all(image, present)
        return self.decode(self.encode(image, present), present)

    @torch.jit.unused
    def _deep_logits_of_all(self, image: Tensor, present: Tensor) -> list[Tensor]:
        """Do the same with every branch computed: an exported graph has one number of scans."""
        image = image.masked_fill(~present[:, :, None, None, None], 0)
        scans = torch.arange(present.numel(), device=present.device)
        count = present.shape[1]
        features = self.encoder(image.flatten(0, 1)[:, None])
        return self._decode(features, present, scans // count, scans % count)

    def forward(self, image: Tensor, present: Tensor | None = None) -> Tensor:
        """Predict region logits (B, R, D, H, W); arguments as in `deep_logits`."""
        return self.deep_logits(image, present)[0]


class Fusion(nn.Module):
    """Put the M feature maps of each case side by side and mix them by a 1x1x1 convolution.

    It has no bias, as all convolutions of the encoder.

    Args:
        modalities: M.
        features: C, of each scan and of the result.
        fill: True = the mean of the kept scans stands for the others; False = zeros do.
    """

    def __init__(self, modalities: int, features: int, fill: bool) -> None:
        super().__init__()
        self.fill = fill
        self.mix = nn.Conv3d(modalities * features, features, 1, bias=False)

    def forward(self, features: Tensor, keep: Tensor, case: Tensor, modality: Tensor) -> Tensor:
        """Fuse.

        The convolution is linear, so what it would do to a mean is spread over the scans that the
        mean is of. Thus only those cost something, in time and in memory.

        Args:
            features: (N, C, D, H, W), one for each scan.
            keep: (B, M) bool, True = the scan counts; a scan without it adds nothing.
            case, modality: (N,) int64, whose scan it is, and of what.

        Returns:
            (B, C, D, H, W).
        """
        channels = features.shape[1]
        # (M, C out, C in)
        weight = self.mix.weight.reshape(channels, -1, channels).permute(1, 0, 2)
        here = keep.to(weight.dtype)
        rows = weight[modality]
        if self.fill:
            share = here.sum(1).clamp_min(1)[:, None, None]
            absent = torch.einsum("bm,moi->boi", 1 - here, weight) / share
            rows = rows + absent[case]
        rows = rows * here[case, modality][:, None, None]
        mixed = torch.bmm(rows, features.flatten(2))
        shape = [keep.shape[0], channels, mixed.shape[2]]
        total = mixed.new_zeros(shape).index_add(0, case, mixed)
        return total.unflatten(2, features.shape[2:])
