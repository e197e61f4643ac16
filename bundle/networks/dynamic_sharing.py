"""Dynamic Sharing: one set of convolutions for all modalities, norms of its own for each.

Letters besides the legend of `bundle.modalities`: C features, N volumes of one modality.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from monai.networks.nets.segresnet_ds import SegResBlock, SegResEncoder
from torch import Tensor, nn

from bundle.modalities import derive_presence, keep_only
from bundle.networks.decoder import Decoder
from bundle.networks.unet import UNet


class SharedBlock(nn.Module):
    """SegResNet's residual block, whose convolutions are shared and whose norms are not.

    Args:
        body: the block whose layers become this one's.
        modalities: M, how many pairs of norms there are.
    """

    def __init__(self, body: SegResBlock, modalities: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.activation = body.conv1, body.conv2, body.act1
        pair = nn.ModuleList([body.norm1, body.norm2])
        self.norms = nn.ModuleList([deepcopy(pair) for _ in range(modalities)])

    def forward(self, features: Tensor, modality: int) -> Tensor:
        """Transform features (N, C, D, H, W) of one modality, given by its index."""
        out = features
        # TorchScript cannot pick a module by a number, but it can unroll a loop over modules.
        for index, norms in enumerate(self.norms):
            if index == modality:
                inner = self.conv1(self.activation(norms[0](features)))
                out = features + self.conv2(self.activation(norms[1](inner)))
        return out


class SharedConvolutions(nn.Module):
    """SegResNet's encoder for volumes of one modality at a time.

    Args:
        body: the encoder of one channel whose layers become this one's.
        modalities: M.
    """

    def __init__(self, body: SegResEncoder, modalities: int) -> None:
        super().__init__()
        self.conv_init = body.conv_init
        self.levels = nn.ModuleList()
        for level in body.layers:
            blocks = nn.ModuleList([SharedBlock(block, modalities) for block in level["blocks"]])
            parts = {"blocks": blocks, "downsample": level["downsample"]}
            self.levels.append(nn.ModuleDict(parts))

    def forward(self, volumes: Tensor, modality: int) -> list[Tensor]:
        """Encode volumes (N, 1, D, H, W) of one modality, by its index; finest level first."""
        features = self.conv_init(volumes)
        found: list[Tensor] = []
        for level in self.levels:
            for block in level["blocks"]:
                features = block(features, modality)
            found.append(features)
            features = level["downsample"](features)
        return found


class DynamicSharing(nn.Module):
    """A U-Net that looks at one modality after the other and decodes the mean of what it saw.

    What a case lacks is not computed: the cost of the encoder grows with the number of modalities
    that a case has. The number of parameters hardly depends on the vocabulary: per modality two
    numbers for each feature of each norm.

    Args:
        modalities: M.
        regions: R.
        filters, blocks_down, deep_supervision: as in `bundle.networks.unet.UNet`; every modality
            gets this many `filters`.

    Raises:
        ValueError: `deep_supervision` does not suit `blocks_down`.

    Source: our reading of Dynamic Sharing, arXiv 2402.16318. Its public code runs a whole U-Net for
        each modality, absent ones too, and averages logits; ours averages features at every level,
        skips too, in front of one decoder (design.md section 1.3).
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
        body = UNet(1, regions, filters, blocks_down, deep_supervision)
        self.modalities = modalities
        self.encoder = SharedConvolutions(body.encoder, modalities)
        self.decoder = body.decoder

    def encode_modalities(self, image: Tensor, present: Tensor) -> list[list[Tensor]]:
        """Encode every modality of the cases that have it, once for all subsets of it.

        Args:
            image: (B, M, D, H, W) z-scores, 0 outside the brain; an absent modality may hold
                anything.
            present: (B, M) bool, True = encode.

        Returns:
            For each modality the features, finest first, (N, C, D, H, W), (N, 2C, D/2, H/2, W/2)
            ..., of the N cases that have it, in their order; no features at all where N is 0.
        """
        encoded: list[list[Tensor]] = []
        for modality in range(self.modalities):
            cases = present[:, modality].nonzero().flatten().to(image.device)
            features: list[Tensor] = []
            if len(cases) > 0:
                features = self.encoder(image[cases, modality].unsqueeze(1), modality)
            encoded.append(features)
        return encoded

    def fuse(self, encoded: list[list[Tensor]], present: Tensor, keep: Tensor) -> list[Tensor]:
        """Average the features of the modalities that are kept.

        Args:
            encoded: what `encode_modalities` made of `present`.
            present: (B, M) bool, True = encoded.
            keep: (B, M) bool, True = average over it; True only where `present` is. A case that
                keeps nothing is left out.

        Returns:
            Features, finest first, of the N cases that keep something, in their order.
        """
        cases = keep.any(1).nonzero().flatten()
        kept = keep[cases]
        # The row of `encoded` that holds a case's features.
        stored = (present.long().cumsum(0) - 1)[cases]
        fused: list[Tensor] = []
        for modality, features in enumerate(encoded):
            rows = kept[:, modality].nonzero().flatten()
            if len(rows) > 0:
                chosen = stored[rows, modality].to(features[0].device)
                rows = rows.to(chosen.device)
                for level, everything in enumerate(features):
                    part = everything.index_select(0, chosen)
                    if len(fused) <= level:
                        shape = [len(cases)] + list(part.shape[1:])  # noqa: RUF005 (TorchScript)
                        fused.append(torch.zeros(shape, dtype=part.dtype, device=part.device))
                    fused[level] = fused[level].index_add(0, rows, part)
        count = kept.sum(1)[:, None, None, None, None]
        return [total / count.to(total) for total in fused]

    def decode(self, features: list[Tensor]) -> list[Tensor]:
        """Predict logits at every supervised level, finest first, from fused features."""
        return self.decoder(features)

    def deep_logits(self, image: Tensor, present: Tensor | None = None) -> list[Tensor]:
        """Predict at every supervised level.

        Args:
            image: (B, M, D, H, W) z-scores, 0 outside the brain.
            present: (B, M) bool, True = available; None = every channel that is not all zero, which
                holds for whole cases only. A case with nothing counts as one whose first modality
                is zero everywhere.

        Returns:
            Region logits, finest first: (B, R, D, H, W), then (B, R, D/2, H/2, W/2), ...
        """
        if present is None:
            present = derive_presence(image)
        nothing = ~present.any(1, keepdim=True)
        if bool(nothing.any()):
            image = keep_only(image, present)
            present = torch.cat([present[:, :1] | nothing, present[:, 1:]], 1)
        encoded = self.encode_modalities(image, present)
        return self.decode(self.fuse(encoded, present, present))

    def forward(self, image: Tensor, present: Tensor | None = None) -> Tensor:
        """Predict region logits (B, R, D, H, W); arguments as in `deep_logits`."""
        return self.deep_logits(image, present)[0]

    @torch.jit.unused
    def personalise(self, present: Tensor) -> PersonalisedSharing:
        """Return the plain network of one subset, without choice and the norms of other modalities.

        Args:
            present: (M,) bool, True = available.

        Returns:
            A copy in evaluation mode whose output equals this network's for that subset.

        Raises:
            ValueError: nothing is present.
        """
        members = present.nonzero().flatten().tolist()
        if not members:
            raise ValueError("expected at least one present modality to personalise for, got none")
        encoder = deepcopy(self.encoder)
        for module in encoder.modules():
            if isinstance(module, SharedBlock):
                module.norms = nn.ModuleList([module.norms[modality] for modality in members])
        return PersonalisedSharing(encoder, deepcopy(self.decoder), members).eval()


class PersonalisedSharing(nn.Module):
    """A `DynamicSharing` for one subset of modalities; it can be traced and exported.

    Args:
        encoder: its encoder, with the norms of the subset alone, in this order.
        decoder: its decoder.
        members: which of the M modalities the subset has, by index.
    """

    def __init__(
        self, encoder: SharedConvolutions, decoder: Decoder, members: Sequence[int]
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.members = list(members)

    def forward(self, image: Tensor, present: Tensor | None = None) -> Tensor:
        """Predict region logits (B, R, D, H, W) of `image` (B, M, D, H, W).

        `present` is taken for the sake of the contract and not read: the subset is fixed.
        """
        modality = self.members[0]
        fused = self.encoder(image[:, modality : modality + 1], 0)
        for branch in range(1, len(self.members)):
            modality = self.members[branch]
            features = self.encoder(image[:, modality : modality + 1], branch)
            fused = [total + part for total, part in zip(fused, features)]  # noqa: B905 (TorchScript)
        return self.decoder([total / len(self.members) for total in fused])[0]
