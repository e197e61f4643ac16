"""The rule over many cases: the same voxels under two names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bundle.data.plausibility.judge import Suspicion


def repeated_scans(
    hashes: Mapping[str, Sequence[tuple[str, Mapping[str, str]]]],
) -> list[Suspicion]:
    """Find the scans that two cases share, in one section or in two.

    Args:
        hashes: section -> (case, modality -> hash of its voxels) of each of its cases.

    Returns:
        One suspicion for each later case that shares scans with an earlier one; its number says how
        many scans they share.
    """
    first: dict[str, tuple[str, str]] = {}
    found = []
    for section, cases in hashes.items():
        for case, scans in cases:
            owners = [first[scan] for scan in scans.values() if scan in first]
            for owner in dict.fromkeys(owners):
                where = f"{section}, as case {owner[1]} in {owner[0]}"
                found.append(Suspicion("same_scan", case, float(owners.count(owner)), where))
            for scan in scans.values():
                first.setdefault(scan, (section, case))
    return found
