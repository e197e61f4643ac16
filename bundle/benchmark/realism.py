"""How like real scans the phantom is: Dice by subset, beside that of a study on real cases.

Which scans tell which region is a property of the images. A network that is trained to near its
plateau on made-up cases should find the same subsets easy and hard as one trained on real cases.
How high its Dice is does not count: sizes of networks, voxels and studies differ.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

# Mean Dice of BraTS 2021, 1,251 cases, out of fold: ReLiSS (GitHub hekaiwang/ReLiSS, MIT, 2026).
PUBLISHED = Path(__file__).parent / "published_profile.csv"
# What the phantom promises. The number of scans alone already gives 0.78 to 0.80 over 15 subsets.
LEAST_OF_ALL, LEAST_OF_PAIRS = 0.9, 0.7
# Two lone scans of which the published Dice differs by no more have no order.
GAP = 0.01

# Subset name -> region -> Dice, 0 to 1.
Profile = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Swap:
    """Two lone scans that stand in the wrong order.

    Attributes:
        region: where.
        better, worse: names of the modalities, as published.
    """

    region: str
    better: str
    worse: str


@dataclass(frozen=True)
class Realism:
    """How like the published profile another one is.

    Attributes:
        of_all: region -> rank correlation over all subsets, -1 to 1.
        of_pairs: region -> rank correlation over the subsets of two scans.
        swaps: lone scans in the wrong order, where the published gap is above `GAP`.
        orders: how many orders of lone scans were looked at.
    """

    of_all: Mapping[str, float]
    of_pairs: Mapping[str, float]
    swaps: tuple[Swap, ...]
    orders: int

    @property
    def is_kept(self) -> bool:
        """True = every promise of this module is kept."""
        return (
            min(self.of_all.values()) >= LEAST_OF_ALL
            and min(self.of_pairs.values()) >= LEAST_OF_PAIRS
            and not self.swaps
        )


def published() -> dict[str, dict[str, float]]:
    """Read the published profile, by subset and region."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        return {
            row.pop("subset"): {region: float(dice) for region, dice in row.items()}
            for row in csv.DictReader(file)
        }


def compare(values: Profile, reference: Profile | None = None) -> Realism:
    """Compare Dice by subset and region with the published profile.

    Args:
        values: of every subset of the reference, and every region.
        reference: what to compare with; None = `published()`.

    Raises:
        ValueError: a subset or a region of the reference that is not among the values.
    """
    reference = published() if reference is None else reference
    check_covered(values, reference)
    regions = list(next(iter(reference.values())))
    pairs = [subset for subset in reference if scans_of(subset) == 2]
    orders = [
        (region, *ordered) for region in regions for ordered in clear_orders(reference, region)
    ]
    swaps = [
        Swap(region, better, worse)
        for region, better, worse in orders
        if values[better][region] <= values[worse][region]
    ]
    return Realism(
        {region: correlation(values, reference, list(reference), region) for region in regions},
        {region: correlation(values, reference, pairs, region) for region in regions},
        tuple(swaps),
        len(orders),
    )


def check_covered(values: Profile, reference: Profile) -> None:
    """Refuse values in which a subset or a region of the reference is not there."""
    missing = [
        f"{region} of {subset}"
        for subset, regions in reference.items()
        for region in regions
        if region not in values.get(subset, {})
    ]
    if missing:
        raise ValueError(
            f"expected Dice of {len(reference)} subsets and their regions, got none for "
            f"{', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}. "
            "Evaluate every subset of t1, t1ce, t2 and flair with the regions TC, WT and ET."
        )


def scans_of(subset: str) -> int:
    """Count the scans of a subset by its name."""
    return subset.count("+") + 1


def clear_orders(reference: Profile, region: str) -> list[tuple[str, str]]:
    """List the pairs of lone scans, the better first, whose gap in the reference is above `GAP`."""
    lone = sorted(
        (subset for subset in reference if scans_of(subset) == 1),
        key=lambda subset: -reference[subset][region],
    )
    # Values of three digits: without rounding 0.731 - 0.721 would be above 0.01.
    return [
        (better, worse)
        for better, worse in combinations(lone, 2)
        if round(reference[better][region] - reference[worse][region], 6) > GAP
    ]


def correlation(values: Profile, reference: Profile, subsets: Sequence[str], region: str) -> float:
    """Spearman's rank correlation over subsets, in one region: -1 to 1, 0 where all are equal."""
    ours, theirs = (
        rankdata([of[subset][region] for subset in subsets]) for of in (values, reference)
    )
    if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return 0.0
    return float(np.corrcoef(ours, theirs)[0, 1])
