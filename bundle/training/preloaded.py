"""Batches of crops from cases that are all in memory: the random transforms, a batch at a time.

MONAI's random transforms work on one case, with its metadata, and so take as long as the step of a
small network. Here the cases are tensors on the device that trains, and a batch of crops, flips and
intensity changes is a few operations. What they do, and how often, is read from the transforms of
the config; each operation has its deterministic twin there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    RandCropByPosNegLabeld,
    RandFlipd,
    RandScaleIntensityd,
    SelectItemsd,
    SpatialPadd,
)
from monai.transforms.utils import correct_crop_centers
from torch import Tensor

from bundle.modalities import plain


@dataclass(frozen=True)
class Changes:
    """What is done to a crop at random, as the config's transforms say.

    Attributes:
        roi_size: of a crop, voxels.
        tumour_share: chance that a crop is centred on the tumour.
        flips: axis of D, H, W -> chance.
        scale_chance: that a modality's intensities are scaled.
        scale_range: what is added to the factor 1.
    """

    roi_size: tuple[int, int, int]
    tumour_share: float
    flips: Mapping[int, float]
    scale_chance: float
    scale_range: tuple[float, float]


def changes_of(transforms: Sequence[Any]) -> Changes:
    """Read the random transforms of a config.

    Raises:
        ValueError: one that is not known here, or no crop.
    """
    crop, flips, chance, factors = None, {}, 0.0, (0.0, 0.0)
    for transform in transforms:
        if isinstance(transform, RandCropByPosNegLabeld):
            crop = transform.cropper
        elif isinstance(transform, RandFlipd):
            flips[int(transform.flipper.spatial_axis)] = float(transform.prob)
        elif isinstance(transform, RandScaleIntensityd):
            chance, factors = float(transform.prob), transform.scaler.factors
        elif not isinstance(transform, (SpatialPadd, SelectItemsd)):
            raise ValueError(
                f"{type(transform).__name__} has no counterpart for batches. Expected crops by "
                "label, flips, scaled intensities, padding and selected items; take MONAI's "
                "DataLoader for others."
            )
    if crop is None:
        raise ValueError("expected RandCropByPosNegLabeld among the random transforms, got none.")
    return Changes(tuple(crop.spatial_size), crop.pos_ratio, flips, chance, tuple(factors))


class PreloadedCrops:
    """A data loader whose cases lie in memory and whose random transforms work on whole batches.

    Randomness comes from PyTorch's global generator on the CPU: the same seed gives the same
    batches on every device.

    Args:
        dataset: items after the deterministic transforms: `image` (M, D, H, W), `label`
            (R, D, H, W), `tumour` (1, D, H, W), `present` (M,), `case`.
        transforms: the config's random transforms, see `changes_of`.
        batch_size: B.
        steps: batches in an epoch; cases are drawn with replacement.
        device: where the cases lie.

    Attributes:
        changes: what is done to a crop.

    Raises:
        ValueError: no case, or a transform that `changes_of` does not know.
    """

    def __init__(
        self,
        dataset: Sequence[Mapping[str, Any]],
        transforms: Sequence[Any],
        batch_size: int,
        steps: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if not len(dataset):
            raise ValueError("expected cases to train on, got none")
        self.dataset = dataset
        self.changes = changes_of(transforms)
        self.batch_size = batch_size
        self.steps = steps
        items = [dataset[i] for i in range(len(dataset))]
        self.names = [str(item.get("case")) for item in items]
        self.present = torch.stack([torch.as_tensor(item["present"]) for item in items]).to(device)
        self.images = [self._padded(item["image"]).to(device) for item in items]
        self.labels = [self._padded(item["label"]).to(torch.uint8).to(device) for item in items]
        # Flat indices of where a crop may be centred; what was padded is no place for a centre.
        tumours = [self._padded(torch.as_tensor(item["tumour"]) > 0) for item in items]
        real = [self._padded(torch.ones_like(torch.as_tensor(item["tumour"]))) for item in items]
        self.inside = [_places(tumour) for tumour in tumours]
        self.outside = [_places(~t & (r > 0)) for t, r in zip(tumours, real, strict=True)]

    def _padded(self, volume: Tensor) -> Tensor:
        """Pad a case that is smaller than a crop, as SpatialPad does: on both sides, with 0."""
        pad: list[int] = []
        for size, wanted in zip(
            reversed(volume.shape[1:]), reversed(self.changes.roi_size), strict=True
        ):
            missing = max(0, wanted - size)
            pad += [missing // 2, missing - missing // 2]
        return torch.nn.functional.pad(plain(torch.as_tensor(volume)), pad)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for _ in range(self.steps):
            yield self.batch()

    def every_case(self) -> Iterator[dict[str, Any]]:
        """Draw a crop of each case, in batches: for what has to see every case once."""
        for start in range(0, len(self.images), self.batch_size):
            yield self.batch([*range(start, min(start + self.batch_size, len(self.images)))])

    def batch(self, cases: Sequence[int] | None = None) -> dict[str, Any]:
        """Draw a batch: `image`, `label`, `present` as tensors, and the names under `case`.

        Args:
            cases: by their places in the data set; None = drawn, with replacement.
        """
        if cases is None:
            cases = torch.randint(len(self.images), (self.batch_size,)).tolist()
        boxes = [self._box(case) for case in cases]
        image = torch.stack([self.images[c][box] for c, box in zip(cases, boxes, strict=True)])
        label = torch.stack([self.labels[c][box] for c, box in zip(cases, boxes, strict=True)])
        flips = {
            axis: torch.rand(len(cases)) < chance for axis, chance in self.changes.flips.items()
        }
        image, label = (flip(part, flips) for part in (image, label))
        return {
            "image": scale(image, self._factors(*image.shape[:2])),
            "label": label.float(),
            "present": self.present[cases],
            "case": [self.names[case] for case in cases],
        }

    def _box(self, case: int) -> tuple[slice, ...]:
        """Draw a crop of a case, as RandCropByPosNegLabel does: slices of (C, D, H, W)."""
        at_tumour = bool(torch.rand(()) < self.changes.tumour_share)
        places = self.inside[case] if at_tumour else self.outside[case]
        if not len(places):
            # A case without a tumour, or nothing else than it: the other kind serves.
            places = self.outside[case] if at_tumour else self.inside[case]
        shape = self.images[case].shape[1:]
        index = int(places[int(torch.randint(len(places), ()))])
        centre = [int(i) for i in np.unravel_index(index, shape)]
        centre = correct_crop_centers(centre, self.changes.roi_size, shape)
        corner = [c - n // 2 for c, n in zip(centre, self.changes.roi_size, strict=True)]
        sides = zip(corner, self.changes.roi_size, strict=True)
        return (slice(None), *(slice(low, low + n) for low, n in sides))

    def _factors(self, cases: int, modalities: int) -> Tensor:
        """Draw what each scan of a batch is multiplied by: (B, M), 1 = left as it is."""
        low, high = self.changes.scale_range
        drawn = 1 + low + (high - low) * torch.rand(cases, modalities)
        changed = torch.rand(cases, 1) < self.changes.scale_chance
        return torch.where(changed, drawn, 1.0)


def _places(mask: Tensor) -> Tensor:
    return mask[0].flatten().nonzero().flatten().cpu()


def flip(volume: Tensor, flips: Mapping[int, Tensor]) -> Tensor:
    """Flip some volumes of a batch.

    Args:
        volume: (B, C, D, H, W).
        flips: axis of D, H, W -> (B,) bool, True = flip this one.
    """
    for axis, chosen in flips.items():
        if bool(chosen.any()):
            rows = chosen.nonzero().flatten().to(volume.device)
            volume[rows] = volume[rows].flip(axis + 2)
    return volume


def scale(image: Tensor, factors: Tensor) -> Tensor:
    """Multiply each scan of a batch: image (B, M, D, H, W), factors (B, M)."""
    return image * factors.to(image.device, image.dtype)[..., None, None, None]
