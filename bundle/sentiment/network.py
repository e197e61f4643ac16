"""A small regressor on feature sequences: an encoder for each modality, their mean, one head.

Letters besides the legend of `bundle.modalities`: T frames (padded) and F features, of which each
modality has its own number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class SequenceEncoder(nn.Module):
    """Two convolutions over time, then the mean over the frames that count.

    Args:
        features: F.
        width: E.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(features, width, kernel_size=3, padding=1)
        self.second = nn.Conv1d(width, width, kernel_size=3, padding=1)

    def forward(self, frames: Tensor, valid: Tensor) -> Tensor:
        """Encode sequences.

        Args:
            frames: (B, T, F); a frame that does not count may hold anything, NaN included.
            valid: (B, T) bool, True = the frame counts; at least one in every row.

        Returns:
            (B, E).
        """
        gap = ~valid[:, None]
        x = frames.transpose(1, 2).masked_fill(gap, 0)
        # What a convolution writes into the padding must not leak back through the next one.
        x = self.first(x).relu().masked_fill(gap, 0)
        x = self.second(x).relu().masked_fill(gap, 0)
        return x.sum(2) / valid.sum(1, keepdim=True)


class FeatureRegressor(nn.Module):
    """Predict one number from any subset of the modalities.

    Args:
        features: modality -> F, in vocabulary order.
        width: E.

    Source: fusion by the mean over what is present, absent branches switched off: arXiv 2402.16318
    as in design.md section 1.3; the encoder is ours and as plain as we could make it.
    """

    def __init__(self, features: Mapping[str, int], width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.encoders = nn.ModuleDict(
            {name: SequenceEncoder(count, width) for name, count in features.items()}
        )
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def encode(
        self, frames: Mapping[str, Tensor], valid: Mapping[str, Tensor], present: Tensor
    ) -> dict[str, Tensor]:
        """Encode every modality of the samples that have it; nothing else is computed.

        Args:
            frames: modality -> (B, T, F).
            valid: modality -> (B, T) bool, True = the frame counts.
            present: (B, M) bool, True = available.

        Returns:
            Modality -> (B, E), 0 where it is not present.
        """
        codes = {}
        for index, (name, encoder) in enumerate(self.encoders.items()):
            here = present[:, index].nonzero().flatten()
            codes[name] = frames[name].new_zeros(len(present), self.width)
            if len(here):
                code = encoder(frames[name][here], valid[name][here])
                codes[name] = codes[name].index_put((here,), code)
        return codes

    def decode(self, codes: Sequence[Tensor]) -> Tensor:
        """Predict (B,) from the mean of some modalities' codes, each (B, E)."""
        return self.head(torch.stack(list(codes), 1).mean(1)).squeeze(1)
