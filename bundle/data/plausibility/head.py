"""What a skull that was left on looks like: a cut head at the border, a dark ring around the brain.

x y z are the axes of a volume as stored; d h w those of its coarse copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

# Scalp and skull of an adult end 15 to 20 mm below the skin.
_RING_STEP_MM, _RING_REACH_MM = 2.0, 24.0
# Fewer voxels in a layer have no median worth telling.
_LEAST_LAYER = 50
# What is darker than a fifth of the brightest layer is no scalp.
_LEAST_BRIGHT = 0.2


def border_share(voxels: np.ndarray) -> float:
    """Measure how much of the volume's border is not 0, 0 to 1.

    A brain that a thick or short volume cuts off shows at both ends of one axis. A head does at two
    axes or three: neck, face and ears. So of the three axes, each with its fuller end, the middle
    one counts.

    Args:
        voxels: (D, H, W).
    """
    ends = [max(_share(voxels.take(end, axis)) for end in (0, -1)) for axis in range(3)]
    return sorted(ends)[1]


def ring_depth(volume: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Measure how dark a layer below the surface is, against what is above and below it.

    From the surface inwards a head has scalp, the black skull, and the brain. A stripped brain gets
    brighter or darker inwards, but not both.

    Args:
        volume: (d, h, w) float32, 0 in the air; z-scores below 0 are lifted above it.
        spacing_mm: of its voxels.

    Returns:
        The darkest layer's median as a share of the less bright one of its brightest neighbours
        outside and inside: 1 = no ring, 0 = a black one. nan = too few layers.
    """
    inside = _enclosed(volume != 0)
    depth_mm = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=spacing_mm)
    depth_mm = depth_mm[1:-1, 1:-1, 1:-1][inside]
    values = volume[inside]
    if not values.size:
        return float("nan")
    lift = min(0.0, float(values.min()))
    values = np.where(values != 0, values - lift, 0)
    # Most of the surface is seen along the two finer axes.
    step_mm = max(_RING_STEP_MM, sorted(spacing_mm)[1])
    layers = []
    for start_mm in np.arange(0, _RING_REACH_MM + step_mm, step_mm):
        layer = values[(depth_mm > start_mm) & (depth_mm <= start_mm + step_mm)]
        if layer.size < _LEAST_LAYER:
            break
        layers.append(float(np.median(layer)))
    shares = [1.0]
    for i in range(1, len(layers) - 1):
        beside = min(max(layers[:i]), max(layers[i + 1 :]))
        if beside > _LEAST_BRIGHT * max(layers):
            shares.append(layers[i] / beside)
    return min(shares) if len(layers) > 2 else float("nan")


def _share(face: np.ndarray) -> float:
    return np.count_nonzero(face) / face.size


def _enclosed(mask: np.ndarray) -> np.ndarray:
    """Mark what lies between voxels of a mask along two of the three axes at least: (d, h, w) bool.

    Two, for a head may be cut off at one end.
    """
    votes = np.zeros(mask.shape, np.uint8)
    for axis in range(3):
        before = np.maximum.accumulate(mask, axis)
        after = np.flip(np.maximum.accumulate(np.flip(mask, axis), axis), axis)
        votes += before & after
    return votes >= 2
