"""The reports on grids: tables as CSV files, pictures, and Markdown text from the templates."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bundle.atomic import write_text_atomically
from bundle.benchmark import cost, layout, rebuilding
from bundle.benchmark.pictures import (
    draw_ablation,
    draw_curve,
    draw_methods,
    draw_overview,
    draw_sites,
    write_picture,
)
from bundle.benchmark.plan import SPECIALISTS, OwnCases, Phantom
from bundle.benchmark.realism import compare
from bundle.benchmark.realism_report import draw_realism, realism_sentence, realism_table
from bundle.benchmark.results import Results, Row
from bundle.benchmark.sites import MEANING, by_arm, seed_dice, site_tables, sites_of
from bundle.benchmark.statistics import mean_and_spread, region_means, specialists_dice
from bundle.benchmark.tables import all_tables, write_csv
from bundle.evaluation.bootstrap import RESAMPLES

REPORT = "report.md"
SUBSETS = "subsets.md"
# Of the third report, whose grid has sites in place of missing ratios.
SITES_PICTURE = "sites.png"


def write_report(results: Results, output_dir: str | Path) -> Path:
    """Write report.md, the tables as CSV files and the pictures into the grid's folder.

    So that grids which share their runs in `output_dir` have a report each. Dice of every subset
    and region, which is long, goes into subsets.md.

    Returns:
        The path of report.md.
    """
    folder = Path(output_dir) / (results.grid.folder or results.grid.name)
    if any(run.federation is not None for run in results.grid.runs):
        return _write_on_sites(results, folder)
    return _write_on_methods(results, folder, Path(output_dir))


def _write_on_methods(results: Results, folder: Path, output_dir: Path) -> Path:
    costs = cost.read(output_dir)
    tables = all_tables(results, costs)
    _write_csv_files(tables, folder)
    ceiling = mean_and_spread(list(specialists_dice(results).values()))[0]
    write_picture(draw_methods(tables["methods"], ceiling), folder / "dice.png")
    if "ablation" in tables:
        write_picture(draw_ablation(tables["ablation"]), folder / "ablation.png")
    if "overview" in tables:
        write_picture(draw_overview(tables["overview"]), folder / "overview.png")
    if "curve" in tables:
        write_picture(draw_curve(tables["curve"]), folder / "curve.png")
    known = {
        **_opening(results),
        "curve": _curve(tables.get("curve", [])),
        "scans_by_ratio": _by_ratio(tables.get("scans", [])),
        "scan_differences_by_ratio": _by_ratio(tables.get("scan_differences", [])),
        "realism": _realism(results, folder),
        "tables": tables,
        "regions": results.regions,
        "specialists": SPECIALISTS,
        "subsets_by_ratio": _by_ratio(tables.get("subsets", [])),
        "subsets_file": SUBSETS,
        "costs": costs,
        "cost_table": cost.table(costs) if costs is not None else "",
        "rebuilding_table": _rebuilding_table(output_dir / rebuilding.FILE),
    }
    if "subsets" in tables:
        _write("subsets.md.j2", known, folder / SUBSETS)
    return _write("methods.md.j2", known, folder / REPORT)


def _curve(rows: Sequence[Row]) -> dict[str, str]:
    """Say what the last doubling of the length brought; {} = there is no curve."""
    doubled = [row for row in rows if row["difference"] is not None]
    if not doubled:
        return {}
    last = doubled[-1]
    return {
        "sentence": f"Doubling {last['steps'] // 2} to {last['steps']} steps brings "
        f"{layout.interval(last)} points ({last['seeds']} seeds, {last['cases']} cases)."
    }


def _realism(results: Results, folder: Path) -> dict[str, str]:
    """Compare what a grid is made to compare with the published profile, and draw it."""
    if not results.grid.is_profile or not results.finished:
        return {}
    found = results.of("main", results.grid.reference, results.grid.runs[0].missing)
    values = {
        subset: dict(zip(results.regions, dice.tolist(), strict=True))
        for subset, dice in region_means(found).items()
    }
    compared = compare(values)
    write_picture(draw_realism(values), folder / "realism.png")
    return {"table": realism_table(compared), "sentence": realism_sentence(compared)}


def _write_on_sites(results: Results, folder: Path) -> Path:
    tables, arms = site_tables(results), by_arm(results)
    _write_csv_files(tables, folder)
    known = {
        **_opening(results),
        "tables": tables,
        "meaning": {name: text for name, text in MEANING.items() if name in arms},
        "rebuilt": next(
            (
                r.record["rebuilt"]
                for runs in arms.values()
                for r in runs.values()
                if r.record["rebuilt"]
            ),
            None,
        ),
        "picture": SITES_PICTURE,
    }
    if arms:
        sites = sites_of(next(iter(next(iter(arms.values())).values())))
        dots = {name: seed_dice(runs) for name, runs in arms.items()}
        write_picture(draw_sites(tables["sites"], sites, dots), folder / SITES_PICTURE)
    return _write("sites.md.j2", known, folder / REPORT)


def _write_csv_files(tables: Mapping[str, Sequence[Row]], folder: Path) -> None:
    for name, rows in tables.items():
        write_csv(rows, folder / "tables" / f"{name}.csv")


def _write(template: str, known: Mapping[str, Any], path: Path) -> Path:
    """Fill in a template; what it leaves out leaves no gap."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(layout=layout, resamples=RESAMPLES, **known)
    write_text_atomically(path, re.sub(r"\n{3,}", "\n\n", text).strip() + "\n")
    return path


def _opening(results: Results) -> dict[str, Any]:
    """Collect what every report says first: what was run, when, where and of which state."""
    grid, finished = results.grid, list(results.finished.values())
    made = [result for result in finished if not result.not_possible]
    records = [result.record for result in made]
    devices = [record.get("device", "cpu") for record in records]
    return {
        "grid": grid,
        "data": _data(grid.runs[0].data),
        "federation": grid.runs[0].federation,
        "seeds": sorted({run.seed for run in grid.runs if run.group in ("main", "federation")}),
        "specialist_seeds": sorted({run.seed for run in grid.runs if run.group == "specialist"}),
        "finished": len(finished),
        "impossible": sum(bool(result.not_possible) for result in finished),
        "made": len(made),
        "days": sorted(record["date"][:10] for record in records),
        "processors": sorted({record["cpu"] for record in records}),
        "hours": sum(result.seconds for result in made) / 3600,
        "gpus": sorted(set(devices) - {"cpu"}),
        "on_gpus": sum(device != "cpu" for device in devices),
        "versions": sorted(
            {f"{n} {v}" for record in records for n, v in record["versions"].items()}
        ),
        "changed_files": _changed_files(records),
    }


def _data(data: Phantom | OwnCases) -> str:
    counts = f"{data.training} training and {data.testing} testing cases"
    if isinstance(data, OwnCases):
        return f"{counts} of one's own"
    what = "ICBM 2009a heads at 3 mm" if data.size is None else f"{data.size} voxels a side"
    return f"the phantom, {counts}, {what}; no patient"


def _changed_files(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the files that were edited between two runs of one table."""
    states: dict[str, set[str]] = {}
    for record in records:
        for name, digest in record.get("files", {}).items():
            states.setdefault(name, set()).add(digest)
    return sorted(name for name, digests in states.items() if len(digests) > 1)


def _by_ratio(rows: Sequence[Row]) -> dict[str, list[Row]]:
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(layout.missing(row), []).append(row)
    return parts


def _rebuilding_table(path: Path) -> str:
    if not path.is_file():
        return ""
    return rebuilding.table(json.loads(path.read_text(encoding="utf-8")))
