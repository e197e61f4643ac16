"""The cases and subsets that were segmented worst: where to look first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bundle.evaluation.metrics import Score
from bundle.evaluation.tables import markdown

SHOWN = 10


@dataclass(frozen=True)
class WorstRow:
    """One case, seen through one subset.

    Attributes:
        case: the case's name.
        given: the subset, such as 't1+flair'.
        dice: mean over the regions, 0 to 1.
        by_region: Dice of each, such as 'TC 0.12, WT 0.80, ET 0.00'.
    """

    case: str
    given: str
    dice: float
    by_region: str


def worst_rows(rows: Sequence[Score], shown: int = SHOWN) -> list[WorstRow]:
    """Pick the pairs of case and subset of the lowest mean Dice, the lowest first.

    Args:
        rows: scores, in any order.
        shown: how many at most; of equal ones those whose names come first.
    """
    pairs: dict[tuple[str, str], list[Score]] = {}
    for row in rows:
        pairs.setdefault((row.case, row.subset), []).append(row)
    found = [
        WorstRow(
            case,
            subset,
            math.fsum(row.dice for row in some) / len(some),
            ", ".join(f"{row.region} {row.dice:.2f}" for row in some),
        )
        for (case, subset), some in pairs.items()
    ]
    return sorted(found, key=lambda row: (row.dice, row.case, row.given))[:shown]


def worst_table(rows: Sequence[WorstRow]) -> str:
    """Write the worst pairs as a Markdown table."""
    body = [[row.case, row.given, row.by_region, f"{100 * row.dice:.1f}"] for row in rows]
    return markdown(["worst cases", "given", "by region", "Dice %"], body, left=3)
