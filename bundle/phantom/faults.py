"""Faults that a case can have without being unreadable, planted into a good one.

Each is what people and converters really do: files swapped, label values of another data set, a
header in the wrong unit. A fault is planted into voxels in memory; no file is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from bundle.phantom.anatomy import NECROSIS_LABEL, OEDEMA_LABEL, RIM_LABEL


@dataclass(frozen=True)
class Case:
    """A case in memory.

    Attributes:
        images: modality -> (D, H, W) float32, 0 outside the brain.
        labels: (D, H, W) uint8 of 0, 1, 2 and 4.
        spacing_mm: the voxel size along each axis.
    """

    images: Mapping[str, np.ndarray]
    labels: np.ndarray
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Fault:
    """A fault, and the rules that are meant to find it.

    Attributes:
        plant: gives the faulty case; the case that it is given stays as it is.
        rules: of `bundle.data.plausibility.rules.RULES`.
        needs: the modalities without which there is no such fault.
        least: how many modalities a case must have.
    """

    plant: Callable[[Generator, Case], Case]
    rules: tuple[str, ...]
    needs: tuple[str, ...] = ()
    least: int = 1


def swap_images(first: str, second: str) -> Callable[[Generator, Case], Case]:
    """Return the fault of two files under each other's name."""

    def plant(rng: Generator, case: Case) -> Case:
        images = {**case.images, first: case.images[second], second: case.images[first]}
        return replace(case, images=images)

    return plant


def swap_labels(first: int, second: int) -> Callable[[Generator, Case], Case]:
    """Return the fault of two label values that mean each other."""

    def plant(rng: Generator, case: Case) -> Case:
        table = np.arange(256, dtype=np.uint8)
        table[[first, second]] = second, first
        return replace(case, labels=table[case.labels])

    return plant


def make_binary(rng: Generator, case: Case) -> Case:
    """Give the whole tumour one value."""
    return replace(case, labels=(case.labels > 0).astype(np.uint8))


def move_label(rng: Generator, case: Case) -> Case:
    """Move the label by 3 to 8 voxels in any direction; where there are many small voxels, more."""
    direction = rng.standard_normal(3)
    scale = max(1.0, max(case.labels.shape) / 64)
    shift = np.rint(direction / np.linalg.norm(direction) * rng.uniform(3, 8) * scale).astype(int)
    return replace(case, labels=np.roll(case.labels, shift, (0, 1, 2)))


def mirror_label(rng: Generator, case: Case) -> Case:
    """Mirror the label along the first axis."""
    return replace(case, labels=case.labels[::-1].copy())


def mirror_image(rng: Generator, case: Case) -> Case:
    """Mirror one modality along the first axis."""
    name = str(rng.choice(list(case.images)))
    return replace(case, images={**case.images, name: case.images[name][::-1].copy()})


def fill_background(rng: Generator, case: Case) -> Case:
    """Shift one modality so that its background is a constant other than 0."""
    name = str(rng.choice(list(case.images)))
    shift = float(rng.choice([-1024, -1, 1, 100]))
    return replace(case, images={**case.images, name: case.images[name] + shift})


def keep_head(rng: Generator, case: Case) -> Case:
    """Leave scalp, and the noise of the air, in every modality."""
    return _with_scalp(rng, case, air=0.03)


def keep_scalp(rng: Generator, case: Case) -> Case:
    """Leave the scalp in every modality; the air is exactly 0."""
    return _with_scalp(rng, case, air=0.0)


def scale_spacing(factor: float) -> Callable[[Generator, Case], Case]:
    """Return the fault of a header in another unit."""

    def plant(rng: Generator, case: Case) -> Case:
        spacing = tuple(size * factor for size in case.spacing_mm)
        return replace(case, spacing_mm=spacing)

    return plant


def copy_image(rng: Generator, case: Case) -> Case:
    """Put one modality's file under another's name, too."""
    source, target = rng.choice(list(case.images), 2, replace=False)
    return replace(case, images={**case.images, str(target): case.images[str(source)]})


def copy_case(rng: Generator, case: Case) -> Case:
    """Take the case once more: turned over, or in a larger volume, and with another header."""
    axis = int(rng.integers(3))
    if rng.random() < 0.5:
        images = {name: np.flip(voxels, axis) for name, voxels in case.images.items()}
        return replace(case, images=images, labels=np.flip(case.labels, axis))
    pad = [(2, 3) if a == axis else (0, 0) for a in range(3)]
    images = {name: np.pad(voxels, pad) for name, voxels in case.images.items()}
    spacing = tuple(1.1 * size for size in case.spacing_mm)
    return Case(images, np.pad(case.labels, pad), spacing)


def _with_scalp(rng: Generator, case: Case, air: float) -> Case:
    brain = np.any([voxels != 0 for voxels in case.images.values()], axis=0)
    away = ndimage.distance_transform_edt(~brain)
    thick = max(2.0, max(brain.shape) / 24)
    scalp = (away > thick / 2) & (away <= 1.5 * thick)
    images = {}
    for name, voxels in case.images.items():
        level = float(np.median(voxels[brain]))
        noise = np.hypot(*(air * level * rng.standard_normal((2, *brain.shape))))
        outside = np.where(scalp, level * rng.uniform(0.8, 1.6), 0) + noise
        images[name] = np.where(brain, voxels, outside).astype(np.float32)
    return replace(case, images=images)


_LABEL_RULES = ("label_moved", "label_outside", "oedema_dark")
FAULTS: Mapping[str, Fault] = {
    "t1 and t1ce swapped": Fault(
        swap_images("t1", "t1ce"), ("agent_in_rim", "agent_in_brain"), ("t1", "t1ce")
    ),
    "t1 and t2 swapped": Fault(swap_images("t1", "t2"), ("t1_order", "t2_order"), ("t1", "t2")),
    "t2 and flair swapped": Fault(
        swap_images("t2", "flair"), ("t2_flair", "t2_order"), ("t2", "flair")
    ),
    "necrosis and oedema swapped": Fault(
        swap_labels(NECROSIS_LABEL, OEDEMA_LABEL), ("necrosis_outside",)
    ),
    "oedema and rim swapped": Fault(
        swap_labels(OEDEMA_LABEL, RIM_LABEL), ("rim_outside", "rim_dark", "agent_elsewhere")
    ),
    "necrosis and rim swapped": Fault(
        swap_labels(NECROSIS_LABEL, RIM_LABEL), ("rim_dark", "agent_elsewhere")
    ),
    "binary mask": Fault(make_binary, ("one_label",)),
    "label moved": Fault(move_label, _LABEL_RULES),
    "label mirrored": Fault(mirror_label, _LABEL_RULES),
    "modality mirrored": Fault(mirror_image, ("mirrored", "masks"), least=2),
    "background constant": Fault(fill_background, ("background", "corners")),
    "head with noise": Fault(keep_head, ("background", "corners")),
    "head without noise": Fault(keep_scalp, ("background", "corners")),
    "spacing times ten": Fault(scale_spacing(10), ("voxel_large", "head_large")),
    "spacing divided by ten": Fault(scale_spacing(0.1), ("voxel_small", "head_small")),
    "one file twice": Fault(copy_image, ("same_file",), least=2),
    "same patient twice": Fault(copy_case, ("same_scan",)),
}


def drop_some(rng: Generator, case: Case, fault: Fault | None = None) -> Case:
    """Take modalities away in every other case, but not those that a fault needs.

    Args:
        rng: the source of randomness.
        case: the case.
        fault: the fault to come; None = any modality may go, but one.
    """
    if rng.random() < 0.5:
        return case
    needs, least = (fault.needs, fault.least) if fault else ((), 1)
    names = [str(name) for name in rng.permutation([n for n in case.images if n not in needs])]
    keep = {*needs, *names[: max(least - len(needs), int(rng.integers(len(names) + 1)))]}
    return replace(case, images={n: v for n, v in case.images.items() if n in keep})


def can_have(case: Case, fault: Fault) -> bool:
    """True = the case has the modalities that the fault needs."""
    return set(fault.needs) <= set(case.images) and len(case.images) >= fault.least
