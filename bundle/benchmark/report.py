"""The report on a grid: what was run, what came out, and what each comparison is worth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.atomic import write_text_atomically
from bundle.benchmark import cost, markdown, rebuilding
from bundle.benchmark.pictures import draw_ablation, draw_methods, draw_overview, write_picture
from bundle.benchmark.plan import SPECIALISTS, OwnCases, Phantom
from bundle.benchmark.results import Result, Results, Row
from bundle.benchmark.statistics import RESAMPLES, mean_and_spread, specialists_dice
from bundle.benchmark.tables import all_tables, write_csv

REPORT = "report.md"
SUBSETS = "subsets.md"


def write_report(results: Results, output_dir: str | Path) -> Path:
    """Write report.md, the tables as CSV files and the pictures into a folder of the grid's name.

    So that grids which share their runs in `output_dir` have a report each. Dice of every subset
    and region, which is long, goes into subsets.md.

    Returns:
        The path of report.md.
    """
    folder = Path(output_dir) / results.grid.name
    tables = all_tables(results, cost.read(output_dir))
    for name, rows in tables.items():
        write_csv(rows, folder / "tables" / f"{name}.csv")
    ceiling = mean_and_spread(list(specialists_dice(results).values()))[0]
    write_picture(draw_methods(tables["methods"], ceiling), folder / "dice.png")
    if "ablation" in tables:
        write_picture(draw_ablation(tables["ablation"]), folder / "ablation.png")
    if "overview" in tables:
        write_picture(draw_overview(tables["overview"]), folder / "overview.png")
    if "subsets" in tables:
        write_text_atomically(folder / SUBSETS, _every_region(tables["subsets"], results))
    sections = [
        _opening(results),
        _overview(tables.get("overview", []), results),
        _methods(tables["methods"], results),
        _differences(tables.get("differences", []), results),
        _gains(tables.get("gains", []), results),
        _gaps(tables.get("gaps", []), results),
        _ablation(tables.get("ablation", []), results),
        _subsets(tables.get("subsets", [])),
        _costs(tables["costs"]),
        _ratios(output_dir),
        _rebuilding(Path(output_dir) / rebuilding.FILE),
    ]
    write_text_atomically(folder / REPORT, "\n\n".join(filter(None, sections)).rstrip() + "\n")
    return folder / REPORT


def _opening(results: Results) -> str:
    grid, finished = results.grid, list(results.finished.values())
    made = [result for result in finished if not result.not_possible]
    lines = [
        f"# Benchmark `{grid.name}`",
        "",
        f"Made by `python -m bundle benchmark OUTPUT_DIR --grid {grid.name}`: "
        f"**{len(finished)} of {len(grid.runs)} runs**{_impossible(finished)}.",
        "",
        f"- Data: {_data(grid.runs[0].data)}. All seeds share the cases; the seed decides "
        "which scans of the training cases are missing, the weights and the order of the cases. "
        "Testing cases are complete and tested on every subset.",
        f"- Seeds: {_listed(sorted({run.seed for run in grid.runs if run.group == 'main'}))}. "
        "No network is chosen on held-out cases: the one after the last step is tested.",
        *_circumstances(made),
        *(f"- {note}" for note in grid.notes),
    ]
    return "\n".join(lines)


def _data(data: Phantom | OwnCases) -> str:
    counts = f"{data.training} training and {data.testing} testing cases"
    if isinstance(data, OwnCases):
        return f"{counts} of one's own"
    return f"the phantom, {counts} of {data.size} voxels a side; no patient"


def _impossible(finished: Sequence[Result]) -> str:
    count = sum(bool(result.not_possible) for result in finished)
    return f", {count} of them not possible for want of complete cases" if count else ""


def _circumstances(made: Sequence[Result]) -> list[str]:
    if not made:
        return ["- No run has finished yet."]
    records = [result.record for result in made]
    days = sorted(record["date"][:10] for record in records)
    seconds = sum(r.cpu_seconds + r.record["evaluation"]["cpu_seconds"] for r in made)
    versions = {f"{n} {v}" for record in records for n, v in record["versions"].items()}
    return [
        f"- Made {days[0]} to {days[-1]} on {_listed(sorted({r['cpu'] for r in records}))}, one "
        f"core a run; {seconds / 3600:.1f} hours of CPU time in all, evaluations included.",
        *_on_a_gpu(records),
        f"- Versions: {_listed(sorted(versions))}.",
        *_changed_files(made),
    ]


def _on_a_gpu(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which runs a GPU made, and what CPU time then means."""
    gpus = sorted({record["device"] for record in records} - {"cpu"})
    if not gpus:
        return []
    count = sum(record["device"] != "cpu" for record in records)
    return [
        f"- {count} of {len(records)} runs trained on {_listed(gpus)}, which several runs shared: "
        "their CPU time is that of the process that drives it, waiting for it included."
    ]


def _changed_files(made: Sequence[Result]) -> list[str]:
    """Own up to runs of one table that were made before and after a file was edited."""
    states: dict[str, set[str]] = {}
    for result in made:
        for name, digest in result.record["files"].items():
            states.setdefault(name, set()).add(digest)
    mixed = sorted(name for name, digests in states.items() if len(digests) > 1)
    return [f"- **Not all runs had the same {_listed(mixed)}.**"] if mixed else []


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))


def _overview(rows: Sequence[Row], results: Results) -> str:
    if not rows:
        return ""
    grid = results.grid
    lines = [
        "## Everything at a glance",
        "",
        f"At a missing ratio of {grid.centre:g}. *Dice*: mean over all subsets, regions and "
        "testing cases, \N{PLUS-MINUS SIGN} standard deviation over seeds, with equal steps; then "
        "that of each region and of the worst subset. *Equal CPU time*: Dice with the CPU seconds "
        f"of {grid.reference}'s training. Costs are ratios to the plain U-Net, from `--grid cost`: "
        "a training step, the peak of resident memory of a training process, the parameters of the "
        "network that is deployed, personalised for its subset where it can be, and the time of a "
        f"window. {grid.reference}'s step is that of its second stage.",
    ]
    if any(row["method"] == SPECIALISTS for row in rows):
        lines[-1] += (
            " The specialists are trained on complete data; there are fifteen of them, each with "
            "the steps of a whole training."
        )
    if all(row["step"] is None for row in rows):
        lines[-1] += " **The costs have not been measured in this folder yet.**"
    lines += [
        "",
        markdown.overview_table(rows, results.regions),
        "![Dice against the CPU time of a training](overview.png)",
    ]
    return "\n".join(lines)


def _methods(rows: Sequence[Row], results: Results) -> str:
    return "\n".join(
        [
            "## Dice by method and missing ratio",
            "",
            "Mean over all subsets, regions and testing cases, \N{PLUS-MINUS SIGN} standard "
            "deviation over seeds. *Equal steps* (where nothing is said): as many optimiser steps, "
            "of the same batch size, as all stages of the reference together. *Equal CPU time*: as "
            "many epochs as fit into the CPU seconds that the reference's training took, of the "
            "same seed.",
            "",
            markdown.methods_table(rows),
            "![Dice against the missing ratio](dice.png)",
            "",
            *([markdown.regions_table(rows, results.regions)] if results.regions else []),
            markdown.worst_table(rows).rstrip(),
        ]
    )


def _differences(rows: Sequence[Row], results: Results) -> str:
    if not rows:
        return ""
    return "\n".join(
        [
            f"## {results.grid.reference} minus the others",
            "",
            "Percentage points of Dice, paired by seed and testing case; in brackets the 95 % "
            f"bootstrap interval ({RESAMPLES} resamples of seeds and of cases). "
            "Above 0: the reference is better. So few seeds say little about how much trainings "
            "differ, so the intervals are rather too narrow than too wide; with one seed they hold "
            "for these trainings only.",
            "",
            markdown.differences_table(rows).rstrip(),
        ]
    )


def _gains(rows: Sequence[Row], results: Results) -> str:
    if not rows:
        return ""
    return "\n".join(
        [
            f"## The others minus {results.grid.baseline}",
            "",
            "As above, but above 0: the method is better than the baseline. Both have the same "
            f"steps, or both the CPU time of {results.grid.reference}'s training.",
            "",
            markdown.gains_table(rows).rstrip(),
        ]
    )


def _gaps(rows: Sequence[Row], results: Results) -> str:
    if not rows:
        return ""
    seeds = sorted({run.seed for run in results.grid.runs if run.group == "specialist"})
    return "\n".join(
        [
            "## Share of the gap to the specialists",
            "",
            "A specialist is a plain network for one subset, trained on complete data, with as "
            "many steps as each method here has for all subsets: fifteen times the training "
            f"(seeds: {_listed(seeds)}). The gap is between {results.grid.baseline} and the mean "
            "of the specialists; 100 % = as good as they. At missing ratios above 0 they have "
            "seen more data than the methods.",
            "",
            markdown.gaps_table(rows).rstrip(),
        ]
    )


def _ablation(rows: Sequence[Row], results: Results) -> str:
    if not rows:
        return ""
    return "\n".join(
        [
            "## What each part is worth",
            "",
            f"{_listed(dict.fromkeys(row['whole'] for row in rows))} with one thing changed, "
            "with the same number of steps where nothing else is said, at a "
            f"missing ratio of {rows[0]['ratio']:g}; changed minus whole, as above. Below 0: the "
            "change does harm.",
            "",
            markdown.ablation_table(rows),
            "![What changes when a part is changed](ablation.png)",
        ]
    )


def _subsets(rows: Sequence[Row]) -> str:
    lines = [
        "## Dice by subset",
        "",
        f"Mean over regions; for each region see [{SUBSETS}]({SUBSETS}).",
    ]
    for missing, here in _by_ratio(rows).items():
        lines += ["", f"Missing ratio {missing}:", "", markdown.subsets_table(here).rstrip()]
    return "\n".join(lines) if rows else ""


def _every_region(rows: Sequence[Row], results: Results) -> str:
    lines = [
        f"# Benchmark `{results.grid.name}`: Dice by subset and region",
        "",
        "Per cent, mean over testing cases and seeds, with equal steps.",
    ]
    for missing, here in _by_ratio(rows).items():
        lines += ["", f"## Missing ratio {missing}"]
        for region in results.regions:
            corner = f"{region}, given"
            lines += ["", markdown.subsets_table(here, region, corner).rstrip()]
    return "\n".join(lines) + "\n"


def _by_ratio(rows: Sequence[Row]) -> dict[str, list[Row]]:
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(markdown.missing(row), []).append(row)
    return parts


def _costs(rows: Sequence[Row]) -> str:
    return "\n".join(
        [
            "## Cost of one training",
            "",
            "Means over missing ratios and seeds; CPU seconds of one core, data preparation "
            "included, evaluation not. Compare those of one device only.",
            "",
            markdown.costs_table(rows).rstrip(),
        ]
    )


def _ratios(folder: str | Path) -> str:
    costs = cost.read(folder)
    if costs is None:
        return ""
    settings = costs["settings"]
    return "\n".join(
        [
            "## Cost beside the plain U-Net",
            "",
            f"`--grid cost`, {costs['date'][:10]}: medians of {settings['repeats']} turns, one "
            f"core, crops of {settings['crop']} in batches of {settings['batch']}, windows of "
            f"{settings['window']} voxels a side. Training steps are of cases that lack half of "
            "their scans, inference is on three of four. Memory of a training is the peak of a "
            "whole process, most of which is what libraries take; beside it what the steps add to "
            "it. A universal step is one of stage 2.",
            "",
            cost.table(costs).rstrip(),
        ]
    )


def _rebuilding(path: Path) -> str:
    if not path.is_file():
        return ""
    return "\n".join(
        [
            "## A modality that was never scanned together with another one",
            "",
            "`--grid rebuilding`: half of the training cases have FLAIR alone, the rest the other "
            "three. FLAIR of complete testing cases, rebuilt from those three after pre-training; "
            "inside the brain, mean over cases, then over seeds (lowest to highest seed).",
            "",
            rebuilding.table(json.loads(path.read_text(encoding="utf-8"))).rstrip(),
        ]
    )
