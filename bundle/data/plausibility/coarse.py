"""A coarse copy of one case, taken while its files are read, and what needs every voxel.

d h w are the axes of the coarse grid: every n-th voxel of D H W.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bundle.data.geometry import Grid
from bundle.data.plausibility.head import border_share
from bundle.modalities import FILE_SUFFIXES
from bundle.regions import Regions

# What a tumour's parts are called here: the core without contrast agent, oedema, the bright rim.
NECROSIS, OEDEMA, RIM = "necrosis", "oedema", "rim"
CODES: Mapping[str, int] = {NECROSIS: 1, OEDEMA: 2, RIM: 3}

# A million voxels tell a median to less than 1 %; a BraTS volume has nine million.
_COARSE_VOXELS = 1e6
# Fewer voxels have few values in any case.
_LEAST_FOR_VALUES = 100
# A larger share of the volume is no stripped brain, whose size differs from patient to patient.
_LARGEST_SHARE = 0.75
# So many, evenly spaced by rank, tell how the values of a scan are spread.
_PROFILE_VOXELS = 100_000
# How many waves along each axis tell how the values of a scan are arranged.
WAVES = 8


@dataclass
class CoarseCase:
    """What is kept of a case while its volumes are read one after the other.

    Attributes:
        volumes: BraTS modality -> (d, h, w) float32.
        parts: (d, h, w) uint8 of `CODES`, 0 = healthy or outside; None = no label.
        numbers: what has been measured on all voxels.
        hashes: modality -> hash of its voxels that are not 0, 64 hexadecimal digits.
        profiles: modality -> how its voxels are spread, see `profile_of`; none without background.
        arrangements: modality -> how its voxels lie, see `arrangement_of`.
    """

    volumes: dict[str, np.ndarray] = field(default_factory=dict)
    parts: np.ndarray | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    profiles: dict[str, list[int]] = field(default_factory=dict)
    arrangements: dict[str, list[int]] = field(default_factory=dict)

    def add(self, name: str, voxels: np.ndarray) -> None:
        """Take in the volume (D, H, W) of a modality; its voxels need not be kept afterwards."""
        brain = np.sort(voxels[voxels != 0].astype(np.float32, copy=False))
        values = 1 + np.count_nonzero(np.diff(brain))
        corners = np.concatenate([corner.ravel() for corner in corners_of(voxels)])
        # Sorted values, so that a copy which was turned, mirrored, cropped or padded has the same
        # hash. The header is no part of it. Scans whose values were replaced by their ranks have
        # the same hash, too: only the arrangement tells them apart.
        self.hashes[name] = hashlib.sha256(brain.tobytes()).hexdigest()
        self.arrangements[name] = arrangement_of(voxels)
        # Where no background tells how large the brain is, scans that were given the same spread
        # (matched histograms, ranks) have the same profile, and are no copies.
        if brain.size < _LARGEST_SHARE * voxels.size:
            self.profiles[name] = profile_of(brain)
        self.numbers[f"zeros {name}"] = 1 - brain.size / voxels.size
        self.numbers[f"corners {name}"] = np.count_nonzero(corners) / corners.size
        self.numbers[f"border {name}"] = border_share(voxels)
        self.numbers[f"median {name}"] = float(brain[brain.size // 2])
        if brain.size >= _LEAST_FOR_VALUES:
            self.numbers[f"values {name}"] = float(values)
        self.volumes[standard_name(name)] = coarsen(voxels).copy()


def profile_of(brain: np.ndarray) -> list[int]:
    """Describe the spread of a scan's values, whatever unit they were stored in.

    Args:
        brain: (N,) float32, the voxels that are not 0, sorted.

    Returns:
        N, then means of six bounded functions of the z-score, in hundred thousandths. A copy with
        another gain or offset has the same N, and the means change by the square of its rounding.
    """
    values = brain[:: max(1, brain.size // _PROFILE_VOXELS)].astype(np.float64)
    z = (values - values.mean()) / max(float(values.std()), 1e-9)
    means = [*(np.tanh(2 * (z - at)).mean() for at in (-1, 0, 1)), np.tanh(z).mean()]
    means += [np.exp(-(z**2)).mean(), np.exp(-((z - 1) ** 2)).mean()]
    return [int(brain.size), *(round(1e5 * float(mean)) for mean in means)]


def arrangement_of(voxels: np.ndarray) -> list[int]:
    """Describe how the voxels of a scan lie, whatever unit they were stored in.

    Args:
        voxels: (D, H, W), 0 outside.

    Returns:
        For each axis `WAVES` numbers, in hundred thousandths: how strongly the slices' z-scores,
        summed and divided by the number of voxels, follow waves of 1, 2, ... periods over the box
        around the brain. Mirroring changes none, turning changes the order of the axes, and zeros
        around the brain, another gain or another offset change nothing.
    """
    sums = voxels.sum(2, dtype=np.float64), voxels.sum(0, dtype=np.float64)
    inside = voxels != 0
    counts = inside.sum(2, dtype=np.int64), inside.sum(0, dtype=np.int64)
    size = max(1, int(counts[0].sum()))
    mean = sums[0].sum() / size
    spread = max(float(voxels[inside].std(dtype=np.float64)), 1e-9) if inside.any() else 1.0
    waves: list[int] = []
    for which, across in ((0, 1), (0, 0), (1, 0)):
        count = counts[which].sum(across)
        line = (sums[which].sum(across) - mean * count) / (spread * size)
        seen = np.flatnonzero(count)
        box = line[seen[0] : seen[-1] + 1] if seen.size else line
        strength = np.abs(np.fft.fft(box))[1 : WAVES + 1]
        waves += [round(1e5 * float(value)) for value in strength]
        waves += [0] * (WAVES - strength.size)
    return waves


def codes_of(regions: Regions) -> dict[int, int]:
    """Map label values to `CODES`, if the regions are BraTS's: nested WT, TC and ET; else {}."""
    if not {"WT", "TC", "ET"} <= set(regions):
        return {}
    whole, core, rim = ({int(v) for v in regions[name]} for name in ("WT", "TC", "ET"))
    if not rim < core < whole:
        return {}
    return {
        **dict.fromkeys(core - rim, CODES[NECROSIS]),
        **dict.fromkeys(whole - core, CODES[OEDEMA]),
        **dict.fromkeys(rim, CODES[RIM]),
    }


def parts_of(labels: np.ndarray, regions: Regions) -> np.ndarray | None:
    """Turn label values (D, H, W) uint8 into `CODES`; None = the regions are not BraTS's."""
    codes = codes_of(regions)
    if not codes:
        return None
    table = np.zeros(256, np.uint8)
    table[list(codes)] = list(codes.values())
    return table[labels]


def standard_name(modality: str) -> str:
    """Name a modality as BraTS did until 2021, so 't1n' becomes 't1'; others stay as they are."""
    return next((n for n, others in FILE_SUFFIXES.items() if modality in others), modality)


def corners_of(voxels: np.ndarray) -> list[np.ndarray]:
    """Return the eight corners of a volume, each an eighth of the edge long, at least a voxel."""
    ends = [max(1, n // 8) for n in voxels.shape]
    sides = [(slice(0, end), slice(-end, None)) for end in ends]
    return [voxels[x, y, z] for x in sides[0] for y in sides[1] for z in sides[2]]


def coarsen(volume: np.ndarray) -> np.ndarray:
    """Take every n-th voxel along each axis: about a million, and all of a smaller volume."""
    step = max(1, round((volume.size / _COARSE_VOXELS) ** (1 / 3)))
    return volume[::step, ::step, ::step]


def extent_mm(brain: np.ndarray, grid: Grid) -> float:
    """Measure the longest side of the box around a brain (d, h, w) bool, in millimetres."""
    spacing = np.array(grid.shape) / np.array(brain.shape) * np.array(grid.spacing_mm)
    return float((np.array(box_size(brain)) * spacing).max())


def box_size(mask: np.ndarray) -> Sequence[int]:
    """Return the sides of the box around a mask (d, h, w) bool, in voxels."""
    along = [mask.any(tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    return [int(np.ptp(np.flatnonzero(line))) + 1 if line.any() else 0 for line in along]
