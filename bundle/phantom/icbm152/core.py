"""The core of a tumour: lumps, an enhancing rim with gaps and nodules, necrosis within."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from bundle.phantom.icbm152.fields import blob, smooth_field, turned_stretch
from bundle.phantom.icbm152.head import Tissue


@dataclass(frozen=True)
class CorePlan:
    """What a core is to be like.

    Attributes:
        volume_ml: of all foci together.
        foci: how many.
        rim_share: of the core's volume that enhances, 0..1; 0 = none.
        solid_share: of the core's volume that is solid and does not enhance.
        has_blood, has_calcium: True = patches of it.
    """

    volume_ml: float
    foci: int
    rim_share: float
    solid_share: float
    has_blood: bool
    has_calcium: bool


def core_distance(
    rng: Generator, plan: CorePlan, centre: np.ndarray, allowed: np.ndarray, spacing_mm: float
) -> np.ndarray:
    """Measure how far out a voxel is, as the core sees it: lumpy, in mm, (D, H, W) float32.

    Args:
        rng: the source of randomness.
        plan: the core's.
        centre: voxels.
        allowed: (D, H, W) bool, where a core may be; infinite elsewhere.
        spacing_mm: edge of a voxel.
    """
    shape = allowed.shape
    radius = np.cbrt(plan.volume_ml / plan.foci * 1000 * 0.239)
    stretch = turned_stretch(rng, 1.45)
    distance = blob(shape, centre, stretch)
    for _ in range(rng.integers(1, 4)):
        lobe = centre + rng.normal(0, 0.55, 3) * radius / spacing_mm
        distance = np.minimum(distance, blob(shape, lobe, stretch) + 0.2 * radius / spacing_mm)
    inner = np.argwhere(allowed)
    for _ in range(plan.foci - 1):
        near = np.linalg.norm(inner - centre, axis=1) * spacing_mm
        # A second focus is near the first, yet apart from it.
        spots = inner[(near > 1.6 * radius) & (near < 3.2 * radius)]
        if len(spots):
            satellite = blob(shape, rng.choice(spots), turned_stretch(rng, 1.3))
            distance = np.minimum(distance, satellite + rng.uniform(0.1, 0.5) * radius / spacing_mm)
    lumps = smooth_field(rng, shape, max(0.3 * radius, 1.5), spacing_mm)
    distance = distance * spacing_mm + 0.16 * radius * lumps
    return np.where(allowed, distance, np.inf).astype(np.float32)


def fill_core(
    rng: Generator, plan: CorePlan, distance: np.ndarray, spacing_mm: float
) -> dict[Tissue, np.ndarray]:
    """Fill a core with its tissues.

    Args:
        rng: the source of randomness.
        plan: the core's.
        distance: of `core_distance`.
        spacing_mm: edge of a voxel.

    Returns:
        (D, H, W) float32 in 0..1 by tissue: RIM, NECROSIS, SOLID, BLOOD, CALCIUM; their sum is 1
        inside the core and falls to 0 over a voxel's width at its edge.
    """
    wanted = min(round(plan.volume_ml * 1000 / spacing_mm**3), np.isfinite(distance).sum() - 1)
    edge = np.partition(distance, wanted, axis=None)[wanted]
    inside = ndimage.binary_fill_holes(distance <= edge)
    allowed = np.isfinite(distance)
    share = _soft(edge - np.where(allowed, distance, edge), 0.7 * spacing_mm)
    # A voxel enclosed by the core is the core's, whatever its distance says.
    share = np.where(allowed, np.maximum(share, 0.5 * inside), 0)
    parts = {
        tissue: np.zeros(distance.shape, np.float32)
        for tissue in (Tissue.RIM, Tissue.NECROSIS, Tissue.SOLID, Tissue.BLOOD, Tissue.CALCIUM)
    }
    rim = rim_of(rng, plan, inside, spacing_mm)
    solid = solid_of(rng, plan, inside, spacing_mm)
    enhancing = rim * (1 - solid)
    parts[Tissue.RIM] = enhancing
    parts[Tissue.SOLID] = solid
    rest = np.clip(1 - enhancing - solid, 0, 1)
    if plan.has_blood:
        patch = _soft(smooth_field(rng, inside.shape, 3, spacing_mm) - 1.0, 0.2)
        parts[Tissue.BLOOD] = rest * patch
        rest = rest * (1 - patch)
    if plan.has_calcium:
        specks = _soft(smooth_field(rng, inside.shape, 1.5, spacing_mm) - 2.0, 0.2)
        parts[Tissue.CALCIUM] = rest * specks
        rest = rest * (1 - specks)
    parts[Tissue.NECROSIS] = rest
    return {tissue: (share * part).astype(np.float32) for tissue, part in parts.items()}


def rim_of(rng: Generator, plan: CorePlan, inside: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Let the outer part of the core enhance, thick here and thin or open there.

    Returns:
        (D, H, W) float32 in 0..1; about `plan.rim_share` of the core's volume.
    """
    if plan.rim_share <= 0:
        return np.zeros(inside.shape, np.float32)
    depth = ndimage.distance_transform_edt(inside) * spacing_mm
    uneven = smooth_field(rng, inside.shape, 5, spacing_mm)
    ragged = smooth_field(rng, inside.shape, 2, spacing_mm)
    # How deep a voxel lies in units of the rim's own thickness there.
    relative = (depth - 0.3) * np.exp(-0.45 * uneven - 0.2 * ragged)
    nodules = smooth_field(rng, inside.shape, 3.2, spacing_mm)
    relative = relative - 7 * np.clip(nodules - 1.5, 0, None)
    septa = smooth_field(rng, inside.shape, 4, spacing_mm)
    relative = relative * np.where(np.abs(septa) < 0.12, 0.55, 1)
    ordered = np.sort(relative[inside])
    edge = ordered[min(int(plan.rim_share * len(ordered)), len(ordered) - 1)]
    gaps = _soft(2.1 - smooth_field(rng, inside.shape, 4.5, spacing_mm), 0.15)
    return (_soft(edge - relative, 0.5) * gaps * inside).astype(np.float32)


def solid_of(rng: Generator, plan: CorePlan, inside: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Let parts of the core be solid without enhancing: (D, H, W) float32 in 0..1."""
    if plan.solid_share <= 0:
        return np.zeros(inside.shape, np.float32)
    field = smooth_field(rng, inside.shape, 7, spacing_mm)
    ordered = np.sort(field[inside])
    edge = ordered[min(int((1 - plan.solid_share) * len(ordered)), len(ordered) - 1)]
    return (_soft(field - edge, 0.15) * inside).astype(np.float32)


def _soft(values: np.ndarray, width: float) -> np.ndarray:
    """Rise from 0 to 1 where values change their sign."""
    return (0.5 + 0.5 * np.tanh(values / width)).astype(np.float32)
