"""How many cases of a site count: what it claims, up to what the server believes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median_low
from typing import NamedTuple

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


def _limit(counts: list[int], factor: float) -> int:
    return math.floor(median_low(counts) * factor)
