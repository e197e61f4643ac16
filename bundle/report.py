"""What a person reads after an evaluation: tables, files and pictures, made from score rows."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from torch import Tensor

from bundle.atomic import write_text_atomically, written_atomically
from bundle.contact_sheet import AxialView, CaseSlices, draw_contact_sheet, label_names, window
from bundle.heatmap import draw_heatmap
from bundle.metrics import Score, SubsetScores, field_of, gather_lists, items_of
from bundle.modalities import (
    all_subsets,
    check_modalities,
    names_of,
    parse_subset,
    subset_name,
    table_rows,
)
from bundle.regions import Regions, check_regions, regions_to_labels

logger = logging.getLogger(__name__)

REPORT_FILES = ("scores.csv", "summary.json", "table.md", "heatmap.png", "contact_sheet.png")

_PAPER_REGIONS = ("WT", "TC", "ET")
_NARROWEST = len("--:")  # what GitHub needs between two bars to see a table
_PRESENT, _ABSENT, _NOT_FORMED = "\N{BLACK CIRCLE}", "\N{WHITE CIRCLE}", "\N{EN DASH}"


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
        in the papers' order, each with `cases`, `dice` and `hd95` by region), `mean` (`dice` and
        `hd95` by region, and `dice_all` over the regions too) and `worst_subset` (`name` and its
        `dice` over the regions). Dice is 0 to 1, HD95 in mm; None = nobody could form the subset,
        or the score was not computed.

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
            region: _mean(entry[score][region] for entry in formed.values()) for region in ordered
        }
        for score in ("dice", "hd95")
    }
    over_regions = {name: _mean(entry["dice"].values()) for name, entry in formed.items()}
    worst = min(over_regions, key=lambda name: over_regions[name])
    return {
        "modalities": list(modalities),
        "regions": ordered,
        "cases": len({row.case for row in rows}),
        "subsets": subsets,
        "mean": {**mean, "dice_all": _mean(mean["dice"].values())},
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
    return {
        "cases": len({row.case for row in rows}),
        "dice": {region: _mean(row.dice for row in some) for region, some in of_region.items()},
        "hd95": {region: _mean(row.hd95 for row in some) for region, some in of_region.items()},
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return math.fsum(known) / len(known) if known else None


def markdown_table(summary: Mapping[str, Any]) -> str:
    """Write a summary in the papers' layout, as a GitHub table that is also aligned in a terminal.

    One column per subset and one for their mean. On top the modalities, ● = given, ○ = withheld;
    then Dice in per cent and, where it was computed, HD95 in mm. A dash stands for a subset that
    nobody could form.
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
    return _aligned(lines)


def _score_lines(
    summary: Mapping[str, Any], score: str, title: str, scale: float
) -> list[list[str]]:
    columns = [entry[score] for entry in (*summary["subsets"].values(), summary["mean"])]
    by_region = {region: [column[region] for column in columns] for region in summary["regions"]}
    if len(by_region) > 1:
        by_region["mean"] = [_mean(column.values()) for column in columns]
    return [
        [title.format(name), *(_cell(value, scale) for value in values)]
        for name, values in by_region.items()
    ]


def _cell(value: float | None, scale: float) -> str:
    return _NOT_FORMED if value is None else f"{scale * value:.1f}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(_NARROWEST, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]
        for line in (lines[0], rule, *lines[1:])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded) + "\n"


def write_csv(rows: Sequence[Score], path: str | Path) -> None:
    """Write one line per row under the header case,subset,region,dice,hd95; all digits are kept."""
    lines = io.StringIO(newline="")
    writer = csv.DictWriter(lines, [column.name for column in fields(Score)])
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_text_atomically(path, lines.getvalue())


def read_csv(path: str | Path) -> list[Score]:
    """Read what `write_csv` wrote, number for number."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [
            Score(row["case"], row["subset"], row["region"], float(row["dice"]), float(row["hd95"]))
            for row in csv.DictReader(file)
        ]


def write_json(summary: Mapping[str, Any], path: str | Path) -> None:
    """Write a summary as JSON, strictly: NaN is refused, None becomes null."""
    write_text_atomically(path, json.dumps(summary, indent=2, allow_nan=False) + "\n")


def heatmap(summary: Mapping[str, Any], path: str | Path) -> None:
    """Write the heat map of a summary as a PNG picture (`bundle.heatmap`)."""
    _write_png(draw_heatmap(summary), path)


def contact_sheet(
    slices: Sequence[CaseSlices],
    rows: Sequence[Score],
    modalities: Sequence[str],
    path: str | Path,
    names: Mapping[int, str],
) -> None:
    """Write the contact sheet as a PNG picture (`bundle.contact_sheet.draw_contact_sheet`)."""
    _write_png(draw_contact_sheet(slices, rows, modalities, names), path)


def _write_png(figure: Figure, path: str | Path) -> None:
    with written_atomically(path) as file:
        figure.savefig(file, format="png", dpi=150)


class ReportHandler:
    """Writes the report when an evaluation has ended.

    Into `output_dir`: scores.csv, summary.json, table.md, heatmap.png and contact_sheet.png; the
    table is printed too. In a distributed evaluation rank 0 writes.

    For the contact sheet every item needs, beside what `SubsetScores` reads, `background`:
    (M, D, H, W), the case's scans on the label's voxel grid, un-normalised, 0 throughout where a
    modality was never scanned. One axial slice of it is kept per case.

    Args:
        output_dir: made if it does not exist.
        modalities: the vocabulary.
        regions: the region table.
        scores: the metric that scored the evaluation, attached to the same engine.
        pictures: False = no contact sheet, so that no patient's image leaves the evaluation.
    """

    def __init__(
        self,
        output_dir: str | Path,
        modalities: Sequence[str],
        regions: Regions,
        scores: SubsetScores,
        pictures: bool = True,
    ) -> None:
        check_regions(regions)
        self.output_dir = Path(output_dir)
        self.modalities = check_modalities(modalities)
        self.regions = regions
        self.scores = scores
        self.pictures = pictures
        self._views: dict[str, AxialView] = {}
        self._slices: dict[str, CaseSlices] = {}

    def attach(self, engine: Engine) -> None:
        """Collect slices after every iteration, write when the run has completed."""
        engine.add_event_handler(Events.STARTED, self._forget)
        if self.pictures:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._keep_slices)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _forget(self) -> None:
        self._views.clear()
        self._slices.clear()

    def _keep_slices(self, engine: Engine) -> None:
        for item in items_of(engine):
            case = str(field_of(item, "case", "ReportHandler"))
            if case not in self._slices:
                self._open(case, item)
            present = torch.as_tensor(item["present"]).bool().cpu()
            subset = subset_name(names_of(present, self.modalities), self.modalities)
            self._slices[case].predictions[subset] = self._paint(item["pred"], self._views[case])

    def _open(self, case: str, item: Mapping[str, Any]) -> None:
        label = item["label"]
        affine = _array(getattr(label, "affine", torch.eye(4)))
        view = AxialView.through_largest(_array(label != 0).any(0), affine)
        images = self._images(case, item, view)
        self._views[case] = view
        self._slices[case] = CaseSlices(case, images, self._paint(label, view), aspect=view.aspect)

    def _paint(self, masks: Tensor, view: AxialView) -> np.ndarray:
        cuts = np.stack([view.cut(mask) for mask in _array(masks)])
        return regions_to_labels(torch.from_numpy(cuts), self.regions)[0].numpy()

    def _images(self, case: str, item: Mapping[str, Any], view: AxialView) -> dict[str, np.ndarray]:
        background = field_of(item, "background", "ReportHandler")
        expected = (len(self.modalities), *item["label"].shape[1:])
        if tuple(background.shape) != expected:
            raise ValueError(
                f"case {case}: expected 'background' on the label's grid, of shape {expected}, "
                f"got {tuple(background.shape)}. Keep the scans as loaded, or pass pictures=False."
            )
        scans = zip(self.modalities, _array(background), strict=True)
        return {name: window(view.cut(scan)) for name, scan in scans if scan.any()}

    def _write(self) -> None:
        slices = _merged(gather_lists(list(self._slices.values())))
        if idist.get_rank() != 0:
            return
        rows, out = self.scores.rows, self.output_dir
        summary = summarise(rows, self.modalities, list(self.regions))
        table = markdown_table(summary)
        write_csv(rows, out / "scores.csv")
        write_json(summary, out / "summary.json")
        write_text_atomically(out / "table.md", table)
        heatmap(summary, out / "heatmap.png")
        if self.pictures:
            names = label_names(self.regions)
            contact_sheet(slices, rows, self.modalities, out / "contact_sheet.png", names)
        print(table)
        for name in REPORT_FILES:
            if self.pictures or name != "contact_sheet.png":
                logger.info("report: %s", out / name)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().as_subclass(torch.Tensor).cpu().numpy()


def _merged(slices: Sequence[CaseSlices]) -> list[CaseSlices]:
    merged: dict[str, CaseSlices] = {}
    for entry in slices:
        merged.setdefault(entry.case, entry).predictions.update(entry.predictions)
    return list(merged.values())
