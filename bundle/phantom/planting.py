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


@dataclass(frozen=True)
class Case:
    """A case in memory.

    Attributes:
        images: modality -> (D, H, W) float32, 0 outside the brain.
        labels: (D, H, W) uint8 of 0, 1, 2 and 4.
        spacing_mm: the voxel size along each axis.
        forms_mm: how far apart qform and sform of the first image are, 0 = they agree.
    """

    images: Mapping[str, np.ndarray]
    labels: np.ndarray
    spacing_mm: tuple[float, float, float]
    forms_mm: float = 0.0


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


def scale_copy(rng: Generator, case: Case) -> Case:
    """Put one modality's scan under another's name, too, stored with another gain."""
    source, target = (str(name) for name in rng.choice(list(case.images), 2, replace=False))
    scaled = _scale(case.images[source], float(rng.uniform(0.5, 4)))
    return replace(case, images={**case.images, target: scaled})


def put_label_as_image(rng: Generator, case: Case) -> Case:
    """Put the label under a modality's name."""
    name = str(rng.choice(list(case.images)))
    return replace(case, images={**case.images, name: case.labels.astype(np.float32)})


def cut_half_off(rng: Generator, case: Case) -> Case:
    """Leave half of one modality's brain, on one side of its middle."""
    name, axis = str(rng.choice(list(case.images))), int(rng.integers(3))
    voxels = np.moveaxis(case.images[name].copy(), axis, 0)
    half = len(voxels) // 2
    voxels[slice(None, half) if rng.random() < 0.5 else slice(half, None)] = 0
    return replace(case, images={**case.images, name: np.moveaxis(voxels, 0, axis)})


def leave_eight_voxels(rng: Generator, case: Case) -> Case:
    """Leave eight voxels of one modality."""
    name = str(rng.choice(list(case.images)))
    voxels = np.zeros_like(case.images[name])
    kept = rng.choice(np.flatnonzero(case.images[name]), 8, replace=False)
    voxels.flat[kept] = case.images[name].flat[kept]
    return replace(case, images={**case.images, name: voxels})


def move_label_out(rng: Generator, case: Case) -> Case:
    """Put the label into a corner of the volume, as one of another space lands there."""
    moved = case.labels
    for axis in range(3):
        filled = np.flatnonzero(case.labels.any(tuple(a for a in range(3) if a != axis)))
        to = -filled[0] if rng.random() < 0.5 else case.labels.shape[axis] - 1 - filled[-1]
        moved = np.roll(moved, to, axis)
    return replace(case, labels=moved)


def scale_over_volume(rng: Generator, case: Case) -> Case:
    """Turn every modality into z-scores of the whole volume, its background included."""
    return replace(case, images={n: (v - v.mean()) / v.std() for n, v in case.images.items()})


def add_noise_to_air(rng: Generator, case: Case) -> Case:
    """Leave the noise of the air around a brain without scalp, in every modality."""
    return replace(case, images={n: _with_air(rng, v) for n, v in case.images.items()})


def turn_head(rng: Generator, case: Case) -> Case:
    """Leave scalp and noise within a field of view that is turned, and 0 around it."""
    seen = _turned_view(rng, case.labels.shape)
    images = {n: np.where(seen, v, 0) for n, v in keep_head(rng, case).images.items()}
    return replace(case, images=images)


def part_forms(rng: Generator, case: Case) -> Case:
    """Let qform and sform of a header put the volume 1 to 50 mm apart."""
    return replace(case, forms_mm=float(rng.uniform(1, 50)))


def copy_case_scaled(rng: Generator, case: Case) -> Case:
    """Take the case once more, every scan stored with another gain."""
    gain = float(rng.uniform(0.5, 4))
    return replace(case, images={n: _scale(v, gain) for n, v in case.images.items()})


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


def _scale(voxels: np.ndarray, gain: float) -> np.ndarray:
    """Multiply and round to whole numbers, but leave none of the brain at 0."""
    return np.where(voxels != 0, np.maximum(np.rint(voxels * gain), 1), 0).astype(np.float32)


def _with_air(rng: Generator, voxels: np.ndarray) -> np.ndarray:
    level = 0.03 * float(np.median(voxels[voxels != 0]))
    noise = np.hypot(*(level * rng.standard_normal((2, *voxels.shape))))
    return np.where(voxels != 0, voxels, noise).astype(np.float32)


def _turned_view(rng: Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Mark the box (D, H, W) once it is turned by 20 to 40 degrees about two axes."""
    angles = np.deg2rad(rng.uniform(20, 40, 2))
    (c, s), (e, t) = ((np.cos(angle), np.sin(angle)) for angle in angles)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ [[1, 0, 0], [0, e, -t], [0, t, e]]
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"), -1)
    return (np.abs(at @ turn) <= 1).all(-1)
