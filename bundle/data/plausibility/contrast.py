"""What the images of one case show: the order of the tissues, contrast agent, mirroring.

All take the coarse volumes, modality -> (d, h, w) float32, exactly 0 outside the brain, and return
plain numbers by name. What cannot be measured is not among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
from scipy import ndimage

from bundle.data.plausibility.coarse import CODES

Volumes = Mapping[str, np.ndarray]

# Fewer voxels have no median worth telling.
LEAST_VOXELS = 20
# Cerebrospinal fluid fills about a tenth of an adult's skull-stripped brain.
_FLUID_SHARE = 0.08
# Vessels that take up agent fill more than this share of the brain.
_TAIL = 0.002


def brain_of(volumes: Volumes) -> np.ndarray:
    """Mark where any volume is not 0: (d, h, w) bool."""
    return np.any([volume != 0 for volume in volumes.values()], axis=0)


def tissue_numbers(volumes: Volumes, parts: np.ndarray | None) -> dict[str, float]:
    """Measure how the outermost brain, fluid and the tumour's parts look in each modality.

    Args:
        volumes: see above.
        parts: (d, h, w) uint8 of `CODES`; None = no label.

    Returns:
        "shell NAME": how much brighter the brain's outermost tenth is than its middle. "fluid NAME"
        (t2 and flair): how bright that is which is darkest on T1. "PART NAME": how bright a part of
        the tumour is. Unit: 1 = between the quartiles of healthy brain, 0 = its median.
    """
    brain = brain_of(volumes)
    healthy = brain if parts is None else brain & (parts == 0)
    if np.count_nonzero(healthy) < LEAST_VOXELS:
        return {}
    smooth = {name: _smooth(volume) for name, volume in volumes.items()}
    scales = {name: _scale_of(volume[healthy]) for name, volume in smooth.items()}
    scaled = {name: (v - scales[name][0]) / scales[name][1] for name, v in smooth.items()}
    numbers = _shells(scaled, brain)
    t1 = scaled.get("t1", scaled.get("t1ce"))
    if t1 is not None:
        fluid = healthy & (t1 <= np.quantile(t1[healthy], _FLUID_SHARE))
        numbers |= {
            f"fluid {name}": float(np.median(scaled[name][fluid]))
            for name in ("t2", "flair")
            if name in scaled
        }
    for part, inside in _large_parts(parts):
        # Not smoothed: a rim of two voxels would light up the necrosis that it wraps.
        for name, volume in volumes.items():
            middle, spread = scales[name]
            numbers[f"{part} {name}"] = float((np.median(volume[inside]) - middle) / spread)
    return numbers


def agent_numbers(volumes: Volumes, parts: np.ndarray | None) -> dict[str, float]:
    """Measure what the contrast agent has changed, where both T1 and T1ce are present.

    Returns:
        "agent PART": the logarithm of T1ce / T1 in a part of the tumour, 0 = as in healthy brain,
        0.1 = 10 % brighter by the agent. "agent tail": how much further the brain's brightest
        0.2 % of that ratio lie above 0 than its darkest 0.2 % lie below.
    """
    if not {"t1", "t1ce"} <= set(volumes):
        return {}
    both = (volumes["t1"] > 0) & (volumes["t1ce"] > 0)
    healthy = both if parts is None else both & (parts == 0)
    if np.count_nonzero(healthy) < LEAST_VOXELS:
        return {}
    with_agent, without = (np.maximum(_smooth(volumes[n]), 1e-6) for n in ("t1ce", "t1"))
    ratio = np.log(with_agent[both] / without[both])
    low, high = np.quantile(ratio - np.median(ratio[healthy[both]]), (_TAIL, 1 - _TAIL))
    usual = _log_ratio(volumes, healthy)
    numbers = {"agent tail": float(high + low)}
    for part, inside in _large_parts(parts):
        numbers[f"agent {part}"] = _log_ratio(volumes, inside & both) - usual
    return numbers


def mirror_numbers(volumes: Volumes) -> dict[str, float]:
    """Measure how much better each volume fits every other one once it is mirrored.

    Edges are compared inside the brain: they lie in the same place whatever the contrast, and the
    brain's own outline is nearly symmetric.

    Returns:
        "mirror NAME": a difference of two correlations, above 0 = the mirrored volume fits better,
        by the axis that says so most and the other modality that says so least.
    """
    edges = {n: ndimage.gaussian_gradient_magnitude(v, 1.0, truncate=3) for n, v in volumes.items()}
    inner = {n: ndimage.binary_erosion(v != 0, iterations=3) for n, v in volumes.items()}
    # One of two mirrored, or the other: it is the same number.
    gains = {
        frozenset(pair): np.array(_gains(edges, inner, *pair)) for pair in combinations(volumes, 2)
    }
    return {
        f"mirror {name}": float(np.min([g for pair, g in gains.items() if name in pair], 0).max())
        for name in volumes
        if gains
    }


def overlap_numbers(volumes: Volumes) -> dict[str, float]:
    """Measure the Dice overlap of each volume's brain with that of all together: "overlap NAME"."""
    whole = np.count_nonzero(brain_of(volumes))
    sizes = {name: np.count_nonzero(volume) for name, volume in volumes.items()}
    return {
        f"overlap {n}": 2 * size / (size + whole)
        for n, size in sizes.items()
        if len(sizes) > 1 and whole
    }


def _scale_of(values: np.ndarray) -> tuple[float, float]:
    """Return median and quartile distance of what is smoothed, for noise is not contrast."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return float(middle), max(float(high - low), 1e-6)


def _smooth(volume: np.ndarray) -> np.ndarray:
    """Smooth inside the brain only, so that the background does not darken its edge."""
    brain = (volume != 0).astype(np.float32)
    weight = ndimage.gaussian_filter(brain, 1.0, truncate=2)
    return ndimage.gaussian_filter(volume, 1.0, truncate=2) / np.maximum(weight, 1e-3) * brain


def _log_ratio(volumes: Volumes, inside: np.ndarray) -> float:
    if not inside.any():
        return float("nan")
    return float(np.log(np.median(volumes["t1ce"][inside]) / np.median(volumes["t1"][inside])))


def _shells(scaled: Volumes, brain: np.ndarray) -> dict[str, float]:
    depth = ndimage.distance_transform_edt(brain)
    shell, inner = brain & (depth <= 0.1 * depth.max()), depth > 0.4 * depth.max()
    if not shell.any():
        return {}
    return {
        f"shell {name}": float(np.median(volume[shell]) - np.median(volume[inner]))
        for name, volume in scaled.items()
    }


def _large_parts(parts: np.ndarray | None) -> Iterator[tuple[str, np.ndarray]]:
    for part, code in CODES.items() if parts is not None else ():
        inside = parts == code
        if np.count_nonzero(inside) >= LEAST_VOXELS:
            yield part, inside


def _gains(edges: Volumes, inner: Volumes, name: str, other: str) -> list[float]:
    """Say what mirroring one of two volumes along each axis adds to the correlation of edges."""
    straight = _correlation(edges[name], edges[other], inner[name] & inner[other])
    return [
        _correlation(
            np.flip(edges[name], axis), edges[other], np.flip(inner[name], axis) & inner[other]
        )
        - straight
        for axis in range(3)
    ]


def _correlation(first: np.ndarray, second: np.ndarray, inside: np.ndarray) -> float:
    a, b = first[inside], second[inside]
    if a.size < LEAST_VOXELS or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
