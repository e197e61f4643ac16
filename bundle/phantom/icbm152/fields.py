"""Random fields that are smooth, and values between the voxels of an array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import Generator
from scipy import ndimage
from torch.nn import functional


def smooth_field(
    rng: Generator, shape: Sequence[int], width: float, spacing: float = 1.0
) -> np.ndarray:
    """Draw a smooth random field.

    Drawn on a coarse grid and zoomed where it may be, which is much cheaper.

    Args:
        rng: the source of randomness.
        shape: (D, H, W).
        width: of the smoothing Gaussian; structures are about four times as wide.
        spacing: edge of a voxel in the unit of `width`.

    Returns:
        (D, H, W) float32, mean 0, standard deviation 1.
    """
    sigma = width / spacing
    step = max(1, int(sigma / 1.5))
    coarse = [-(-n // step) + 1 for n in shape]
    white = rng.standard_normal(coarse, dtype=np.float32)
    field = ndimage.gaussian_filter(white, sigma / step, mode="wrap", truncate=3.0)
    if step > 1:
        wanted = [n * step for n in coarse]
        field = functional.interpolate(
            torch.from_numpy(field)[None, None], wanted, mode="trilinear", align_corners=True
        )[0, 0].numpy()
    field = field[tuple(slice(n) for n in shape)]
    return ((field - field.mean()) / field.std()).astype(np.float32)


def values_at(volume: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Read a volume between its voxels, trilinearly, 0 outside of it.

    PyTorch does this five times as fast as scipy.

    Args:
        volume: (D, H, W) or (C, D, H, W) float32.
        points: (3, d, h, w) float32, in voxels of the volume.

    Returns:
        (d, h, w) or (C, d, h, w) float32.
    """
    channels = torch.from_numpy(np.ascontiguousarray(volume.reshape(-1, *volume.shape[-3:])))
    sizes = np.array(volume.shape[-3:], np.float32)[:, None, None, None]
    # From -1 to 1 between the centres of the outer voxels; the last axis comes first.
    places = torch.from_numpy((2 * points / (sizes - 1) - 1)[::-1].copy()).permute(1, 2, 3, 0)
    read = functional.grid_sample(channels[None], places[None], align_corners=True)
    return read[0].numpy().reshape(*volume.shape[:-3], *points.shape[1:])


def grid_points(shape: Sequence[int], spacing: float) -> np.ndarray:
    """Give the place of every voxel in mm, 0 in the middle of the grid: (3, D, H, W) float32."""
    axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * spacing for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def blob(shape: Sequence[int], centre: Sequence[float], stretch: np.ndarray) -> np.ndarray:
    """Measure the distance to a point in voxels, along stretched and turned axes.

    Args:
        shape: (D, H, W).
        centre: the point, voxels.
        stretch: (3, 3) float, multiplies the offset from the point.

    Returns:
        (D, H, W) float32.
    """
    axes = [np.arange(n, dtype=np.float32) - c for n, c in zip(shape, centre, strict=True)]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"))
    turned = np.tensordot(stretch.astype(np.float32), offsets, axes=1)
    return np.sqrt((turned**2).sum(0))


def turned_stretch(rng: Generator, most: float) -> np.ndarray:
    """Draw a stretch for `blob`: axes turned at random, each longer or shorter by up to `most`."""
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return np.diag(np.exp(rng.uniform(-1, 1, 3) * np.log(most))) @ turn
