"""The universal network: any subset in, regions out, and on request the missing scans."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from bundle.modalities import derive_presence
from bundle.networks.decoder import Decoder
from bundle.networks.hypernetwork import Hypernetwork
from bundle.networks.masked_autoencoder import MaskedAutoencoder, rescaling
from bundle.networks.stand_in import StandIn
from bundle.networks.unet import UNet


class UniversalNetwork(nn.Module):
    """The masked autoencoder's encoder, a segmentation decoder, and parameters for each subset.

    At the start it computes what a `UNet` with the same weights would of an input that is rescaled:
    stand-ins are zero, the hypernetwork changes nothing.

    Args:
        modalities: M.
        regions: R.
        filters, blocks_down, deep_supervision: as in `bundle.networks.unet.UNet`.
        hypernetwork: False = the same parameters for every subset.
        stand_in_size, rescale, encoders: as in
            `bundle.networks.masked_autoencoder.MaskedAutoencoder`.

    Raises:
        ValueError: `deep_supervision` does not suit `blocks_down`, or `encoders` is unknown.

    Source: our reading of arXiv 2406.01987, design.md section 1.1.
    """

    def __init__(
        self,
        modalities: int,
        regions: int,
        filters: int = 16,
        blocks_down: Sequence[int] = (1, 2, 2, 4),
        deep_supervision: int = 3,
        hypernetwork: bool = True,
        stand_in_size: int = 4,
        rescale: bool = True,
        encoders: str = "joint",
    ) -> None:
        super().__init__()
        self.autoencoder = MaskedAutoencoder(
            modalities, filters, blocks_down, stand_in_size, rescale, encoders
        )
        self.decoder = UNet(modalities, regions, filters, blocks_down, deep_supervision).decoder
        self.hypernetwork: Hypernetwork | None = None
        if hypernetwork:
            self.hypernetwork = Hypernetwork(modalities, self.decoder.changes)

    def encode(self, image: Tensor, present: Tensor) -> list[Tensor]:
        """Encode the present modalities: features, finest first; the last is the bottleneck."""
        return self.autoencoder.encode(image, present[:, :, None, None, None])

    def decode(self, features: list[Tensor], present: Tensor) -> list[Tensor]:
        """Predict logits at every supervised level, finest first, with the subset's parameters."""
        if self.hypernetwork is None:
            return self.decoder(features)
        return self.decoder(features, self.hypernetwork(present))

    def deep_logits(self, image: Tensor, present: Tensor | None = None) -> list[Tensor]:
        """Predict at every supervised level.

        Args:
            image: (B, M, D, H, W) z-scores, 0 outside the brain.
            present: (B, M) bool, True = available; None = every channel that is not all zero, which
                holds for whole cases only.

        Returns:
            Region logits, finest first: (B, R, D, H, W), then (B, R, D/2, H/2, W/2), ...
        """
        if present is None:
            present = derive_presence(image)
        return self.decode(self.encode(image, present), present)

    def forward(self, image: Tensor, present: Tensor | None = None) -> Tensor:
        """Predict region logits (B, R, D, H, W); arguments as in `deep_logits`."""
        return self.deep_logits(image, present)[0]

    @torch.jit.unused
    def personalise(self, present: Tensor) -> PersonalisedNetwork:
        """Return the plain network of one subset: no prompts, no hypernetwork, no choice.

        Args:
            present: (M,) bool, True = available.

        Returns:
            A copy in evaluation mode whose output equals this network's for that subset.

        Raises:
            ValueError: nothing is present.
        """
        if not bool(present.any()):
            raise ValueError("expected at least one present modality to personalise for, got none")
        with torch.no_grad():
            if self.hypernetwork is None:
                decoder = deepcopy(self.decoder)
            else:
                decoder = self.decoder.rewritten(self.hypernetwork(present[None])[0])
        stand_in = deepcopy(self.autoencoder.stand_in)
        if stand_in is None:
            encoder = self.autoencoder.encoder.personalise(present)
        else:
            encoder = deepcopy(self.autoencoder.encoder)
            if self.autoencoder.rescale:
                # The first layer is linear and without bias: what multiplies its input may as well
                # multiply its weights.
                with torch.no_grad():
                    encoder.conv_init.weight.mul_(rescaling(present[None, :, None]))
        return PersonalisedNetwork(stand_in, encoder, decoder, present).eval()


class PersonalisedNetwork(nn.Module):
    """A `UniversalNetwork` for one subset of modalities.

    Args:
        stand_in, encoder, decoder: its parts, with the subset's parameters written in; without a
            stand-in the encoder picks the subset's modalities by itself.
        present: (M,) bool, True = available.
    """

    def __init__(
        self, stand_in: StandIn | None, encoder: nn.Module, decoder: Decoder, present: Tensor
    ) -> None:
        super().__init__()
        self.stand_in = stand_in
        self.encoder = encoder
        self.decoder = decoder
        self.register_buffer("present", present.clone())

    def forward(self, image: Tensor, present: Tensor | None = None) -> Tensor:
        """Predict region logits (B, R, D, H, W) of `image` (B, M, D, H, W).

        `present` is taken for the sake of the contract and not read: the subset is fixed.
        """
        if self.stand_in is None:
            return self.decoder(self.encoder(image))[0]
        visible = self.present[None, :, None, None, None]
        return self.decoder(self.encoder(self.stand_in(image, visible)))[0]
