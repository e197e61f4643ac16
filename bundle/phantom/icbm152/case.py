"""One case with real anatomy, in memory: a person, a tumour, a scanner, and its images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bundle.modalities import BRATS_MODALITIES
from bundle.phantom.case import has_rim
from bundle.phantom.icbm152.head import Head
from bundle.phantom.icbm152.person import draw_person, grow_person
from bundle.phantom.icbm152.scanner import draw_scanner, pool, take_image
from bundle.phantom.icbm152.signal import draw_relaxation
from bundle.phantom.icbm152.skull import add_skull
from bundle.phantom.icbm152.tumour import NECROSIS_LABEL, OEDEMA_LABEL, RIM_LABEL, grow_tumour

# What a stripped brain needs, with a margin for large heads; and with the skull.
BRAIN_MM = (168.0, 216.0, 168.0)
HEAD_MM = (192.0, 240.0, 192.0)
BRATS_SHAPE = (240, 240, 155)
# From this voxel size on, twice as fine a grid is worked on, so that tissues share voxels.
_WORKED_FINER_MM = 2.5


def make_case(
    seed: int,
    modalities: Sequence[str] = BRATS_MODALITIES,
    spacing_mm: Sequence[float] = (3.0, 3.0, 3.0),
    grid: str = "brain",
    head: bool = False,
    thick_slices: bool = False,
    scanner_seed: int | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Make one case in memory.

    Args:
        seed: the case's only source of randomness, with `scanner_seed`.
        modalities: names; the BraTS ones under any of their suffixes look as they should, any other
            gets a contrast of its own. A modality looks the same whatever others are asked for.
        spacing_mm: voxel size along left-right, front-back and down-up; whole multiples of the
            smallest.
        grid: 'brain' = as large as a head needs; 'brats' = 240 x 240 x 155 voxels.
        head: True = with skull, scalp, eyes and noise in the air; False = stripped.
        thick_slices: True = slices of 1 to 6 mm.
        scanner_seed: of the scanner; None = each case has its own. Cases of one scanner have the
            same contrast, resolution and gain.

    Returns:
        images: modality to (D, H, W) float32 whole numbers, at least 1 in the brain, 0 outside
            unless there is a head.
        labels: (D, H, W) uint8, 0 background, 1 necrotic or solid core, 2 oedema, 4 enhancing rim.
    """
    shape, slab, working_mm = working_grid(spacing_mm, grid, head)
    rng = np.random.default_rng([seed, 10])
    person = draw_person(rng)
    grown = grow_person(rng, person, shape, working_mm)
    grown, labels = grow_tumour(np.random.default_rng([seed, 11]), grown, has_rim(seed, "icbm152"))
    if head:
        grown = add_skull(np.random.default_rng([seed, 12]), grown)
    tissues = draw_relaxation(np.random.default_rng([seed, 13]))
    of_scanner = [seed, 14] if scanner_seed is None else [scanner_seed, 15]
    scanner = draw_scanner(np.random.default_rng(of_scanner), thick_slices)
    images = {
        modality: take_image(
            np.random.default_rng([seed, 16, *modality.encode()]),
            scanner,
            modality,
            grown,
            tissues,
            slab,
            has_air=head,
        )
        for modality in modalities
    }
    return images, pool_labels(labels, grown, slab)


def working_grid(
    spacing_mm: Sequence[float], grid: str = "brain", head: bool = False
) -> tuple[tuple[int, ...], tuple[int, ...], float]:
    """Say on which grid a case is made.

    Returns:
        Its shape; how many of its voxels make a stored one along each axis; and its voxel size, mm.
    """
    smallest = min(spacing_mm)
    finer = 2 if smallest >= _WORKED_FINER_MM else 1
    working_mm = smallest / finer
    slab = tuple(round(s / working_mm) for s in spacing_mm)
    if grid == "brats":
        stored = BRATS_SHAPE
    else:
        sizes = HEAD_MM if head else BRAIN_MM
        # Even, and never less than the sizes above.
        stored = tuple(2 * math.ceil(mm / s / 2) for mm, s in zip(sizes, spacing_mm, strict=True))
    return tuple(n * s for n, s in zip(stored, slab, strict=True)), slab, working_mm


def pool_labels(labels: np.ndarray, head: Head, slab: Sequence[int]) -> np.ndarray:
    """Label a stored voxel by what most of it is: first tumour or not, then core, then rim."""
    if tuple(slab) == (1, 1, 1):
        return labels
    whole, core, rim = (
        pool(part.astype(np.float32), slab)
        for part in (labels > 0, np.isin(labels, (NECROSIS_LABEL, RIM_LABEL)), labels == RIM_LABEL)
    )
    brain = pool(head.brain.astype(np.float32), slab) > 0.5
    pooled = np.zeros(whole.shape, np.uint8)
    inside = (whole >= 0.5) & brain
    pooled[inside] = OEDEMA_LABEL
    inside = inside & (core >= 0.5 * whole)
    pooled[inside] = NECROSIS_LABEL
    pooled[inside & (rim >= 0.5 * core)] = RIM_LABEL
    return pooled
