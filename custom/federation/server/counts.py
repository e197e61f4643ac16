"""How many cases of a site count: what it claims, up to what the server believes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median_low
from typing import NamedTuple

from federation.protocol.scoring import Sums

# Sites differ in size. One that claims ten times as much as the median weighs as ten of them.
FACTOR = 10.0


class Counts(NamedTuple):
    """Cases of a site.

    Attributes:
        all_cases: how many training cases it has.
        cases: {modality: how many of them have it}; none has more than `all_cases`.
    """

    all_cases: int
    cases: Mapping[str, int]

    def at_most(self, limit: int, by_modality: Mapping[str, int]) -> Counts:
        """Cap all counts at `limit`, and those of a modality at its own limit too."""
        total = min(self.all_cases, limit)
        cases = {m: min(n, total, by_modality.get(m, total)) for m, n in self.cases.items()}
        return Counts(total, cases)


def believed(
    claimed: Mapping[str, Counts],
    listed: Mapping[str, int] | None = None,
    factor: float | None = FACTOR,
) -> dict[str, Counts]:
    """Cap what the sites claim.

    Args:
        claimed: by site, those whose contribution was accepted.
        listed: {site: cases}, the coordinator's own list, which holds every site; None = there is
            none.
        factor: without a list, a site counts at most so many times the median of the sites: in all,
            and of each modality beside the sites that have it. Of two middle ones the lower counts,
            so that one of two sites cannot lift it. None = what is claimed counts.

    Returns:
        The counts by site, of all sites that were given. A modality never has more than all.
    """
    if listed is not None:
        return {site: counts.at_most(listed[site], {}) for site, counts in claimed.items()}
    if factor is None or not claimed:
        return dict(claimed)
    limit = _limit([counts.all_cases for counts in claimed.values()], factor)
    names = {name for counts in claimed.values() for name in counts.cases}
    by_modality = {}
    for name in sorted(names):
        holders = [counts.cases[name] for counts in claimed.values() if counts.cases.get(name)]
        if holders:
            by_modality[name] = _limit(holders, factor)
    return {site: counts.at_most(limit, by_modality) for site, counts in claimed.items()}


def kept_share(claimed: Counts, used: Counts) -> float:
    """Tell which share of a site's sums over its cases counts, 0 to 1: that of its cases.

    Where modalities are capped differently, the least share counts for all: sums of several
    modalities stay consistent.
    """
    pairs = [(used.all_cases, claimed.all_cases)]
    pairs += [(used.cases[name], count) for name, count in claimed.cases.items()]
    return min((one / other for one, other in pairs if other), default=1.0)


def shares(sizes: Mapping[str, float], factor: float | None) -> dict[str, float]:
    """Tell which share of each site's size counts, 0 to 1: at most `factor` times the lower median.

    Args:
        sizes: by site, from 0.
        factor: None = all of it.
    """
    if factor is None or not sizes:
        return dict.fromkeys(sizes, 1.0)
    limit = median_low(sizes.values()) * factor
    return {site: limit / size if size > limit else 1.0 for site, size in sizes.items()}


def capped_scores(scores: Mapping[str, Sums], factor: float | None) -> list[Sums]:
    """Cap the held-out cases of each subset and region that the sites claim, and keep their means.

    No list of the coordinator tells them: it has training cases.

    Args:
        scores: by site.
        factor: how many times the lower median of the sites that scored the same; None = any.
    """
    sizes: dict[tuple[str, str], dict[str, float]] = {}
    for site, sums in scores.items():
        for subset, regions in sums.items():
            for region, (_, cases) in regions.items():
                sizes.setdefault((subset, region), {})[site] = cases
    parts = {place: shares(by_site, factor) for place, by_site in sizes.items()}
    return [
        {
            subset: {
                region: [number * parts[subset, region][site] for number in entry]
                for region, entry in regions.items()
            }
            for subset, regions in sums.items()
        }
        for site, sums in scores.items()
    ]


def _limit(counts: list[int], factor: float) -> int:
    return math.floor(median_low(counts) * factor)
