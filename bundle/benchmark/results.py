"""The record that a finished run leaves: one JSON file, enough to make every table again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bundle.atomic import write_text_atomically
from bundle.benchmark.plan import Group, Missing, Run, RunGrid
from bundle.evaluation.metrics import Score

# {subset: {region: [Dice of every case, in the order of the record's `cases`]}}
Dice = Mapping[str, Mapping[str, Sequence[float]]]

# Whose model it is where one is for all.
GLOBAL = "global"

# A line of a table: column -> value; None = not there (yet).
Row = dict[str, Any]


def file_name(label: str) -> str:
    """Turn a label into a word that is fit for a file's name, such as 'pooled_with_its_steps'."""
    return re.sub(r"[^a-zA-Z0-9]", "_", label)


def record_path(output_dir: str | Path, name: str) -> Path:
    """Where a run's record lies once the run has finished."""
    return Path(output_dir) / "runs" / f"{name}.json"


def write_record(record: Mapping[str, Any], path: Path) -> None:
    """Write a record, whole or not at all."""
    write_text_atomically(path, json.dumps(record, allow_nan=False) + "\n")


def compact_dice(rows: Sequence[Score]) -> tuple[list[str], Dice]:
    """Turn score rows into the case names and, by subset and region, one number a case.

    Raises:
        ValueError: a subset or region that was not scored for every case.
    """
    cases = sorted({row.case for row in rows})
    places: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        places.setdefault(row.subset, {}).setdefault(row.region, {})[row.case] = round(row.dice, 4)
    for subset, regions in places.items():
        for region, of_case in regions.items():
            if len(of_case) != len(cases):
                raise ValueError(
                    f"expected Dice of {len(cases)} cases for {region} of {subset}, "
                    f"got {len(of_case)}. Test on cases that have every modality."
                )
    return cases, {
        subset: {region: [of_case[case] for case in cases] for region, of_case in regions.items()}
        for subset, regions in places.items()
    }


@dataclass(frozen=True)
class Result:
    """A finished run, or one that was found not to be possible.

    Attributes:
        run: what was planned.
        record: what its file holds.
    """

    run: Run
    record: Mapping[str, Any]

    @property
    def not_possible(self) -> str:
        """Why the run could not be made; empty = it was made."""
        return self.record.get("not_possible", "")

    @property
    def models(self) -> Mapping[str, Mapping[str, Any]]:
        """Every model that was tested, by whose it is: its `cases` and its `dice`.

        Of sites that train by themselves each has one; all other runs have one, `GLOBAL`.
        """
        return self.record.get("models", {GLOBAL: self.record})

    @property
    def cases(self) -> list[str]:
        """Names of the testing cases, sorted."""
        return next(iter(self.models.values()))["cases"]

    @property
    def regions(self) -> list[str]:
        """Names of the R regions, in the order of `scores`."""
        return list(next(iter(next(iter(self.models.values()))["dice"].values())))

    @property
    def subsets(self) -> list[str]:
        """Names of the subsets that were tested."""
        return list(next(iter(self.models.values()))["dice"])

    def scores_of(self, whose: str) -> dict[str, np.ndarray]:
        """Dice of one of the models, 0 to 1, by subset: (cases, R) float."""
        dice = self.models[whose]["dice"]
        return {subset: np.array(list(regions.values())).T for subset, regions in dice.items()}

    @cached_property
    def scores(self) -> dict[str, np.ndarray]:
        """Dice of the model for all, 0 to 1, by subset: (cases, R) float."""
        return self.scores_of(GLOBAL)

    @cached_property
    def case_means(self) -> np.ndarray:
        """Dice of each testing case over subsets and regions: (cases,) float."""
        return np.mean([scores.mean(1) for scores in self.scores.values()], axis=0)

    @cached_property
    def region_means(self) -> dict[str, np.ndarray]:
        """Dice by subset, over cases: (R,) float."""
        return {subset: scores.mean(0) for subset, scores in self.scores.items()}

    @property
    def dice(self) -> float:
        """Dice over cases, subsets and regions."""
        return float(self.case_means.mean())

    @property
    def device(self) -> str:
        """What it trained on: "cpu" or a GPU's name."""
        return self.record["device"]

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage["steps"] for stage in self.record["stages"])

    @property
    def plain_steps(self) -> float | None:
        """The work of all stages, in steps of a plain U-Net; None = it was not counted."""
        work = [stage.get("plain_steps") for stage in self.record["stages"]]
        return None if None in work else sum(work)

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of all stages, without the evaluation."""
        return sum(stage["cpu_seconds"] for stage in self.record["stages"])

    @property
    def seconds(self) -> float:
        """CPU seconds, evaluation included; of a federated run, seconds of wall time."""
        if "seconds" in self.record:
            return self.record["seconds"]
        return self.cpu_seconds + self.record["evaluation"]["cpu_seconds"]


@dataclass(frozen=True)
class Results:
    """The finished runs of a grid.

    Attributes:
        grid: the plan.
        finished: by name, those whose record fits the plan.
    """

    grid: RunGrid
    finished: Mapping[str, Result]

    def of(self, group: Group, label: str, ratio: Missing) -> dict[int, Result]:
        """Pick the runs with scores of one cell of a table, by seed."""
        return {
            result.run.seed: result
            for result in self.finished.values()
            if (result.run.group, result.run.label, result.run.missing) == (group, label, ratio)
            and not result.not_possible
        }

    def why_not(self, group: Group, label: str, ratio: Missing) -> str:
        """Say why a cell of a table has fewer runs than planned; empty = no such reason."""
        reasons = {
            result.not_possible
            for result in self.finished.values()
            if (result.run.group, result.run.label, result.run.missing) == (group, label, ratio)
        }
        return "; ".join(sorted(reasons - {""}))

    def labels(self, group: Group) -> list[str]:
        """List a group's labels in the grid's order, run or not."""
        return list(dict.fromkeys(run.label for run in self.grid.runs if run.group == group))

    def ratios(self, group: Group) -> list[Missing]:
        """List a group's missing ratios, smallest first, then its rates by modality, run or not."""
        found = {run.missing for run in self.grid.runs if run.group == group}
        return sorted(found, key=lambda missing: (isinstance(missing, str), missing))

    @property
    def regions(self) -> list[str]:
        """List the regions that were scored, in the configs' order; [] until a run has finished."""
        made = (result for result in self.finished.values() if not result.not_possible)
        return next((result.regions for result in made), [])


State = Literal["finished", "changed", "missing"]


def read_result(run: Run, digest: str, output_dir: str | Path) -> tuple[State, Result | None]:
    """Read a run's record.

    Returns:
        "finished" and the result; "changed" if what lies there was planned otherwise; or "missing".
    """
    path = record_path(output_dir, run.name)
    if not path.is_file():
        return "missing", None
    record = json.loads(path.read_text(encoding="utf-8"))
    if not _was_planned_so(record, run, digest):
        return "changed", None
    return "finished", Result(run, record)


def _was_planned_so(record: Mapping[str, Any], run: Run, digest: str) -> bool:
    if "digest" in record:
        return record["digest"] == digest
    # A federation's record of version 0.3 has its size in place of a digest.
    plan = run.federation
    return plan is not None and record["size"] == {
        "rounds": plan.rounds,
        "pretrain_rounds": plan.pretrain_rounds,
        "sites": plan.sites,
        "cases": run.data.counts,
        "edge": run.data.size,
        "settings": plan.settings,
    }


def read_results(grid: RunGrid, output_dir: str | Path) -> Results:
    """Read the records of a grid's finished runs."""
    digests = grid.digests()
    found = [read_result(run, digests[run.name], output_dir)[1] for run in grid.runs]
    return Results(grid, {result.run.name: result for result in found if result is not None})
