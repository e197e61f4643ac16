"""The same voxels under two names: within a case, and over many cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from bundle.data.plausibility.coarse import standard_name
from bundle.data.plausibility.judge import Suspicion
from bundle.data.plausibility.measured import Measured

# Fewer voxels may be spread alike by chance.
_LEAST_COPY, _LEAST_PROFILE = 100, 1000
# How far apart the profiles of copies may be, in hundred thousandths: 8 bits round by less.
_NEAR = 30

Cases = Mapping[str, Sequence[tuple[str, Measured]]]


def copy_numbers(volumes: Mapping[str, np.ndarray], hashes: Mapping[str, str]) -> dict[str, float]:
    """Measure which modalities of a case are the same scan, also with another gain or offset.

    Args:
        volumes: BraTS modality -> (d, h, w) float32.
        hashes: modality -> hash of all its voxels.

    Returns:
        "copy ONE+OTHER": 1 = the same voxels, else the correlation where both are not 0. Pairs of
        another outline are left out.
    """
    numbers = {}
    for one, other in combinations(hashes, 2):
        if hashes[one] == hashes[other]:
            numbers[f"copy {one}+{other}"] = 1.0
            continue
        first, second = volumes[standard_name(one)], volumes[standard_name(other)]
        inside = first != 0
        if np.count_nonzero(inside) >= _LEAST_COPY and np.array_equal(inside, second != 0):
            correlation = _correlation(first[inside], second[inside])
            numbers[f"copy {one}+{other}"] = correlation
    return numbers


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


class _Known:
    """The scans met so far, by hash and by profile, and the first (section, case) that had each."""

    def __init__(self) -> None:
        self.by_hash: dict[str, tuple[str, str]] = {}
        self.by_count: dict[int, list[tuple[np.ndarray, tuple[str, str]]]] = {}

    def owners(self, measured: Measured) -> Iterator[tuple[str, str] | None]:
        """Yield for each scan who had it first; None = nobody."""
        for name, scan in measured.hashes.items():
            profile = measured.profiles.get(name)
            yield self.by_hash.get(scan) or (self._alike(profile) if profile else None)

    def add(self, measured: Measured, owner: tuple[str, str]) -> None:
        for scan in measured.hashes.values():
            self.by_hash.setdefault(scan, owner)
        for profile in measured.profiles.values():
            count, *means = profile
            if count >= _LEAST_PROFILE:
                self.by_count.setdefault(count, []).append((np.array(means), owner))

    def _alike(self, profile: Sequence[int]) -> tuple[str, str] | None:
        count, *means = profile
        for other, owner in self.by_count.get(count, ()):
            if np.abs(other - means).max() <= _NEAR:
                return owner
        return None


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
