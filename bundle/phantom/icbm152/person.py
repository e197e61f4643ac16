"""One person: the template warped, aged, and with what merely looks like a tumour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from bundle.phantom.icbm152.fields import grid_points, smooth_field, values_at
from bundle.phantom.icbm152.head import Head, Tissue
from bundle.phantom.icbm152.template import template

# Years; BraTS's patients are mostly between 40 and 75.
AGES = (25.0, 80.0)
_SHARPNESS = 1.6


@dataclass(frozen=True)
class Person:
    """What is drawn of a person.

    Attributes:
        age: years; from 40 on ventricles and sulci widen and hyperintensities come.
        is_mirrored: True = left and right are swapped.
        stretch: (3, 3) float, template mm for each mm of the head.
        warp_mm: standard deviation of the smooth displacement.
        ventricles_mm: how far the ventricles' walls have moved outwards.
    """

    age: float
    is_mirrored: bool
    stretch: np.ndarray
    warp_mm: float
    ventricles_mm: float

    @property
    def decay(self) -> float:
        """0 up to 40 years, 1 at 80."""
        return max(0.0, (self.age - 40) / 40)


def draw_person(rng: Generator) -> Person:
    """Draw a person."""
    age = float(np.clip(rng.normal(58, 12), *AGES))
    decay = max(0.0, (age - 40) / 40)
    # A head is as large as the template within 8 %, and a little skewed.
    stretch = np.diag(1 / (rng.uniform(0.94, 1.06) * rng.uniform(0.97, 1.03, 3)))
    stretch = stretch + rng.uniform(-0.03, 0.03, (3, 3))
    ventricles = float(np.clip(rng.normal(0.4 + 2.6 * decay, 0.8), -0.8, 4.5))
    return Person(age, bool(rng.random() < 0.5), stretch, rng.uniform(1.5, 2.8), ventricles)


def grow_person(rng: Generator, person: Person, shape: Sequence[int], spacing_mm: float) -> Head:
    """Make a person's head, brain and meninges, without skull and tumour.

    Args:
        rng: the source of randomness.
        person: who.
        shape: (D, H, W) of the grid; its middle is the middle of the brain.
        spacing_mm: edge of a voxel, mm.
    """
    source = template()
    points = warped_points(rng, person, shape, spacing_mm)
    read = np.stack([source.fluid, source.grey, source.white, source.inside, source.texture])
    *parts, inside, texture = values_at(read, points)
    # Outside of the template there is no distance, only 0.
    brain = (inside > 0) & (sum(parts) > 0.5)
    fluid, grey, white = sharpen(rng, person, parts, inside, brain, spacing_mm)
    shares = {Tissue.FLUID: fluid, Tissue.GREY: grey, Tissue.WHITE: white}
    add_spots(rng, person, shares, points, spacing_mm)
    add_dura(rng, shares, points, inside, brain, spacing_mm)
    add_vessels(rng, shares, inside, brain, spacing_mm)
    texture = texture + 0.02 * smooth_field(rng, shape, 1.5, spacing_mm)
    return Head(shares, np.where(brain, texture, 0), brain, spacing_mm)


def warped_points(
    rng: Generator, person: Person, shape: Sequence[int], spacing_mm: float
) -> np.ndarray:
    """Say which point of the template each voxel shows: (3, D, H, W) float32, template voxels.

    The displacement changes by less than it needs to fold: its structures are 80 mm wide and its
    standard deviation is below 3 mm.
    """
    source = template()
    places = grid_points(shape, spacing_mm)
    if person.is_mirrored:
        places[0] *= -1
    points = np.tensordot(person.stretch.astype(np.float32), places, axes=1)
    for axis in range(3):
        points[axis] += person.warp_mm * smooth_field(rng, shape, 20, spacing_mm)
        points[axis] += 0.5 * smooth_field(rng, shape, 7, spacing_mm)
        points[axis] += source.centre[axis]
    # Whoever stands beside a ventricle sees what lies nearer to it: the ventricle is wider.
    return points + person.ventricles_mm * values_at(source.towards_ventricles, points)


def sharpen(
    rng: Generator,
    person: Person,
    parts: Sequence[np.ndarray],
    inside: np.ndarray,
    brain: np.ndarray,
    spacing_mm: float,
) -> list[np.ndarray]:
    """Turn the mean of many brains into one: crisper, with folds and sulci of its own.

    Args:
        rng: the source of randomness.
        person: whose sulci widen with age.
        parts: (D, H, W) shares of fluid, grey and white of the template.
        inside: (D, H, W), mm to the brain's surface.
        brain: (D, H, W) bool.
        spacing_mm: edge of a voxel.

    Returns:
        Shares of fluid, grey and white, which sum to 1 in the brain and are 0 outside.
    """
    outer = np.exp(-np.clip(inside, 0, None) / 9)
    folds = smooth_field(rng, inside.shape, 2.6, spacing_mm)
    # Where a field changes its sign there is a sheet: a sulcus on one side of which lies a gyrus.
    sulcus = np.exp(-((folds / 0.22) ** 2)) * outer
    fluid_bias = -0.1 + 0.9 * person.decay * outer + 2.8 * sulcus
    white_bias = 0.35 * folds * outer
    logits = [
        _SHARPNESS * np.log(np.clip(part, 1e-3, 1)) + bias
        for part, bias in zip(parts, (fluid_bias, 0.0, white_bias), strict=True)
    ]
    highest = np.maximum.reduce(logits)
    weights = [np.exp(logit - highest) for logit in logits]
    total = sum(weights)
    return [np.where(brain, weight / total, 0).astype(np.float32) for weight in weights]


def take_over(
    shares: dict[Tissue, np.ndarray],
    tissue: Tissue,
    amount: np.ndarray,
    keep: tuple[Tissue, ...] = (),
) -> None:
    """Let a tissue fill a part of what the others fill, in place; their sum stays.

    Args:
        shares: of the other tissues.
        tissue: the new one.
        amount: (D, H, W) in 0..1, the part that it takes of each other tissue's share.
        keep: tissues that give nothing.
    """
    taken = np.zeros_like(amount, dtype=np.float32)
    for other, share in shares.items():
        if other not in keep and other is not tissue:
            taken += amount * share
            shares[other] = (share * (1 - amount)).astype(np.float32)
    shares[tissue] = shares.get(tissue, 0) + taken


def add_spots(
    rng: Generator,
    person: Person,
    shares: dict[Tissue, np.ndarray],
    points: np.ndarray,
    spacing_mm: float,
) -> None:
    """Add hyperintensities of age to white matter: caps around the ventricles, and dots."""
    shape = shares[Tissue.WHITE].shape
    near = ndimage.gaussian_filter(
        (shares[Tissue.FLUID] > 0.6).astype(np.float32), 3.0 / spacing_mm
    )
    inner = np.linalg.norm(values_at(template().towards_ventricles, points), axis=0)
    caps = near * inner * 4 + 0.25 * smooth_field(rng, shape, 2.5, spacing_mm)
    dots = smooth_field(rng, shape, 2.0, spacing_mm)
    load = person.decay * rng.uniform(0.2, 1.2)
    amount = _soft(caps - (1.3 - 0.6 * load), 0.15) * min(1.0, 0.25 + load)
    amount = np.maximum(amount, _soft(dots - (4.2 - 1.1 * load), 0.3) * (load > 0.15))
    take_over(
        shares, Tissue.SPOT, 0.85 * amount * (shares[Tissue.WHITE] > 0.5), keep=(Tissue.FLUID,)
    )


def add_dura(
    rng: Generator,
    shares: dict[Tissue, np.ndarray],
    points: np.ndarray,
    inside: np.ndarray,
    brain: np.ndarray,
    spacing_mm: float,
) -> None:
    """Add what a skull stripping leaves of the meninges: patches at the surface, and the falx."""
    patches = smooth_field(rng, inside.shape, 18, spacing_mm) > rng.uniform(-0.2, 1.2)
    shell = patches & brain & (inside < rng.uniform(1.0, 2.2))
    middle = np.abs(points[0] - template().centre[0])
    falx = (middle < 0.9) & (shares[Tissue.FLUID] > 0.35) & (inside < 30)
    amount = np.where(shell, 0.55, np.where(falx, 0.45, 0)).astype(np.float32)
    take_over(shares, Tissue.DURA, amount)


def add_vessels(
    rng: Generator,
    shares: dict[Tissue, np.ndarray],
    inside: np.ndarray,
    brain: np.ndarray,
    spacing_mm: float,
) -> None:
    """Add vessels: thin lines, mostly in the sulci and between the halves."""
    first, second = (smooth_field(rng, inside.shape, 5, spacing_mm) for _ in range(2))
    # Two fields vanish together along lines.
    line = _soft(0.16 - np.hypot(first, second), 0.05)
    where = 0.25 + 0.75 * (shares[Tissue.FLUID] > 0.3)
    depth = np.where(inside < 22, 1.0, 0.25)
    take_over(shares, Tissue.VESSEL, (0.8 * line * where * depth * brain).astype(np.float32))


def _soft(values: np.ndarray, width: float) -> np.ndarray:
    """Rise from 0 to 1 where values change their sign."""
    return (0.5 + 0.5 * np.tanh(values / width)).astype(np.float32)
