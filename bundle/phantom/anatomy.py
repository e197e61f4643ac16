"""What a phantom head is made of: a folded brain, what merely looks like disease, and a tumour.

Arrays are (D, H, W) = (towards the left, towards the back, towards the crown) of a cube; lengths
are voxels, or shares of the cube so that a larger cube holds a larger brain and not more folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.random import Generator
from scipy import ndimage

NECROSIS_LABEL, OEDEMA_LABEL, RIM_LABEL = 1, 2, 4
WITHOUT_RIM_SHARE = 0.25


class Tissue(IntEnum):
    """What a voxel consists of; 0 is outside the brain."""

    OUTSIDE = 0
    FLUID = 1
    GREY = 2
    WHITE = 3
    VESSEL = 4
    SPOT = 5  # a white-matter hyperintensity: bright on FLAIR, and no tumour
    OEDEMA = 6
    RIM = 7
    NECROSIS = 8
    SOLID = 9  # the core of a tumour that takes up no contrast agent


@dataclass(frozen=True)
class Anatomy:
    """One head.

    Attributes:
        host: (D, H, W) uint8, the `Tissue` there would be without a tumour, 0 = outside the brain.
        tumour: (D, H, W) uint8, the tumour's `Tissue`, 0 = none.
        density: (D, H, W) float32 in 0..1, how much of the voxel the tumour has taken over.
        labels: (D, H, W) uint8, 0 background, 1 necrotic or solid core, 2 oedema, 4 enhancing rim.
    """

    host: np.ndarray
    tumour: np.ndarray
    density: np.ndarray
    labels: np.ndarray


def smooth_noise(rng: Generator, size: int, sigma: float) -> np.ndarray:
    """Draw a smooth random field: (size, size, size) float32, mean 0, standard deviation 1.

    Args:
        rng: the source of randomness.
        size: edge of the cube, voxels.
        sigma: width of the smoothing Gaussian, voxels; structures are about four times as wide.
    """
    white = rng.standard_normal((size,) * 3, dtype=np.float32)
    field = ndimage.gaussian_filter(white, sigma, mode="wrap", truncate=3.0)
    return (field - field.mean()) / field.std()


def grow_anatomy(rng: Generator, size: int, has_rim: bool, difficulty: float) -> Anatomy:
    """Grow one head.

    Args:
        rng: the source of randomness.
        size: edge of the cube, voxels.
        has_rim: False = a low-grade tumour, a solid core (label 1) without an enhancing rim.
        difficulty: 0..1; raises the number of look-alikes and blurs the oedema's edge.
    """
    depth, host = grow_brain(rng, size)
    add_look_alikes(rng, host, depth, difficulty)
    core = grow_core(rng, host, depth)
    oedema = grow_oedema(rng, host, core)
    rim = grow_rim(rng, core) if has_rim else np.zeros_like(core)

    labels = np.zeros(host.shape, np.uint8)
    labels[oedema] = OEDEMA_LABEL
    labels[core] = NECROSIS_LABEL
    labels[rim] = RIM_LABEL

    tumour = np.zeros(host.shape, np.uint8)
    tumour[oedema] = Tissue.OEDEMA
    tumour[core] = Tissue.NECROSIS if has_rim else Tissue.SOLID
    tumour[rim] = Tissue.RIM
    # A core has no folds left, so none may shine through where it is faint.
    host[core] = Tissue.GREY
    return Anatomy(host, tumour, fade_out(rng, core, oedema, difficulty), labels)


def grow_brain(rng: Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Fold a cortex around white matter, with ventricles and deep grey nuclei inside.

    Returns:
        depth: (D, H, W) float32, 0 at the surface, near 1 in the centre, negative outside.
        host: (D, H, W) uint8 `Tissue`.
    """
    across, back, up = np.meshgrid(*[np.linspace(-1, 1, size)] * 3, indexing="ij", sparse=True)
    wide, long, high = rng.uniform(0.94, 1.04, 3) * (0.82, 0.94, 0.84)
    radius = np.sqrt((across / wide) ** 2 + (back / long) ** 2 + (up / high) ** 2)
    depth = 1 - radius + 0.03 * smooth_noise(rng, size, size / 10)
    folds = np.abs(smooth_noise(rng, size, size / 24))

    host = np.where(depth > 0, Tissue.WHITE, Tissue.OUTSIDE).astype(np.uint8)
    host[(depth > 0) & ((depth < 0.13) | ((folds < 0.65) & (depth < 0.34)))] = Tissue.GREY
    host[(depth > 0) & ((depth < 0.03) | ((folds < 0.14) & (depth < 0.28)))] = Tissue.FLUID
    bend = 0.25 * smooth_noise(rng, size, size / 12)
    midline = np.abs(across + 0.1 * bend) < 0.025
    host[(depth > 0) & midline & (depth < 0.4)] = Tissue.FLUID
    for side in (-1, 1):
        nucleus = (
            ((across - 0.28 * side) / 0.13) ** 2 + (back / 0.25) ** 2 + ((up + 0.12) / 0.16) ** 2
        )
        ventricle = ((across - 0.12 * side) / 0.085) ** 2 + ((back - 0.05) / 0.36) ** 2
        ventricle = ventricle + ((up - 0.08 - 0.2 * back**2) / 0.13) ** 2
        host[nucleus + bend < 1] = Tissue.GREY
        host[ventricle + bend < 1] = Tissue.FLUID
    return depth, host


def add_look_alikes(rng: Generator, host: np.ndarray, depth: np.ndarray, difficulty: float) -> None:
    """Scatter what one modality alone takes for tumour: vessels, white-matter spots, cysts.

    Vessels and knots of them take up contrast agent as a rim does, spots are bright on FLAIR as
    oedema is, cysts are as dark on T1 and as bright on T2 as necrosis.

    Args:
        rng: the source of randomness.
        host: (D, H, W) uint8 `Tissue`, changed in place.
        depth: (D, H, W), 0 at the brain's surface.
        difficulty: 0..1; there are none at 0.
    """
    size = len(host)
    first, second = (smooth_noise(rng, size, size / 16) for _ in range(2))
    # Two fields vanish together along lines: a tree of vessels for the price of two noises.
    vessels = np.hypot(first, second) < 0.22 * difficulty
    host[vessels & (depth > 0.02) & (depth < 0.55)] = Tissue.VESSEL

    kinds = [(Tissue.SPOT, Tissue.WHITE, 12, 0.075), (Tissue.FLUID, Tissue.WHITE, 4, 0.05)]
    kinds += [(Tissue.VESSEL, Tissue.GREY, 6, 0.05)]
    for tissue, home, most, radius in kinds:
        for _ in range(rng.binomial(most, 0.6 * difficulty)):
            centre = rng.choice(np.argwhere(host == home))
            blob = blob_around(rng, size, centre) < size * radius * rng.uniform(0.4, 1)
            host[blob & (depth > 0.02) & (host != Tissue.FLUID)] = tissue


def blob_around(rng: Generator, size: int, centre: np.ndarray) -> np.ndarray:
    """Measure the distance to a point, longer along some axes: (D, H, W) float, voxels."""
    stretch = rng.uniform(0.75, 1.35, 3)
    offsets = [(np.arange(size) - middle) * s for middle, s in zip(centre, stretch, strict=True)]
    return np.sqrt(sum(o**2 for o in np.meshgrid(*offsets, indexing="ij", sparse=True)))


def grow_core(rng: Generator, host: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Grow a lumpy core, 0.8 to 3.5 % of the brain and off its surface: (D, H, W) bool."""
    size = len(host)
    centre = rng.choice(np.argwhere((host == Tissue.WHITE) & (depth > 0.25) & (depth < 0.7)))
    distance = blob_around(rng, size, centre)
    lumps = distance + size * 0.035 * smooth_noise(rng, size, size / 16)
    lumps[depth < 0.1] = np.inf
    wanted = int(np.count_nonzero(host) * np.exp(rng.uniform(np.log(0.008), np.log(0.035))))
    core = ndimage.binary_fill_holes(lumps <= np.partition(lumps, wanted, axis=None)[wanted])
    parts, _ = ndimage.label(core)
    return parts == np.bincount(parts[core]).argmax()


def grow_oedema(rng: Generator, host: np.ndarray, core: np.ndarray) -> np.ndarray:
    """Spread oedema around the core: along white matter, around grey, not into fluid.

    Returns:
        (D, H, W) bool, 1 to 3 times the core's volume; a thin layer of it wraps the core wherever
        there is brain.
    """
    size = len(host)
    reach = ndimage.distance_transform_edt(~core)
    wrap = (reach > 0) & (reach <= 1.5) & (host > 0)
    reach = reach + size * 0.03 * smooth_noise(rng, size, size / 12)
    reach[host == Tissue.GREY] += size * 0.05
    reach[(host == Tissue.FLUID) | (host == Tissue.OUTSIDE) | core] = np.inf
    wanted = int(np.count_nonzero(core) * rng.uniform(1, 3))
    spread = wrap | (reach <= np.partition(reach, wanted, axis=None)[wanted])
    parts, _ = ndimage.label(spread | core)
    return (parts == parts[core][0]) & ~core


def grow_rim(rng: Generator, core: np.ndarray) -> np.ndarray:
    """Take the core's outermost 1 to 3 voxels: (D, H, W) bool, closed and of uneven thickness."""
    size = len(core)
    thickness = rng.uniform(1.2, 2.4) + 0.6 * smooth_noise(rng, size, size / 14)
    inwards = ndimage.distance_transform_edt(core)
    # A diagonal step is 1.42: without it the rim would leak at its corners.
    # A small core keeps at least its innermost voxels necrotic.
    most = np.clip(inwards.max() - 1, 1.42, 3)
    return core & (inwards <= np.clip(thickness, 1.42, most))


def fade_out(rng: Generator, core: np.ndarray, oedema: np.ndarray, difficulty: float) -> np.ndarray:
    """Thin the oedema out towards its edge: (D, H, W) float32 in 0..1, 0 outside the tumour."""
    from_core = ndimage.distance_transform_edt(~core)
    to_edge = ndimage.distance_transform_edt(core | oedema)
    inner = to_edge / np.maximum(from_core + to_edge, 1)
    patchy = 0.1 * smooth_noise(rng, len(core), len(core) / 24)
    thinned = 1 - difficulty * (0.3 * (1 - inner) + np.abs(patchy))
    return np.where(core, 1.0, np.where(oedema, np.clip(thinned, 0.2, 1), 0.0)).astype(np.float32)
