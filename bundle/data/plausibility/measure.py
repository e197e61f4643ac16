"""Measuring one case: plain numbers and hashes, from which the rules and the census read."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bundle.data.geometry import Grid
from bundle.data.plausibility.coarse import (
    CoarseCase,
    box_size,
    coarsen,
    extent_mm,
    parts_of,
    standard_name,
)
from bundle.data.plausibility.contrast import (
    LEAST_VOXELS,
    agent_numbers,
    brain_of,
    mirror_numbers,
    overlap_numbers,
    tissue_numbers,
)
from bundle.data.plausibility.head import ring_numbers
from bundle.data.plausibility.measured import Measured
from bundle.data.plausibility.repeats import copy_numbers
from bundle.data.plausibility.rules import is_odd
from bundle.data.plausibility.tumour import fit_numbers, nesting_numbers
from bundle.regions import Regions, known_labels

# A brain of fewer voxels along an axis shows no anatomy: its cortex is thinner than a voxel.
LEAST_EDGE = 16
# A slab, or one slice, of so many voxels along two axes still shows whether its corners are empty.
_LEAST_SLICE = 32


class CaseMeter:
    """Measures a case while its files are read: the label first, then volume by volume.

    Args:
        regions: the region table. Parts of a tumour are known if it has WT, TC and ET.
        labels: (D, H, W) uint8 label values; None = the case has no label.
    """

    def __init__(self, regions: Regions, labels: np.ndarray | None = None) -> None:
        self.coarse = CoarseCase()
        self._sizes: dict[str, int] = {}
        self._outside = labels > 0 if labels is not None and labels.any() else None
        self._labelled = 0 if self._outside is None else int(np.count_nonzero(self._outside))
        if labels is None or not regions:
            return
        self._read_label(labels, regions)

    def _read_label(self, labels: np.ndarray, regions: Regions) -> None:
        numbers, counts = self.coarse.numbers, np.bincount(labels.ravel(), minlength=256)
        for name, values in regions.items():
            self._sizes[name] = int(sum(counts[int(value)] for value in values))
        tumour = int(counts[1:].sum())
        if len(known_labels(regions)) > 1 and tumour:
            numbers["label values"] = float(np.count_nonzero(counts[1:]))
        parts = parts_of(labels, regions)
        if parts is not None:
            numbers |= nesting_numbers(parts)
            self.coarse.parts = coarsen(parts).copy()

    def add(self, name: str, voxels: np.ndarray) -> None:
        """Take in the volume (D, H, W) of a modality; it need not be kept afterwards."""
        self.coarse.add(name, voxels)
        same_grid = self._outside is not None and self._outside.shape == voxels.shape
        if same_grid and self._is_stripped(name):
            self._outside &= voxels == 0

    def measure(self, grid: Grid, forms_mm: Mapping[str, float] | None = None) -> Measured:
        """Measure what the volumes and the label say together.

        Volumes whose background is not 0 are left out, for nothing can be said about a brain that
        cannot be told from it. A brain of a few voxels along an axis is too coarse for most rules,
        but not for those that count voxels.

        Args:
            grid: of the case.
            forms_mm: file -> how far apart its header's qform and sform are, see `Grid`.
        """
        coarse = self.coarse
        names = list(coarse.hashes)
        kept = {f"median {name}": coarse.numbers[f"median {name}"] for name in names}
        millilitre = float(np.prod(grid.spacing_mm)) / 1000
        kept |= {f"ml {name}": size * millilitre for name, size in self._sizes.items()}
        numbers = {**header_numbers(grid, forms_mm or {}), **kept, **self._counted()}
        numbers |= copy_numbers(coarse.volumes, coarse.hashes, coarse.arrangements)
        edges = sorted(box_size(brain_of(coarse.volumes))) if coarse.volumes else [0, 0, 0]
        if edges[1] >= _LEAST_SLICE:
            numbers |= {f"corners {name}": coarse.numbers[f"corners {name}"] for name in names}
        if edges[0] >= LEAST_EDGE:
            numbers |= coarse.numbers | self._measure_brain(grid)
        finite = {name: round(n, 5) for name, n in numbers.items() if math.isfinite(n)}
        return Measured(
            finite, dict(coarse.hashes), dict(coarse.profiles), dict(coarse.arrangements)
        )

    def _counted(self) -> dict[str, float]:
        """Return what counting voxels tells, be the brain as small as it may."""
        numbers, stripped = self.coarse.numbers, self._stripped()
        counted = {name: n for name, n in numbers.items() if name.startswith("values ")}
        counted |= {f"filled {n}": 1 - numbers[f"zeros {n}"] for n in self.coarse.hashes}
        counted |= overlap_numbers(stripped)
        if stripped and self._labelled >= LEAST_VOXELS:
            counted["label outside"] = np.count_nonzero(self._outside) / self._labelled
        return counted

    def _is_stripped(self, name: str) -> bool:
        numbers = self.coarse.numbers
        filled = is_odd("background", numbers[f"zeros {name}"])
        return not filled and not is_odd("corners", numbers[f"corners {name}"])

    def _stripped(self) -> dict[str, np.ndarray]:
        """Return the coarse volumes whose background is 0: BraTS modality -> (d, h, w)."""
        volumes = self.coarse.volumes
        names = [standard_name(name) for name in self.coarse.hashes if self._is_stripped(name)]
        return {name: volumes[name] for name in names}

    def _measure_brain(self, grid: Grid) -> dict[str, float]:
        coarse = self.coarse
        volumes = {
            name: volume
            for name, volume in self._stripped().items()
            if np.count_nonzero(volume) >= LEAST_VOXELS
        }
        if not volumes:
            return {"extent": extent_mm(brain_of(coarse.volumes), grid)}
        brain = brain_of(volumes)
        numbers = {"extent": extent_mm(brain, grid)}
        if coarse.parts is not None:
            tumour = np.count_nonzero(coarse.parts)
            numbers["tumour share"] = tumour / np.count_nonzero(brain)
            numbers |= fit_numbers(coarse.parts, volumes)
        spacing = [
            s * n / m for s, n, m in zip(grid.spacing_mm, grid.shape, brain.shape, strict=True)
        ]
        overlaps = overlap_numbers(volumes)
        # Layers below a common surface say nothing about a scan of another outline.
        whole = {
            name: volume
            for name, volume in volumes.items()
            if not is_odd("masks", overlaps.get(f"overlap {name}", 1.0))
        }
        numbers |= ring_numbers(whole, spacing) | mirror_numbers(volumes)
        return (
            numbers | tissue_numbers(volumes, coarse.parts) | agent_numbers(volumes, coarse.parts)
        )


def header_numbers(grid: Grid, forms_mm: Mapping[str, float]) -> dict[str, float]:
    """Measure what headers tell.

    Args:
        grid: of the case.
        forms_mm: file -> how far apart its header's qform and sform are, see `Grid`.

    Returns:
        "voxel": the shortest edge of a voxel in millimetres. "forms FILE": see `forms_mm`.
    """
    apart = {f"forms {name}": round(mm, 5) for name, mm in forms_mm.items() if mm}
    return {"voxel": min(grid.spacing_mm), **apart}
