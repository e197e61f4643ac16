"""Counting what a set of cases holds, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bundle.modalities import subset_name


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
