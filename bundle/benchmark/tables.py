"""The numbers behind the report, one dictionary a row, as they go into the CSV files.

Dice is 0 to 1, differences are of Dice; None = not there (yet).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from bundle.atomic import write_text_atomically
from bundle.benchmark.ledger import cost_rows, run_rows
from bundle.benchmark.plan import COMPARED, SPECIALISTS, Group
from bundle.benchmark.results import Results, Row
from bundle.benchmark.statistics import (
    Difference,
    gap_closed,
    mean_and_spread,
    mean_dice,
    paired_difference,
    specialists_dice,
    subset_means,
)


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write rows under the names of their columns; None becomes empty, six decimals are kept."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
    write_text_atomically(path, text.getvalue())


def all_tables(results: Results) -> dict[str, list[Row]]:
    """Make every table that a grid has, by the name of its file."""
    tables = {
        "runs": run_rows(results),
        "methods": method_rows(results),
        "differences": difference_rows(results),
        "gaps": gap_rows(results),
        "ablation": ablation_rows(results),
        "subsets": subset_rows(results),
        "costs": cost_rows(results),
    }
    return {name: rows for name, rows in tables.items() if rows}


def method_rows(results: Results) -> list[Row]:
    """One row for every method and missing ratio: mean and spread over seeds, the worst subset."""
    return [
        _method_row(results, group, label, ratio)
        for group in COMPARED
        for label in results.labels(group)
        for ratio in results.ratios(group)
    ]


def _method_row(results: Results, group: Group, label: str, ratio: float) -> Row:
    found = results.of(group, label, ratio)
    dice, spread = mean_and_spread([result.dice for result in found.values()])
    subsets = subset_means(found)
    worst = min(subsets, key=lambda name: subsets[name]) if subsets else None
    return {
        "comparison": COMPARED[group],
        "method": label,
        "ratio": ratio,
        "seeds": len(found),
        "dice": dice,
        "spread": spread,
        "worst_subset": worst,
        "worst_dice": None if worst is None else subsets[worst],
        "not_possible": results.why_not(group, label, ratio),
    }


def difference_rows(results: Results) -> list[Row]:
    """One row for every opponent and missing ratio: reference minus opponent, paired."""
    reference = results.grid.reference
    rows = []
    for group, comparison in COMPARED.items():
        for label in results.labels(group):
            for ratio in results.ratios(group):
                if label != reference:
                    first = results.of("main", reference, ratio)
                    found = paired_difference(first, results.of(group, label, ratio))
                    row = {"comparison": comparison, "other": label, "ratio": ratio}
                    rows.append(row | _difference_columns(found))
    return rows


def _difference_columns(found: Difference | None) -> Row:
    if found is None:
        return dict.fromkeys(("difference", "low", "high", "seeds", "cases"))
    return {
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "seeds": found.seeds,
        "cases": found.cases,
    }


def gap_rows(results: Results) -> list[Row]:
    """One row for every missing ratio and comparison: how much of the gap to the specialists."""
    grid, ceiling = results.grid, mean_and_spread(list(specialists_dice(results).values()))[0]
    if not results.labels("specialist"):
        return []
    rows = []
    for group, comparison in COMPARED.items():
        for ratio in results.ratios(group):
            first = results.of("main", grid.reference, ratio)
            second = results.of(group, grid.baseline, ratio)
            reference = mean_dice({seed: first[seed] for seed in first.keys() & second.keys()})
            baseline = mean_dice({seed: second[seed] for seed in first.keys() & second.keys()})
            known = None not in (reference, baseline, ceiling)
            rows.append(
                {
                    "comparison": comparison,
                    "ratio": ratio,
                    "baseline": baseline,
                    "reference": reference,
                    SPECIALISTS: ceiling,
                    "closed": gap_closed(reference, baseline, ceiling) if known else None,
                }
            )
    return rows


def ablation_rows(results: Results) -> list[Row]:
    """One row for every change: changed minus whole, paired."""
    rows = []
    for ratio in results.ratios("ablation"):
        whole = results.of("main", results.grid.reference, ratio)
        for label in results.labels("ablation"):
            changed = results.of("ablation", label, ratio)
            found = paired_difference(changed, whole)
            row = {"change": label, "ratio": ratio, "dice": mean_dice(changed)}
            rows.append(row | _difference_columns(found))
    return rows


def subset_rows(results: Results) -> list[Row]:
    """One row for every method, missing ratio and subset: Dice over cases, regions and seeds."""
    rows = []
    for ratio in results.ratios("main"):
        means = {
            label: subset_means(results.of("main", label, ratio))
            for label in results.labels("main")
        }
        if ratio == 0 and results.labels("specialist"):
            means[SPECIALISTS] = specialists_dice(results)
        subsets = list(dict.fromkeys(subset for dice in means.values() for subset in dice))
        rows += [
            {"ratio": ratio, "subset": subset, "method": label, "dice": dice.get(subset)}
            for subset in subsets
            for label, dice in means.items()
        ]
    return rows
