"""The same voxels under two names: within a case, and over many cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np

from bundle.data.plausibility.coarse import WAVES, standard_name
from bundle.data.plausibility.judge import Suspicion
from bundle.data.plausibility.measured import Measured

# Fewer voxels may be spread alike by chance.
_LEAST_COPY, _LEAST_PROFILE = 100, 1000
# How far apart the profiles and arrangements of copies may be, in hundred thousandths: 8 bits round
# by less.
_NEAR = 30

Cases = Mapping[str, Sequence[tuple[str, Measured]]]


def copy_numbers(
    volumes: Mapping[str, np.ndarray],
    hashes: Mapping[str, str],
    arrangements: Mapping[str, Sequence[int]],
) -> dict[str, float]:
    """Measure which modalities of a case are the same scan, also with another gain or offset.

    Args:
        volumes: BraTS modality -> (d, h, w) float32.
        hashes: modality -> hash of all its voxels, sorted.
        arrangements: modality -> how its voxels lie.

    Returns:
        "copy ONE+OTHER": 1 = the same voxels, also mirrored or turned, else the correlation where
        both are not 0. Other pairs of another outline are left out.
    """
    numbers = {}
    for one, other in combinations(hashes, 2):
        # Equal hashes alone are no copy: ranks within one mask are the same values in any scan.
        same_values = hashes[one] == hashes[other]
        if same_values and alike(arrangements[one], arrangements[other]):
            numbers[f"copy {one}+{other}"] = 1.0
            continue
        first, second = volumes[standard_name(one)], volumes[standard_name(other)]
        inside = first != 0
        if np.count_nonzero(inside) >= _LEAST_COPY and np.array_equal(inside, second != 0):
            correlation = _correlation(first[inside], second[inside])
            numbers[f"copy {one}+{other}"] = correlation
    return numbers


def alike(one: Sequence[int], other: Sequence[int]) -> bool:
    """True = two arrangements are the same but for the order of their axes."""
    if len(one) != len(other):
        return False
    first, second = np.array(one).reshape(-1, WAVES), np.array(other).reshape(-1, WAVES)
    orders = permutations(range(len(first)))
    return any(np.abs(first - second[list(o)]).max(initial=0) <= _NEAR for o in orders)


def repeated_scans(cases: Cases) -> list[Suspicion]:
    """Find the scans that two cases share, in one section or in two.

    Args:
        cases: section -> (case, what was measured on it) of each of its cases.

    Returns:
        One suspicion for each later case that shares scans with an earlier one; its number says how
        many scans they share. The rule is `leak` where they are in two sections.
    """
    known = _Known()
    found = []
    for section, members in cases.items():
        for case, measured in members:
            owners = [owner for owner in known.owners(measured) if owner is not None]
            for owner in dict.fromkeys(owners):
                where = f"{section}, as case {owner[1]} in {owner[0]}"
                rule = "same_scan" if owner[0] == section else "leak"
                found.append(Suspicion(rule, case, float(owners.count(owner)), where))
            known.add(measured, (section, case))
    return found


class _Scan(NamedTuple):
    """A scan met before: its owner is a section and a case."""

    means: np.ndarray
    arrangement: Sequence[int]
    owner: tuple[str, str]

    def is_spread_as(self, means: np.ndarray) -> bool:
        return bool(np.abs(self.means - means).max(initial=0) <= _NEAR)


class _Known:
    """The scans met so far by hash, and by the number of their voxels."""

    def __init__(self) -> None:
        self.by_hash: dict[str, list[_Scan]] = {}
        self.by_count: dict[int, list[_Scan]] = {}

    def owners(self, measured: Measured) -> Iterator[tuple[str, str] | None]:
        """Yield for each scan who had it first; None = nobody."""
        for name, scan in measured.hashes.items():
            arrangement = measured.arrangements.get(name, ())
            count, *means = measured.profiles.get(name, (0,))
            spread = np.array(means)
            known = [
                *self.by_hash.get(scan, ()),
                *(s for s in self.by_count.get(count, ()) if s.is_spread_as(spread)),
            ]
            # One number first: where all scans are ranks in one mask, there are thousands to see.
            total, apart = sum(arrangement), _NEAR * len(arrangement)
            near = (s for s in known if abs(sum(s.arrangement) - total) <= apart)
            yield next((s.owner for s in near if alike(s.arrangement, arrangement)), None)

    def add(self, measured: Measured, owner: tuple[str, str]) -> None:
        for name, scan in measured.hashes.items():
            arrangement = measured.arrangements.get(name, ())
            count, *means = measured.profiles.get(name, (0,))
            met = _Scan(np.array(means), arrangement, owner)
            self.by_hash.setdefault(scan, []).append(met)
            if count >= _LEAST_PROFILE:
                self.by_count.setdefault(count, []).append(met)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
