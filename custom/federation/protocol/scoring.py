"""Scores of a site without names of patients, and the scores of all sites together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bundle.evaluation.metrics import Score
from bundle.evaluation.summary import summarise
from bundle.evaluation.tables import markdown_table
from bundle.modalities import all_subsets, subset_name

# {subset: {region: [sum of Dice, number of cases]}}, plain values as they travel.
Sums = dict[str, dict[str, list[float]]]


def dice_sums(rows: Sequence[Score]) -> Sums:
    """Add up the Dice of each subset and region over the cases."""
    sums: Sums = {}
    for row in rows:
        entry = sums.setdefault(row.subset, {}).setdefault(row.region, [0.0, 0])
        entry[0] += row.dice
        entry[1] += 1
    return sums


def read_sums(value: Any, modalities: Sequence[str], site: str) -> Sums:
    """Read the scores that a site has sent.

    Args:
        value: what came.
        modalities: the vocabulary.
        site: who sent it, for the message.

    Raises:
        ValueError: these are no scores: a number outside its range, or a subset that the vocabulary
            lacks.
    """
    known = {subset_name(subset, modalities) for subset in all_subsets(modalities)}
    if not isinstance(value, Mapping) or not set(value) <= known:
        raise ValueError(
            f"site {site}: expected scores by subset of {list(modalities)}, got {value!r:.200}"
        )
    for subset, regions in value.items():
        for entry in regions.values() if isinstance(regions, Mapping) else [None]:
            fine = isinstance(entry, list | tuple) and len(entry) == 2
            if not fine or not all(isinstance(number, int | float) for number in entry):
                raise ValueError(
                    f"site {site}, subset {subset}: expected [sum of Dice, number of cases] for "
                    f"each region, got {entry!r:.100}"
                )
            if not math.isfinite(entry[0]) or not -1e-6 <= entry[0] <= entry[1] + 1e-6:
                raise ValueError(
                    f"site {site}, subset {subset}: expected a sum of Dice from 0 to the number of "
                    f"cases, {entry[1]}, got {entry[0]}"
                )
    return {subset: {r: list(e) for r, e in by.items()} for subset, by in value.items()}


def merge(parts: Sequence[Sums]) -> Sums:
    """Add up the scores of several sites: every case counts once."""
    total: Sums = {}
    for part in parts:
        for subset, regions in part.items():
            for region, (dice, cases) in regions.items():
                entry = total.setdefault(subset, {}).setdefault(region, [0.0, 0])
                entry[0] += dice
                entry[1] += cases
    return total


def mean_dice(sums: Sums) -> float | None:
    """Average over cases, then regions, then subsets, as the papers do; None = no scores."""
    means = [
        math.fsum(dice / cases for dice, cases in regions.values()) / len(regions)
        for regions in sums.values()
        if regions and all(cases for _, cases in regions.values())
    ]
    return math.fsum(means) / len(means) if means else None


def table(sums: Sums, modalities: Sequence[str]) -> str:
    """Write scores in the papers' layout, see `bundle.evaluation.tables.markdown_table`."""
    regions = list(next(iter(sums.values())))
    # One row, the mean, stands for all cases of a subset and region.
    rows = [
        Score("mean", subset, region, dice / cases, math.nan)
        for subset, by_region in sums.items()
        for region, (dice, cases) in by_region.items()
        if cases
    ]
    return markdown_table(summarise(rows, modalities, regions))


def standing(by_site: Mapping[str, Sums]) -> dict[str, Any]:
    """Summarise the scores of a model: mean over the sites, the worst of them, and each.

    A site's score is over the subsets that its own cases form; sites without cases do not count.

    Returns:
        {"mean": ..., "worst": ..., "worst_site": ..., "sites": {site: Dice}}, Dice 0 to 1; None
        where nobody has cases.
    """
    scores = {site: mean_dice(sums) for site, sums in sorted(by_site.items())}
    known = {site: score for site, score in scores.items() if score is not None}
    worst = min(known, key=lambda site: known[site], default=None)
    return {
        "mean": math.fsum(known.values()) / len(known) if known else None,
        "worst": None if worst is None else known[worst],
        "worst_site": worst,
        "sites": scores,
    }
