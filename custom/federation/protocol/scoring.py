"""Scores of a site without names of patients, and the scores of all sites together."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from bundle.evaluation.metrics import Score
from bundle.evaluation.summary import summarise
from bundle.evaluation.tables import markdown_table
from bundle.modalities import all_subsets, subset_name
from federation.protocol.contribution import MOST_CASES
from federation.protocol.facts import described
from federation.protocol.site_text import LONGEST_NAME, one_line

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


def read_sums(
    value: Any, modalities: Sequence[str], site: str, regions: Collection[str] | None = None
) -> Sums:
    """Read the scores that a site has sent.

    Args:
        value: what came.
        modalities: the vocabulary.
        site: who sent it, for the message.
        regions: the job's regions; None = any short name, the same in all subsets.

    Raises:
        ValueError: these are no scores: a number of another type or outside its range, a subset
            that the vocabulary lacks, or a region that the job lacks.
    """
    known = {subset_name(subset, modalities) for subset in all_subsets(modalities)}
    if not isinstance(value, Mapping) or not all(type(s) is str and s in known for s in value):
        raise ValueError(
            f"site {site}: expected scores by subset of {list(modalities)}, got {described(value)}"
        )
    sums: Sums = {}
    for subset, by_region in value.items():
        whose = f"site {site}, subset {subset}"
        sums[subset] = _read_regions(by_region, whose, regions)
        if len({frozenset(each) for each in sums.values()}) > 1:
            raise ValueError(f"{whose}: expected the same regions in all subsets, got others")
    return sums


def _read_regions(
    value: Any, whose: str, regions: Collection[str] | None
) -> dict[str, list[float]]:
    read = {}
    if not isinstance(value, Mapping) or not value:
        _refuse_entry(whose, None)
    for region, entry in value.items():
        fine = type(region) is str and one_line(region, LONGEST_NAME) == region
        if not fine or (regions is not None and region not in regions):
            expected = "short names of regions" if regions is None else f"regions {list(regions)}"
            raise ValueError(f"{whose}: expected {expected}, got {described(region)}")
        read[region] = _read_entry(entry, whose)
    return read


def _read_entry(entry: Any, whose: str) -> list[float]:
    if not isinstance(entry, list | tuple) or len(entry) != 2:
        _refuse_entry(whose, entry)
    dice, cases = entry
    if type(dice) not in (int, float) or type(cases) is not int or not 1 <= cases <= MOST_CASES:
        _refuse_entry(whose, entry)
    # `not` also finds NaN.
    if not -1e-6 <= dice <= cases + 1e-6:
        raise ValueError(
            f"{whose}: expected a sum of Dice from 0 to the number of cases, {cases}, got "
            f"{described(dice)}"
        )
    return [dice, cases]


def _refuse_entry(whose: str, entry: Any) -> NoReturn:
    shown = described(entry)
    if isinstance(entry, list | tuple) and len(entry) <= 2:
        shown = f"[{', '.join(map(described, entry))}]"
    raise ValueError(
        f"{whose}: expected [sum of Dice, number of cases] for each region, got {shown}"
    )


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
    # Sites of several versions may have scored other regions.
    regions = list(dict.fromkeys(region for by_region in sums.values() for region in by_region))
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
