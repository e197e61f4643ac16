"""Counting what a set of cases holds, and what is usual in it, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from scipy.stats.mstats import hdquantiles

from bundle.modalities import subset_name

QUARTILES: Mapping[str, float] = {"p25": 0.25, "p50": 0.5, "p75": 0.75}
# A site is marked from this many of the sites' usual distances between quartiles on: half of all
# cases are within half of one, and in a normal distribution one case in 300 lies beyond two.
_FAR = 2.0
# Distances below a tenth of the value are not told apart: scanners differ by as much.
_LEAST_SPREAD = 0.1


def modality_counts(items: Iterable[Mapping[str, Any]], modalities: Sequence[str]) -> Counter[str]:
    """Count the cases that hold each modality, in vocabulary order, zeros included."""
    counts = Counter({name: 0 for name in modalities})
    for item in items:
        counts.update(item["image"].keys())
    return counts


def combination_counts(
    items: Iterable[Mapping[str, Any]], modalities: Sequence[str]
) -> Counter[str]:
    """Count the cases with each combination, such as 't1+flair', the most frequent first."""
    counts = Counter(subset_name(item["image"], modalities) for item in items)
    return Counter(dict(counts.most_common()))


def count_table(title: str, counts: Mapping[str, int]) -> str:
    """Lay out counts as two columns under a title.

    Example: `count_table("modality", {"t1": 6})` gives 'modality  cases' above 't1            6'.
    """
    return table([(title, "cases"), *((name, str(count)) for name, count in counts.items())])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows of cells: the first column to the left, all others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(lines)


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Estimate the quartiles of some cases' numbers so that none of them is one case's own.

    Harrell and Davis 1982: each is a weighted mean of all values. Rounded to three digits.

    Args:
        values: one number for each case, at least 2.
    """
    estimates = hdquantiles(list(values), prob=list(QUARTILES.values()))
    return {name: float(f"{q:.3g}") for name, q in zip(QUARTILES, estimates, strict=True)}


def far_off(found: Mapping[str, Mapping[str, float]]) -> set[str]:
    """Name the sites whose median is far from the median of the sites' medians.

    Args:
        found: site -> its quartiles of one number, see `quartiles`.

    Returns:
        The sites that are more than twice the usual distance between quartiles off; nobody where
        fewer than three sites have told.
    """
    if len(found) < 3:
        return set()
    centre = median(q["p50"] for q in found.values())
    usual = median(q["p75"] - q["p25"] for q in found.values())
    reach = _FAR * max(usual, _LEAST_SPREAD * abs(centre))
    return {site for site, q in found.items() if abs(q["p50"] - centre) > reach}


def quartile_table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Lay out quartiles: a line for each site, a column for each number, * = far off.

    Args:
        found: number's name -> site -> its quartiles.
    """
    sites = sorted({site for quartiles_of in found.values() for site in quartiles_of})
    marked = {name: far_off(quartiles_of) for name, quartiles_of in found.items()}

    def cell(name: str, site: str) -> str:
        q = found[name].get(site)
        if q is None:
            return "-"
        star = "*" if site in marked[name] else ""
        return f"{q['p50']:g} ({q['p25']:g} to {q['p75']:g}){star}"

    rows = [("site", *found), *((site, *(cell(name, site) for name in found)) for site in sites)]
    return table(rows)
