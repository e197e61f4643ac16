"""The mass effect: a tumour pushes the brain aside, and the skull holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from bundle.phantom.icbm152.fields import values_at
from bundle.phantom.icbm152.head import Head

# From so many mm below the brain's surface on it moves freely.
_HELD_MM = 14.0
# Nothing moves farther from the tumour's centre than so many of its radii.
_REACH = 3.5


def push_aside(head: Head, centre: Sequence[float], radius_mm: float, strength: float) -> Head:
    """Move the brain outwards from a point.

    Outside of a sphere the tissue keeps its volume; inside it is stretched to make room. Near the
    brain's surface and far from the sphere nothing moves.

    Args:
        head: before.
        centre: of the sphere, voxels.
        radius_mm: of the sphere.
        strength: 0..1, the share of the sphere's volume that is new.

    Returns:
        The head after; its brain is the same.
    """
    corner, shape = _box(head, centre, _REACH * radius_mm / head.spacing_mm)
    points = source_points(head, centre, radius_mm, strength, corner, shape)
    box = tuple(slice(low, low + n) for low, n in zip(corner, shape, strict=True))
    whole = np.stack([*head.shares.values(), head.texture])
    whole[(slice(None), *box)] = values_at(whole, points)
    *shares, texture = whole
    return replace(head, shares=dict(zip(head.shares, shares, strict=True)), texture=texture)


def source_points(
    head: Head,
    centre: Sequence[float],
    radius_mm: float,
    strength: float,
    corner: Sequence[int],
    shape: Sequence[int],
) -> np.ndarray:
    """Say from where each voxel of a box has been moved: (3, D, H, W) float32, voxels of the head.

    Args:
        head, centre, radius_mm, strength: as in `push_aside`.
        corner, shape: of the box, voxels.
    """
    axes = [np.arange(low, low + n, dtype=np.float32) for low, n in zip(corner, shape, strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"))
    middle = np.asarray(centre, np.float32)[:, None, None, None]
    offset = (places - middle) * head.spacing_mm
    far = np.maximum(np.sqrt((offset**2).sum(0)), 1e-3)
    new = strength * radius_mm**3
    came_from = np.where(
        far > radius_mm,
        np.cbrt(np.maximum(far**3 - new, 0)),
        far * np.cbrt(1 - strength),
    )
    box = tuple(slice(low, low + n) for low, n in zip(corner, shape, strict=True))
    depth = ndimage.distance_transform_edt(np.pad(head.brain[box], 1))[1:-1, 1:-1, 1:-1]
    held = np.clip(depth * head.spacing_mm / _HELD_MM, 0, 1)
    held = held * held * (3 - 2 * held)
    tapered = np.clip(1 - (far / (_REACH * radius_mm)) ** 2, 0, 1)
    moved = (far - came_from) * held * tapered
    return (places - offset / far * moved / head.spacing_mm).astype(np.float32)


def _box(head: Head, centre: Sequence[float], reach: float) -> tuple[list[int], list[int]]:
    low = [max(0, int(c - reach)) for c in centre]
    high = [min(n, int(c + reach) + 2) for c, n in zip(centre, head.brain.shape, strict=True)]
    return low, [h - lo for lo, h in zip(low, high, strict=True)]
