"""Measuring one case: plain numbers and hashes, from which the rules and the census read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bundle.data.plausibility.coarse import (
    CoarseCase,
    box_size,
    coarsen,
    extent_mm,
    parts_of,
    standard_name,
)
from bundle.data.plausibility.contrast import (
    agent_numbers,
    brain_of,
    mirror_numbers,
    overlap_numbers,
    tissue_numbers,
)
from bundle.data.plausibility.rules import is_odd
from bundle.data.plausibility.tumour import fit_numbers, nesting_numbers
from bundle.data.volumes import Grid
from bundle.regions import Regions, known_labels

# A brain of fewer voxels along an axis shows no anatomy: its cortex is thinner than a voxel.
LEAST_EDGE = 16


@dataclass(frozen=True)
class Measured:
    """What was measured on one case.

    Attributes:
        numbers: plain numbers by name; what cannot be measured is not among them.
        hashes: modality -> hash of its voxels without header.
    """

    numbers: Mapping[str, float] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, content: Any) -> Measured:
        """Read what `asdict` has written.

        Raises:
            ValueError, AttributeError, TypeError, KeyError: it is something else.
        """
        numbers = {str(name): float(value) for name, value in content["numbers"].items()}
        return cls(numbers, {str(name): str(value) for name, value in content["hashes"].items()})


class CaseMeter:
    """Measures a case while its files are read: the label first, then volume by volume.

    Args:
        regions: the region table. Parts of a tumour are known if it has WT, TC and ET.
        labels: (D, H, W) uint8 label values; None = the case has no label.
    """

    def __init__(self, regions: Regions, labels: np.ndarray | None = None) -> None:
        self.coarse = CoarseCase()
        self._sizes: dict[str, int] = {}
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

    def measure(self, grid: Grid) -> Measured:
        """Measure what the volumes and the label say together.

        Volumes whose background is not 0 are left out, for nothing can be said about a brain that
        cannot be told from it. A brain of a few voxels is too coarse for any rule but the size of
        its voxels.
        """
        coarse = self.coarse
        kept = {f"median {name}": coarse.numbers[f"median {name}"] for name in coarse.hashes}
        millilitre = float(np.prod(grid.spacing_mm)) / 1000
        kept |= {f"ml {name}": size * millilitre for name, size in self._sizes.items()}
        numbers = {**voxel_numbers(grid), **kept}
        if coarse.volumes and min(box_size(brain_of(coarse.volumes))) >= LEAST_EDGE:
            numbers |= coarse.numbers | self._measure_brain(grid)
            numbers["equal volumes"] = float(max(Counter(coarse.hashes.values()).values()))
        finite = {name: round(n, 5) for name, n in numbers.items() if math.isfinite(n)}
        return Measured(finite, dict(coarse.hashes))

    def _measure_brain(self, grid: Grid) -> dict[str, float]:
        coarse = self.coarse
        volumes = {
            standard_name(name): coarse.volumes[standard_name(name)]
            for name in coarse.hashes
            if not is_odd("background", coarse.numbers[f"zeros {name}"])
            and not is_odd("corners", coarse.numbers[f"corners {name}"])
        }
        if not volumes:
            return {"extent": extent_mm(brain_of(coarse.volumes), grid)}
        brain = brain_of(volumes)
        numbers = {"extent": extent_mm(brain, grid)}
        if coarse.parts is not None:
            tumour = np.count_nonzero(coarse.parts)
            numbers["tumour share"] = tumour / np.count_nonzero(brain)
            numbers |= fit_numbers(coarse.parts, volumes)
        numbers |= overlap_numbers(volumes) | mirror_numbers(volumes)
        return (
            numbers | tissue_numbers(volumes, coarse.parts) | agent_numbers(volumes, coarse.parts)
        )


def voxel_numbers(grid: Grid) -> dict[str, float]:
    """Measure what a header tells: "voxel", the shortest edge of a voxel in millimetres."""
    return {"voxel": min(grid.spacing_mm)}
