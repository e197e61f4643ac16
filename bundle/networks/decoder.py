"""The U-Net's way up, whose normalisations and heads can be rewritten from outside."""

from __future__ import annotations

from copy import deepcopy

import torch
from monai.networks.nets import SegResNetDS
from torch import Tensor, nn
from torch.nn import functional as F


class Decoder(nn.Module):
    """SegResNetDS's decoder; `changes` rewrite its norms' scale and shift and its heads.

    `changes` is one row of numbers per case. Level by level, coarsest first, it holds for each
    normalisation layer C changes of scale (multiplied by 1 + change, the shift too) and C of shift
    (added), and then, where the level has a head, those of its weight and bias (added). All zero =
    the decoder as it is.

    Args:
        body: the network whose `up_layers` become this decoder; built with `norm="instance"`.
        deep_supervision: how many levels, finest first, have a head of their own.
    """

    def __init__(self, body: SegResNetDS, deep_supervision: int) -> None:
        super().__init__()
        self.levels = body.up_layers
        self.first_head = len(body.up_layers) - deep_supervision
        self.changes = sum(
            sum(2 * norm.num_features for block in level["blocks"] for norm in _norms(block))
            + (sum(p.numel() for p in level["head"].parameters()) if i >= self.first_head else 0)
            for i, level in enumerate(self.levels)
        )

    def forward(self, skips: list[Tensor], changes: Tensor | None = None) -> list[Tensor]:
        """Predict at every supervised level.

        Args:
            skips: the encoder's features, finest first, (B, C, D, H, W), (B, 2C, D/2, H/2, W/2) ...
            changes: (B, P), P = `self.changes`; None = none.

        Returns:
            Logits, finest first: (B, R, D, H, W), then (B, R, D/2, H/2, W/2), ...
        """
        features = skips[-1]
        logits: list[Tensor] = []
        at = 0
        for index, level in enumerate(self.levels):
            features = level["upsample"](features) + skips[len(skips) - 2 - index]
            if changes is None:
                features = level["blocks"](features)
            else:
                for block in level["blocks"]:
                    size = 2 * features.shape[1]
                    first = changes[:, at : at + size]
                    second = changes[:, at + size : at + 2 * size]
                    at += 2 * size
                    norm = block.norm1
                    inner = _normed(features, norm.weight, norm.bias, norm.eps, first)
                    inner = block.conv1(block.act1(inner))
                    norm = block.norm2
                    inner = _normed(inner, norm.weight, norm.bias, norm.eps, second)
                    inner = block.conv2(block.act2(inner))
                    features = features + inner
            if index >= self.first_head:
                out = level["head"](features)
                if changes is not None:
                    channels, regions = features.shape[1], out.shape[1]
                    weight = changes[:, at : at + regions * channels]
                    at += regions * channels
                    bias = changes[:, at : at + regions]
                    at += regions
                    out = out + _per_case_head(features, weight, bias)
                logits.append(out)
        logits.reverse()
        return logits

    @torch.no_grad()
    def rewritten(self, changes: Tensor) -> Decoder:
        """Return a copy that has these changes, (P,), written into its plain parameters."""
        copy = deepcopy(self)
        at = 0

        def take(like: Tensor) -> Tensor:
            nonlocal at
            at += like.numel()
            return changes[at - like.numel() : at].view_as(like).to(like)

        for index, level in enumerate(copy.levels):
            for block in level["blocks"]:
                for norm in _norms(block):
                    scale, shift = 1 + take(norm.weight), take(norm.bias)
                    norm.weight.mul_(scale)
                    norm.bias.mul_(scale).add_(shift)
            if index >= copy.first_head:
                level["head"].weight.add_(take(level["head"].weight))
                level["head"].bias.add_(take(level["head"].bias))
        return copy


def _norms(block: nn.Module) -> tuple[nn.Module, nn.Module]:
    return block.norm1, block.norm2


def _normed(features: Tensor, weight: Tensor, bias: Tensor, eps: float, change: Tensor) -> Tensor:
    """Normalise each case with its own scale and shift, in the one pass a plain layer takes."""
    channels = features.shape[1]
    scale = 1 + change[:, :channels]
    weight = weight * scale
    bias = bias * scale + change[:, channels:]
    # Every channel of every case as a channel of one case: this is how PyTorch does it inside.
    flat = features.flatten(0, 1)[None]
    flat = F.batch_norm(flat, None, None, weight.flatten(), bias.flatten(), True, 0.0, eps)
    return flat.reshape(features.shape)


def _per_case_head(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    regions = bias.shape[1]
    weight = weight.reshape(features.shape[0], regions, -1).to(features.dtype)
    out = torch.bmm(weight, features.flatten(2)).unflatten(2, features.shape[2:])
    return out + bias.to(out.dtype)[:, :, None, None, None]
