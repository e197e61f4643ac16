"""The numbers behind the report, one dictionary a row, as they go into the CSV files.

Dice is 0 to 1, differences are of Dice; None = not there (yet).
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundle.atomic import write_text_atomically
from bundle.benchmark.cost import method_cost_rows
from bundle.benchmark.plan import COMPARED, SPECIALISTS, Group, Missing, Run
from bundle.benchmark.results import Result, Results, Row
from bundle.benchmark.statistics import (
    Difference,
    dice_of_given,
    gap_closed,
    mean_and_spread,
    mean_dice,
    paired_difference,
    region_means,
    specialists_dice,
    specialists_regions,
)


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write rows under the names of their columns; None becomes empty, six decimals are kept."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
    write_text_atomically(path, text.getvalue())


def all_tables(results: Results, costs: Mapping[str, Any] | None = None) -> dict[str, list[Row]]:
    """Make every table that a grid has, by the name of its file.

    Args:
        results: of the grid.
        costs: what `bundle.benchmark.cost.measure` returned; None = it was not measured.
    """
    tables = {
        "overview": overview_rows(results, costs),
        "runs": run_rows(results),
        "methods": method_rows(results),
        "differences": difference_rows(results),
        "gains": gain_rows(results),
        "gaps": gap_rows(results),
        "ablation": ablation_rows(results),
        "scans": scan_rows(results),
        "scan_differences": scan_difference_rows(results),
        "curve": curve_rows(results),
        "subsets": subset_rows(results),
        "costs": cost_rows(results),
    }
    return {name: rows for name, rows in tables.items() if rows}


def overview_rows(results: Results, costs: Mapping[str, Any] | None) -> list[Row]:
    """One row for every method: Dice at the grid's central missing ratio, and what it costs.

    [] for a grid that has no centre. The specialists' Dice is that on complete data.
    """
    centre = results.grid.centre
    if centre is None:
        return []
    cost = {row["method"]: row for row in method_cost_rows(costs)}
    unknown = dict.fromkeys(next(iter(cost.values())))
    rows = [
        _method_row(results, "main", label, centre)
        | _work_columns(results.of("main", label, centre))
        | {**cost.get(label, unknown), "method": label}
        for label in results.labels("main")
    ]
    if results.labels("specialist"):
        dice = _dice_columns(specialists_regions(results), results.regions)
        seeds = {run.seed for run in results.grid.runs if run.group == "specialist"}
        if dice["dice"] is not None:
            dice["seeds"] = len(seeds)
        rows.append({**dict.fromkeys(rows[0]), **dice, **cost[SPECIALISTS], "not_possible": ""})
    return rows


def _work_columns(found: Mapping[int, Result]) -> Row:
    """Average the steps of trainings and their work, in steps of a plain U-Net."""
    steps = mean_and_spread([result.steps for result in found.values()])[0]
    work = [result.plain_steps for result in found.values()]
    return {"steps": steps, "work": None if None in work else mean_and_spread(work)[0]}


def scan_rows(results: Results) -> list[Row]:
    """One row for every label and missing ratio: Dice by how many scans are given."""
    groups: tuple[Group, ...] = ("main", "ablation")
    return [
        {"method": label, "ratio": ratio, "seeds": len(found), **_by_scans(found)}
        for group in groups
        for label in results.labels(group)
        for ratio in results.ratios(group)
        if (found := results.of(group, label, ratio))
    ]


def _by_scans(found: Mapping[int, Result]) -> Row:
    dice = region_means(found)
    counts = sorted({subset.count("+") + 1 for subset in dice})
    means = {
        f"given {count}": float(
            np.mean([of.mean() for subset, of in dice.items() if subset.count("+") + 1 == count])
        )
        for count in counts
    }
    return {**means, "mean": mean_dice(found)}


def scan_difference_rows(results: Results) -> list[Row]:
    """One row for every method beside the baseline: paired differences by how many are given."""
    grid, rows = results.grid, []
    for group in ("main", "ablation"):
        for label in results.labels(group):
            for ratio in results.ratios(group):
                found = results.of(group, label, ratio)
                baseline = results.of("main", grid.baseline, ratio)
                if found and baseline and label != grid.baseline:
                    rows += _differences_by_scans(label, ratio, found, baseline)
    return rows


def _differences_by_scans(
    label: str, ratio: Missing, found: Mapping[int, Result], baseline: Mapping[int, Result]
) -> list[Row]:
    subsets = next(iter(found.values())).subsets
    rows = []
    for count in (*sorted({subset.count("+") + 1 for subset in subsets}), None):
        dice = functools.partial(dice_of_given, count=count)
        columns = _difference_columns(paired_difference(found, baseline, dice))
        rows.append({"method": label, "ratio": ratio, "given": count or "any", **columns})
    return rows


def method_rows(results: Results) -> list[Row]:
    """One row for every method and missing ratio: mean and spread over seeds, the worst subset."""
    return [
        _method_row(results, group, label, ratio)
        for group in COMPARED
        for label in results.labels(group)
        for ratio in results.ratios(group)
    ]


def _method_row(results: Results, group: Group, label: str, ratio: Missing) -> Row:
    found = results.of(group, label, ratio)
    return {
        "comparison": COMPARED[group],
        "method": label,
        "ratio": ratio,
        "seeds": len(found),
        "spread": mean_and_spread([result.dice for result in found.values()])[1],
        **_dice_columns(region_means(found), results.regions),
        "not_possible": results.why_not(group, label, ratio),
    }


def _dice_columns(dice: Mapping[str, np.ndarray], regions: Sequence[str]) -> Row:
    """Sum up Dice (R,) by subset: its mean, that of each region, and the worst subset."""
    if not dice:
        return dict.fromkeys(("dice", *regions, "worst_subset", "worst_dice"))
    worst = min(dice, key=lambda subset: dice[subset].mean())
    by_region = np.mean(list(dice.values()), axis=0)
    return {
        "dice": float(by_region.mean()),
        **dict(zip(regions, by_region.tolist(), strict=True)),
        "worst_subset": worst,
        "worst_dice": float(dice[worst].mean()),
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


def _beside_baseline(
    results: Results,
) -> Iterator[tuple[Row, dict[int, Result], dict[int, Result]]]:
    """Pair every method with the baseline: what is compared, and the results of both by seed."""
    grid = results.grid
    for group, comparison in COMPARED.items():
        for label in results.labels(group):
            for ratio in results.ratios(group):
                planned = any(
                    (run.group, run.label, run.missing) == (group, label, ratio)
                    for run in grid.runs
                )
                if planned and label != grid.baseline:
                    row = {"comparison": comparison, "method": label, "ratio": ratio}
                    baseline = results.of(group, grid.baseline, ratio)
                    yield row, results.of(group, label, ratio), baseline


def gain_rows(results: Results) -> list[Row]:
    """One row for every method, missing ratio and comparison: method minus baseline, paired."""
    return [
        row | _difference_columns(paired_difference(method, baseline))
        for row, method, baseline in _beside_baseline(results)
    ]


def gap_rows(results: Results) -> list[Row]:
    """One row for every method, missing ratio and comparison: the share of the gap it closes."""
    if not results.labels("specialist"):
        return []
    ceiling = mean_and_spread(list(specialists_dice(results).values()))[0]
    rows = []
    for row, first, second in _beside_baseline(results):
        both = first.keys() & second.keys()
        method = mean_dice({seed: first[seed] for seed in both})
        baseline = mean_dice({seed: second[seed] for seed in both})
        known = None not in (method, baseline, ceiling)
        rows.append(
            row
            | {
                "seeds": len(both),
                "baseline": baseline,
                "dice": method,
                SPECIALISTS: ceiling,
                "closed": gap_closed(method, baseline, ceiling) if known else None,
            }
        )
    return rows


def ablation_rows(results: Results) -> list[Row]:
    """One row for every change: changed minus whole, paired; first those of compared methods."""
    rows = []
    centre = results.grid.centre
    for change in results.grid.changes if centre is not None else ():
        for group, comparison in COMPARED.items():
            name = change.name if group == "main" else f"{change.name}, {comparison}"
            changed = results.of(group, change.label, centre)
            unchanged = results.of(group, change.whole, centre)
            rows.append(_ablation_row(name, change.whole, centre, changed, unchanged))
    wholes = {
        run.label: run.whole or results.grid.reference
        for run in results.grid.runs
        if run.group == "ablation"
    }
    for ratio in results.ratios("ablation"):
        for label, whole in wholes.items():
            changed = results.of("ablation", label, ratio)
            unchanged = results.of("main", whole, ratio)
            rows.append(_ablation_row(label, whole, ratio, changed, unchanged))
    return rows


def _ablation_row(
    name: str,
    whole: str,
    ratio: Missing,
    changed: Mapping[int, Result],
    unchanged: Mapping[int, Result],
) -> Row:
    row = {"change": name, "whole": whole, "ratio": ratio, "dice": mean_dice(changed)}
    return row | _difference_columns(paired_difference(changed, unchanged))


def subset_rows(results: Results) -> list[Row]:
    """One row for every method, missing ratio and subset: Dice over cases and seeds, by region."""
    rows = []
    for ratio in results.ratios("main"):
        means = {
            label: region_means(results.of("main", label, ratio))
            for label in results.labels("main")
        }
        if ratio == 0 and results.labels("specialist"):
            means[SPECIALISTS] = specialists_regions(results)
        subsets = list(dict.fromkeys(subset for dice in means.values() for subset in dice))
        rows += [
            {
                "ratio": ratio,
                "subset": subset,
                "method": label,
                **_subset_columns(dice.get(subset), results.regions),
            }
            for subset in subsets
            for label, dice in means.items()
        ]
    return rows


def _subset_columns(dice: np.ndarray | None, regions: Sequence[str]) -> Row:
    if dice is None:
        return dict.fromkeys(("dice", *regions))
    return {"dice": float(dice.mean()), **dict(zip(regions, dice.tolist(), strict=True))}


def curve_rows(results: Results) -> list[Row]:
    """One row for every length of a training: Dice, and what doubling the length brought.

    [] for a grid whose labels are not lengths.
    """
    lengths = sorted(int(label) for label in results.labels("main") if label.isdigit())
    rows = []
    for length in lengths if len(lengths) > 1 else ():
        (ratio,) = results.ratios("main")
        found, half = (results.of("main", str(n), ratio) for n in (length, length // 2))
        rows.append(
            {
                "steps": length,
                "dice": mean_dice(found),
                **({} if not found else _by_scans(found)),
                **_difference_columns(paired_difference(found, half)),
                "seeds": len(found),
            }
        )
    return [row for row in rows if row["seeds"]]


def run_rows(results: Results) -> list[Row]:
    """One row a planned run: what came of it and what it cost."""
    return [_run_row(run, results.finished.get(run.name)) for run in results.grid.runs]


def _run_row(run: Run, result: Result | None) -> Row:
    row = {"run": run.name, "group": run.group, "label": run.label}
    row |= {"ratio": run.missing, "seed": run.seed}
    made = result if result is not None and not result.not_possible else None
    state = "missing" if result is None else (result.not_possible or "finished")
    return row | {
        "state": state,
        "dice": made and made.dice,
        "training_cases": made and made.record["stages"][-1]["training_cases"],
        "steps": made and made.steps,
        "work": made and made.plain_steps,
        "cpu_seconds": made and made.cpu_seconds,
        "evaluation_cpu_seconds": made and made.record["evaluation"]["cpu_seconds"],
        "date": result and result.record["date"],
    }


def cost_rows(results: Results) -> list[Row]:
    """One row for every kind of run and device: what one training costs, mean over the runs."""
    kinds: dict[tuple[str, str], dict[str, list[Result]]] = {}
    for run in results.grid.runs:
        label = SPECIALISTS if run.group == "specialist" else run.label
        found = kinds.setdefault((COMPARED.get(run.group, run.group), label), {})
        result = results.finished.get(run.name)
        if result is not None and not result.not_possible:
            found.setdefault(result.device, []).append(result)
    return [
        _cost_row(*kind, device, by_device.get(device, []))
        for kind, by_device in kinds.items()
        for device in sorted(by_device) or [""]
    ]


def _cost_row(kind: str, label: str, device: str, found: Sequence[Result]) -> Row:
    steps = mean_and_spread([result.steps for result in found])[0]
    seconds = mean_and_spread([result.cpu_seconds for result in found])[0]
    return {
        "comparison": kind,
        "method": label,
        "device": device,
        "runs": len(found),
        "steps": steps,
        "cpu_seconds": seconds,
        "cpu_ms_per_step": 1000 * seconds / steps if steps and seconds is not None else None,
    }
