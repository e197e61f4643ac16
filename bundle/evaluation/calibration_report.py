"""The handler that calibrates a network on validation cases, and says what came of it.

Temperatures are kept as fitted on all cases. What they are worth is told twice: on the cases that
they were fitted on, and held out, each half of the cases with those of the other half.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from bundle.atomic import write_text_atomically, written_atomically
from bundle.evaluation.calibration import (
    BINS,
    HIGHEST,
    LOWEST,
    count_logits,
    ece,
    fit_temperature,
    nll,
    reliability,
)
from bundle.evaluation.metrics import field_of, gather_lists, items_of
from bundle.evaluation.reliability import draw_reliability
from bundle.evaluation.tables import markdown, write_json
from bundle.modalities import all_subsets, check_modalities, names_of, plain, subset_name

logger = logging.getLogger(__name__)

REPORT_FILES = ("calibration.md", "calibration.json", "calibration.png")
_HALVES = 2
# So near a bound, as a factor, the best temperature lies beyond it.
_AT_BOUND = 1.01
# subset name -> half -> (R, 2, 2, Z), see `bundle.evaluation.calibration.count_logits`.
Counts = Mapping[str, Sequence[np.ndarray | None]]


class CalibrationHandler:
    """Counts voxels after every iteration, then fits, stores and reports the temperatures.

    An item holds `pred`: probabilities (R, D, H, W) on the label's own grid; `label` of that shape,
    non-zero = inside; `case`; `present` (M,); and `nonzero`, see `bundle.transforms.outside`. In a
    distributed run rank 0 stores; a case that fills up the last batch counts twice.

    Args:
        output_dir: gets calibration.md, .json and .png; the first is printed, too.
        modalities: the vocabulary.
        regions: the names of the R channels, in their order (a region table also does).
        cases: the names of all cases, in order: every other one makes a half.
        store: called with the temperatures (subset -> region -> T) and the number of cases.
    """

    def __init__(
        self,
        output_dir: str | Path,
        modalities: Sequence[str],
        regions: Sequence[str],
        cases: Sequence[str],
        store: Callable[[Mapping[str, Mapping[str, float]], int], Any],
    ) -> None:
        self.output_dir = Path(output_dir)
        self.modalities = check_modalities(modalities)
        self.regions = tuple(regions)
        self.half_of = {str(case): place % _HALVES for place, case in enumerate(cases)}
        self.store = store
        self._counts: dict[str, list[np.ndarray | None]] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator whose postprocessing leaves probabilities."""
        engine.add_event_handler(Events.STARTED, self._forget)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _forget(self) -> None:
        self._counts.clear()

    def _count(self, engine: Engine) -> None:
        for item in items_of(engine):
            case = str(field_of(item, "case", "CalibrationHandler"))
            present = torch.as_tensor(item["present"]).bool().cpu()
            brain = inside_brain(field_of(item, "nonzero", "CalibrationHandler"), present)
            p, label = (plain(item[key]).cpu()[:, brain].numpy() for key in ("pred", "label"))
            found = np.stack([count_logits(p[r], label[r] != 0) for r in range(len(self.regions))])
            name = subset_name(names_of(present, self.modalities), self.modalities)
            halves = self._counts.setdefault(name, [None] * _HALVES)
            half = self.half_of[case]
            halves[half] = found if halves[half] is None else halves[half] + found

    def _finish(self) -> None:
        counts = _merged(gather_lists([self._counts]))
        if idist.get_rank() != 0:
            return
        names = [subset_name(subset, self.modalities) for subset in all_subsets(self.modalities)]
        fitted = {name: self._fit(counts.get(name, [])) for name in names}
        values = {
            name: {region: 1.0 if t is None else round(t, 4) for region, t in row.items()}
            for name, row in fitted.items()
        }
        rows = self._rows(counts, values)
        text = self._text(rows, values, fitted)
        self.store(values, len(self.half_of))
        write_text_atomically(self.output_dir / "calibration.md", text)
        report = {"cases": len(self.half_of), "bins": BINS, "errors": rows, "temperatures": values}
        write_json(report, self.output_dir / "calibration.json")
        with written_atomically(self.output_dir / "calibration.png") as file:
            draw_reliability(rows).savefig(file, format="png", dpi=150)
        print(text)
        for name in REPORT_FILES:
            logger.info("report: %s", self.output_dir / name)

    def _fit(self, halves: Sequence[np.ndarray | None]) -> dict[str, float | None]:
        given = [half for half in halves if half is not None]
        total = sum(given) if given else None
        return {
            region: None if total is None else fit_temperature(total[r])
            for r, region in enumerate(self.regions)
        }

    def _rows(
        self, counts: Counts, values: Mapping[str, Mapping[str, float]]
    ) -> list[dict[str, Any]]:
        """Measure every region, for each number of scans given and for all of them (0)."""
        sizes = {name: name.count("+") + 1 for name in counts}
        other = {
            name: [self._fit(halves[1 - h : 2 - h]) for h in range(_HALVES)]
            for name, halves in counts.items()
        }
        rows = []
        for r, region in enumerate(self.regions):
            for size in (*sorted(set(sizes.values())), 0):
                names = [name for name in counts if size in (0, sizes[name])]
                entry: dict[str, Any] = {"region": region, "scans": size}
                held_out = {name: [fit[region] or 1.0 for fit in other[name]] for name in names}
                kinds = {
                    "before": {name: [1.0] * _HALVES for name in names},
                    "after": {name: [values[name][region]] * _HALVES for name in names},
                    "held_out": held_out if len(self.half_of) > 1 else None,
                }
                for kind, chosen in kinds.items():
                    entry[kind] = None if chosen is None else _errors(counts, r, chosen)
                rows.append(entry)
        return rows

    def _text(
        self,
        rows: Sequence[Mapping[str, Any]],
        values: Mapping[str, Mapping[str, float]],
        fitted: Mapping[str, Mapping[str, float | None]],
    ) -> str:
        head = ["region", "scans", "ECE % before", "after", "held out"]
        head += ["NLL before", "after", "held out"]
        cells = [_cells(row) for row in rows]
        temperatures = [
            [name, *(f"{values[name][region]:.2f}" for region in self.regions)] for name in values
        ]
        return "\n".join(
            [
                f"Calibrated on {len(self.half_of)} validation cases, voxels inside the brain.\n",
                f"ECE: expected calibration error, {BINS} equal bins of the probability. NLL: mean "
                "negative log-likelihood of a voxel. after: the cases that the temperatures were "
                "fitted on. held out: each half of the cases with the temperatures of the other.\n",
                markdown(head, cells, left=2),
                "Temperatures:\n",
                markdown(["subset", *self.regions], temperatures),
                *_remarks(fitted, rows),
            ]
        )


def inside_brain(nonzero: Tensor, present: Tensor) -> Tensor:
    """Mark the brain (D, H, W) on the grid of the files: where a present modality is not 0.

    Args:
        nonzero: (1, D, H, W) uint8, bit m = modality m is not 0.
        present: (M,) bool, True = given to the network.
    """
    bits = sum(1 << bit for bit, here in enumerate(present.tolist()) if here)
    return (plain(torch.as_tensor(nonzero)).cpu()[0] & bits) != 0


def _errors(counts: Counts, region: int, chosen: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    table, likelihood = np.zeros((3, BINS)), 0.0
    for name, temperatures in chosen.items():
        for half, temperature in zip(counts[name], temperatures, strict=True):
            if half is not None:
                table += reliability(half[region], temperature)
                likelihood += nll(half[region], temperature)
    voxels = table[0].sum()
    return {
        "ece": ece(table) if voxels else None,
        "nll": likelihood / voxels if voxels else None,
        "reliability": dict(zip(("voxels", "probability", "inside"), table.tolist(), strict=True)),
    }


def _cells(row: Mapping[str, Any]) -> list[str]:
    texts = [row["region"], "any" if row["scans"] == 0 else str(row["scans"])]
    for name, scale, digits in (("ece", 100, 3), ("nll", 1, 5)):
        for kind in ("before", "after", "held_out"):
            value = None if row[kind] is None else row[kind][name]
            texts.append("\N{EN DASH}" if value is None else f"{scale * value:.{digits}f}")
    return texts


def _remarks(
    fitted: Mapping[str, Mapping[str, float | None]], rows: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Say which temperatures the cases do not tell, and where the error has grown."""
    all_ = [(name, region, t) for name, row in fitted.items() for region, t in row.items()]
    missing = [f"{region} of {name}" for name, region, t in all_ if t is None]
    bounds = [
        f"{region} of {name}"
        for name, region, t in all_
        if t is not None and (t < LOWEST * _AT_BOUND or t > HIGHEST / _AT_BOUND)
    ]
    grown = [row["region"] for row in rows if row["scans"] == 0 and _has_grown(row)]
    remarks = []
    if grown:
        remarks.append(
            f"The ECE has grown for {', '.join(grown)}: temperatures are fitted to the NLL, and a "
            "single number cannot mend a network whose small and large probabilities are off in "
            "different ways, such as one that was trained too briefly.\n"
        )
    if missing:
        remarks.append(
            "Not calibrated, temperature 1, because no validation case can form the subset or none "
            f"holds the region: {', '.join(missing)}.\n"
        )
    if bounds:
        remarks.append(
            f"At the end of what is searched ({LOWEST} to {HIGHEST:g}), because the cases are too "
            f"few to tell, or the network tells nothing there: {', '.join(bounds)}.\n"
        )
    for remark in remarks:
        logger.warning(remark.strip())
    return remarks


def _has_grown(row: Mapping[str, Any]) -> bool:
    after = row["after"] if row["held_out"] is None else row["held_out"]
    return after["ece"] is not None and after["ece"] > row["before"]["ece"]


def _merged(parts: Sequence[Counts]) -> dict[str, list[np.ndarray | None]]:
    merged: dict[str, list[np.ndarray | None]] = {}
    for part in parts:
        for name, halves in part.items():
            kept = merged.setdefault(name, [None] * _HALVES)
            for place, half in enumerate(halves):
                if half is not None:
                    kept[place] = half if kept[place] is None else kept[place] + half
    return merged
