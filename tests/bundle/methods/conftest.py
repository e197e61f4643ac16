"""What the tests of the methods share: cases with gaps, and the two usual criteria."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from monai.losses import DeepSupervisionLoss, DiceLoss
from torch import Tensor, nn

# One complete case, one with a single scan, one with two.
PRESENT = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 0], [1, 0, 0, 1]], dtype=torch.bool)


@pytest.fixture(scope="session")
def criteria() -> dict[str, nn.Module]:
    """Loss terms as in `configs/train.json`."""
    return {
        "dice": DeepSupervisionLoss(DiceLoss(sigmoid=True, batch=True)),
        "cross_entropy": DeepSupervisionLoss(nn.BCEWithLogitsLoss()),
    }


@pytest.fixture(scope="session")
def batch() -> Callable[..., dict[str, Tensor]]:
    """Give batch(present, side, seed): cases with a brain and a background.

    `present` (B, M) bool, True = available; what is not is filled with NaN. `image` is 0 in the
    first three planes of the last axis, the background; `label` (B, 3, D, H, W) is noise.
    """

    def make(present: Tensor = PRESENT, side: int = 16, seed: int = 1) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        shape = (side,) * 3
        image = torch.randn(*present.shape, *shape, generator=generator)
        image[..., :3] = 0
        image[~present] = float("nan")
        label = torch.rand(len(present), 3, *shape, generator=generator) > 0.7
        return {"image": image, "present": present, "label": label.to(torch.uint8)}

    return make
