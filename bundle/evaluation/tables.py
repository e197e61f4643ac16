"""Scores as Markdown, CSV and JSON; every Markdown table of the project is written here."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from bundle.atomic import write_text_atomically
from bundle.evaluation.metrics import Score
from bundle.evaluation.summary import SCORES, mean_of_known
from bundle.modalities import parse_subset, table_rows

_NARROWEST = len("--:")  # what GitHub needs between two bars to see a table
_PRESENT, _ABSENT, _NOT_FORMED = "\N{BLACK CIRCLE}", "\N{WHITE CIRCLE}", "\N{EN DASH}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Write a GitHub table that is also aligned in a terminal.

    Numbers go to the right, under each other. A bar in a cell is escaped.

    Args:
        head: the name of each column.
        rows: one text a column.
        left: how many columns, from the first, hold words, which go to the left.

    Returns:
        The table, ending with a line break.

    Raises:
        ValueError: a row that has more or fewer cells than the head.
    """
    cells = [[text.replace("|", "\\|") for text in line] for line in (head, *rows)]
    odd = next((line for line in cells if len(line) != len(head)), None)
    if odd is not None:
        raise ValueError(
            f"expected {len(head)} cells, one for each of {list(head)}, got {len(odd)}: {odd}. "
            "Give every row a text for each column."
        )
    widths = [max(_NARROWEST, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = [":" + "-" * (width - 1) for width in widths[:left]]
    rule += ["-" * (width - 1) + ":" for width in widths[left:]]
    padded = [
        [*map(str.ljust, line[:left], widths), *map(str.rjust, line[left:], widths[left:])]
        for line in (cells[0], rule, *cells[1:])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded) + "\n"


def markdown_table(summary: Mapping[str, Any]) -> str:
    """Write a summary in the papers' layout, as a GitHub table that is also aligned in a terminal.

    One column per subset and one for their mean. On top the modalities, ● = given, ○ = withheld;
    then Dice in per cent and, where they were computed, HD95 in mm, how many cases have an infinite
    one, NSD in per cent and the bias of the volume in mL. A dash stands for a subset that no case
    could form.
    """
    subsets = [parse_subset(name, summary["modalities"]) for name in summary["subsets"]]
    lines = [
        [modality, *(_PRESENT if modality in subset else _ABSENT for subset in subsets), ""]
        for modality in table_rows(summary["modalities"])
    ]
    lines[0][-1] = "mean"
    lines += _score_lines(summary, "dice", "Dice {} %", 100)
    if any(value is not None for value in summary["mean"]["hd95"].values()):
        lines += _score_lines(summary, "hd95", "HD95 {} mm", 1)
    lines += _lost_lines(summary)
    if any(value is not None for value in summary["mean"]["nsd"].values()):
        lines += _score_lines(summary, "nsd", "NSD {} %", 100)
    if any(value is not None for value in summary["mean"]["bias_ml"].values()):
        lines += _score_lines(summary, "bias_ml", "bias {} mL", 1)
    return markdown(lines[0], lines[1:])


def _lost_lines(summary: Mapping[str, Any]) -> list[list[str]]:
    """Count, of each region, the cases whose HD95 is infinite; [] where there is none."""
    columns = [entry["lost"] for entry in summary["subsets"].values()]
    if not any(count for column in columns for count in column.values()):
        return []
    return [
        [f"HD95 {region} infinite", *(str(column[region]) for column in columns), ""]
        for region in summary["regions"]
    ]


def rules_line(hd95_empty: str, nsd_tolerance: float | None) -> str:
    """Say by which rules the distances of a table were computed."""
    nsd = "" if nsd_tolerance is None else f" NSD: within {nsd_tolerance:g} mm."
    return (
        f"HD95 where exactly one of prediction and reference is empty: {hd95_empty} mm.{nsd} "
        "Both empty: Dice and NSD 1, HD95 0. Bias: predicted minus true volume.\n"
    )


def _score_lines(
    summary: Mapping[str, Any], score: str, title: str, scale: float
) -> list[list[str]]:
    columns = [entry[score] for entry in (*summary["subsets"].values(), summary["mean"])]
    by_region = {region: [column[region] for column in columns] for region in summary["regions"]}
    if len(by_region) > 1:
        by_region["mean"] = [mean_of_known(column.values()) for column in columns]
    return [
        [title.format(name), *(_cell(value, scale) for value in values)]
        for name, values in by_region.items()
    ]


def _cell(value: float | None, scale: float) -> str:
    return _NOT_FORMED if value is None else f"{scale * value:.1f}"


def write_csv(rows: Sequence[Any], path: str | Path, kind: type = Score) -> None:
    """Write one line per row under a header; all digits are kept, and None becomes an empty cell.

    Args:
        rows: instances of `kind`.
        path: replaced once everything is written.
        kind: a dataclass, whose fields are the columns; for `Score` they are
            case,subset,region,dice,hd95,nsd,bias_ml.
    """
    lines = io.StringIO(newline="")
    writer = csv.DictWriter(lines, [column.name for column in fields(kind)])
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_text_atomically(path, lines.getvalue())


def read_csv(path: str | Path) -> list[Score]:
    """Read what `write_csv` wrote, number for number."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [
            Score(
                row["case"],
                row["subset"],
                row["region"],
                *(float(row.get(name) or "nan") for name in SCORES),
            )
            for row in csv.DictReader(file)
        ]


def write_json(summary: Mapping[str, Any], path: str | Path) -> None:
    """Write a summary as JSON, strictly: NaN is refused, None becomes null."""
    write_text_atomically(path, json.dumps(summary, indent=2, allow_nan=False) + "\n")
