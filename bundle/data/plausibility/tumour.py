"""What a label says about itself, and whether it lies where the images show something."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import fft, ndimage

from bundle.data.plausibility.coarse import CODES, RIM
from bundle.data.plausibility.contrast import LEAST_VOXELS

# How far the label is moved to look for a better place, in coarse voxels.
_REACH = 12


def nesting_numbers(parts: np.ndarray) -> dict[str, float]:
    """Measure how much of each part's surface faces what is no tumour: "open PART", 0 to 1.

    Args:
        parts: (D, H, W) uint8 of `CODES`, all voxels: a rim may be two of them thick.
    """
    box = _box_around(parts > 0, 0)
    if box is None:
        return {}
    parts = np.pad(parts[box], 1)
    numbers = {}
    for part, code in CODES.items():
        inside = parts == code
        if np.count_nonzero(inside) < LEAST_VOXELS:
            continue
        beside = [np.roll(parts, step, axis)[inside] for axis in range(3) for step in (-1, 1)]
        faces = sum(int(np.count_nonzero(other != code)) for other in beside)
        numbers[f"open {part}"] = sum(int(np.count_nonzero(o == 0)) for o in beside) / faces
    return numbers


def fit_numbers(parts: np.ndarray, volumes: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Measure whether the label would fit better in another place.

    The outline is laid over the images at every shift of up to 12 coarse voxels, all at once by
    Fourier transforms. The fit is high where what is bright ends at the outline: the tumour on
    FLAIR and T2, the rim on T1ce. T2 alone is not enough: fluid is as bright on it as oedema.

    Args:
        parts: (d, h, w) uint8 of `CODES`.
        volumes: BraTS modality -> (d, h, w) float32, 0 outside the brain.

    Returns:
        "label shift": how far off the best place is, in coarse voxels. "label fit": the fit where
        the label lies, as a share of the best one.
    """
    tumour = parts > 0
    if np.count_nonzero(tumour) < LEAST_VOXELS:
        return {}
    brain = np.any([volume != 0 for volume in volumes.values()], axis=0)
    numbers: dict[str, float] = {}
    box = _box_around(tumour, _REACH + 4)
    bright = {"flair": tumour, "t2": tumour, "t1ce": parts == CODES[RIM]}
    usable = [
        name
        for name, wanted in bright.items()
        if name in volumes and np.count_nonzero(wanted) >= LEAST_VOXELS
    ]
    if usable not in ([], ["t2"]) and brain[box].any():
        fits = [_fit_everywhere(volumes[n][box], bright[n][box], brain[box]) for n in usable]
        fit = np.sum(fits, axis=0)
        best = np.array(np.unravel_index(fit.argmax(), fit.shape))
        numbers["label shift"] = float(np.linalg.norm(best - _REACH))
        numbers["label fit"] = float(fit[_REACH, _REACH, _REACH] / max(fit.max(), 1e-6))
    return numbers


def _fit_everywhere(volume: np.ndarray, wanted: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Correlate an image with an outline at every shift: (25, 25, 25) float, no shift amidst."""
    low, middle, high = np.quantile(volume[brain], (0.25, 0.5, 0.75))
    # Clipped, for a vessel or a border of the brain must not outweigh a whole tumour.
    scaled = np.clip((volume - middle) / max(high - low, 1e-6), -2, 2)
    image = np.where(brain, scaled, 0).astype(np.float32)
    mask = wanted.astype(np.float32)
    near, far = (ndimage.gaussian_filter(mask, sigma, mode="constant") for sigma in (0.7, 2.0))
    outline = near - far
    shape = [fft.next_fast_len(n + 2 * _REACH, real=True) for n in mask.shape]
    product = fft.rfftn(image, shape) * np.conj(fft.rfftn(outline, shape))
    fit = np.roll(fft.irfftn(product, shape), (_REACH,) * 3, (0, 1, 2))
    return fit[tuple([slice(0, 2 * _REACH + 1)] * 3)] / np.linalg.norm(outline)


def _box_around(mask: np.ndarray, margin: int) -> tuple[slice, ...] | None:
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return None
    return tuple(slice(max(0, side.start - margin), side.stop + margin) for side in found[0])
