"""The handler that writes an evaluation's tables, files and pictures when it has ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from torch import Tensor

from bundle.atomic import write_text_atomically, written_atomically
from bundle.evaluation.contact_sheet import (
    AxialView,
    CaseSlices,
    draw_contact_sheet,
    label_names,
    window,
)
from bundle.evaluation.heatmap import draw_heatmap
from bundle.evaluation.metrics import Score, SubsetScores, field_of, gather_lists, items_of
from bundle.evaluation.summary import summarise
from bundle.evaluation.tables import markdown_table, rules_line, write_csv, write_json
from bundle.evaluation.worst import WorstRow, worst_rows, worst_table
from bundle.modalities import check_modalities, names_of, plain, subset_name
from bundle.regions import Regions, check_regions, regions_to_labels

logger = logging.getLogger(__name__)

REPORT_FILES = (
    *("scores.csv", "summary.json", "table.md", "worst.csv"),
    *("heatmap.png", "contact_sheet.png"),
)


def heatmap(summary: Mapping[str, Any], path: str | Path) -> None:
    """Write the heat map of a summary as a PNG picture (`bundle.evaluation.heatmap`)."""
    _write_png(draw_heatmap(summary), path)


def contact_sheet(
    slices: Sequence[CaseSlices],
    rows: Sequence[Score],
    modalities: Sequence[str],
    path: str | Path,
    names: Mapping[int, str],
) -> None:
    """Write the contact sheet as a PNG picture, see `draw_contact_sheet`."""
    _write_png(draw_contact_sheet(slices, rows, modalities, names), path)


def _write_png(figure: Figure, path: str | Path) -> None:
    with written_atomically(path) as file:
        figure.savefig(file, format="png", dpi=150)


class ReportHandler:
    """Writes the report when an evaluation has ended.

    Into `output_dir`: scores.csv, summary.json, table.md, worst.csv, heatmap.png and
    contact_sheet.png; the table is printed too. In a distributed evaluation rank 0 writes.

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
        summary["hd95_empty"] = self.scores.hd95_empty
        summary["nsd_tolerance_mm"] = self.scores.nsd_tolerance
        rules = rules_line(self.scores.hd95_empty, self.scores.nsd_tolerance)
        worst = worst_rows(rows)
        table = "\n".join([markdown_table(summary), rules, worst_table(worst)])
        write_csv(worst, out / "worst.csv", WorstRow)
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
    return plain(tensor.detach()).cpu().numpy()


def _merged(slices: Sequence[CaseSlices]) -> list[CaseSlices]:
    merged: dict[str, CaseSlices] = {}
    for entry in slices:
        merged.setdefault(entry.case, entry).predictions.update(entry.predictions)
    return list(merged.values())
