"""What a skull that was left on looks like: a cut head at the border, a dark ring around the brain.

x y z are the axes of a volume as stored; d h w those of its coarse copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def ring_numbers(
    volumes: Mapping[str, np.ndarray], spacing_mm: Sequence[float]
) -> dict[str, float]:
    """Measure how dark a layer below the surface is, against what is above and below it.

    From the surface inwards a head has scalp, the black skull, and the brain. A stripped brain gets
    brighter or darker inwards, but not both.

    Args:
        volumes: modality -> (d, h, w) float32, 0 in the air; z-scores below 0 are lifted above it.
            Their outlines are about the same.
        spacing_mm: of their voxels.

    Returns:
        "ring NAME": the darkest layer's median as a share of the less bright one of its brightest
        neighbours outside and inside: 1 = no ring, 0 = a black one. nan = too few layers.
    """
    if not volumes:
        return {}
    inside = _enclosed(np.any([volume != 0 for volume in volumes.values()], axis=0))
    depth_mm = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=spacing_mm)
    depth_mm = depth_mm[1:-1, 1:-1, 1:-1][inside]
    # Most of the surface is seen along the two finer axes.
    step_mm = max(_RING_STEP_MM, sorted(spacing_mm)[1])
    layer_of = np.ceil(depth_mm / step_mm).astype(int) - 1
    counts = np.bincount(layer_of, minlength=1)[: int(np.ceil(_RING_REACH_MM / step_mm)) + 1]
    enough = counts >= _LEAST_LAYER
    deep = len(counts) if enough.all() else int(enough.argmin())
    layers = [layer_of == number for number in range(deep)]
    return {f"ring {n}": _darkest(_lifted(v[inside]), layers) for n, v in volumes.items()}


def _lifted(values: np.ndarray) -> np.ndarray:
    """Move values that are not 0 up until none is below it."""
    return np.where(values != 0, values - min(0.0, float(values.min(initial=0))), 0)


def _darkest(values: np.ndarray, layers: Sequence[np.ndarray]) -> float:
    """Compare the medians of layers, from the surface inwards; see `ring_numbers`."""
    medians = [float(np.median(values[layer])) for layer in layers]
    shares = [1.0]
    for i in range(1, len(medians) - 1):
        beside = min(max(medians[:i]), max(medians[i + 1 :]))
        if beside > _LEAST_BRIGHT * max(medians):
            shares.append(medians[i] / beside)
    return min(shares) if len(medians) > 2 else float("nan")


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
