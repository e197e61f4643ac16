"""Score rows averaged as the papers do: over cases, then over modality subsets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from bundle.evaluation.metrics import Score
from bundle.modalities import all_subsets, subset_name

# What is averaged: the names of `Score`'s numbers.
SCORES = ("dice", "hd95", "nsd", "bias_ml")
_PAPER_REGIONS = ("WT", "TC", "ET")


def summarise(
    rows: Sequence[Score], modalities: Sequence[str], regions: Sequence[str]
) -> dict[str, Any]:
    """Average the rows: over cases within a subset, then over subsets, as the papers do.

    Args:
        rows: the scores, in any order.
        modalities: the vocabulary.
        regions: the names of the regions; BraTS regions are put into the papers' order WT, TC, ET.

    Returns:
        A JSON-able dictionary: `modalities`, `regions`, `cases` (how many), `subsets` (every subset
        in the papers' order, each with `cases`, and by region `SCORES` and `lost`), `mean`
        (`SCORES` by region, and `dice_all` over the regions too) and `worst_subset` (`name` and its
        `dice` over the regions). Dice and NSD are 0 to 1, HD95 in mm, the bias in mL; None = no
        case could form the subset, or the score was not computed. `lost` = how many cases have an
        infinite HD95; it is averaged over the others.

    Raises:
        ValueError: no rows, or rows of unknown subsets or regions.
    """
    names = [subset_name(subset, modalities) for subset in all_subsets(modalities)]
    ordered = list(_PAPER_REGIONS if set(regions) == set(_PAPER_REGIONS) else regions)
    _check_rows(rows, names, ordered)
    subsets = {
        name: _average([row for row in rows if row.subset == name], ordered) for name in names
    }
    formed = {name: entry for name, entry in subsets.items() if entry["cases"]}
    mean = {
        score: {
            region: mean_of_known(entry[score][region] for entry in formed.values())
            for region in ordered
        }
        for score in SCORES
    }
    over_regions = {name: mean_of_known(entry["dice"].values()) for name, entry in formed.items()}
    worst = min(over_regions, key=lambda name: over_regions[name])
    return {
        "modalities": list(modalities),
        "regions": ordered,
        "cases": len({row.case for row in rows}),
        "subsets": subsets,
        "mean": {**mean, "dice_all": mean_of_known(mean["dice"].values())},
        "worst_subset": {"name": worst, "dice": over_regions[worst]},
    }


def _check_rows(rows: Sequence[Score], subsets: Sequence[str], regions: Sequence[str]) -> None:
    if not rows:
        raise ValueError("expected at least one score row, got none. Evaluate at least one case.")
    for row in rows:
        if row.subset not in subsets or row.region not in regions:
            raise ValueError(
                f"case {row.case}: expected a subset of {subsets[-1]!r} and a region of "
                f"{list(regions)}, got subset {row.subset!r} and region {row.region!r}. "
                "Summarise the rows with the vocabulary they were made with."
            )


def _average(rows: Sequence[Score], regions: Sequence[str]) -> dict[str, Any]:
    of_region = {region: [row for row in rows if row.region == region] for region in regions}
    averages = {
        score: {
            region: mean_of_known(getattr(row, score) for row in some)
            for region, some in of_region.items()
        }
        for score in SCORES
    }
    lost = {region: sum(map(_is_lost, some)) for region, some in of_region.items()}
    return {"cases": len({row.case for row in rows}), **averages, "lost": lost}


def _is_lost(row: Score) -> bool:
    return math.isinf(row.hd95)


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Average the numbers; None = there are none. Infinite ones are counted elsewhere."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return math.fsum(known) / len(known) if known else None
