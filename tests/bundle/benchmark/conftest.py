"""A small grid, and records as its runs would leave them, with Dice as the test likes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bundle.benchmark.plan import Phantom, Run, RunGrid, Training
from bundle.benchmark.results import Result, record_path, write_record

SUBSETS, REGIONS, CASES = ("t1", "flair", "t1+flair"), ("TC", "WT"), ("a", "b", "c", "d")
STAGE = Training(("train.json",), 3, {"filters": 4})


def planned(group: str, label: str, ratio: float = 0.0, seed: int = 0, **others: Any) -> Run:
    name = f"{group}-{label}-{ratio:g}-{seed}"
    stages = others.pop("stages", (STAGE,))
    return Run(name, label, group, ratio, seed, stages, data=Phantom(3, 4, 24), **others)


def small_grid() -> RunGrid:
    """Two seeds of ours and theirs at two ratios, three specialists, a change."""
    runs = [
        planned("main", label, ratio, seed)
        for seed in (0, 1)
        for ratio in (0.0, 0.5)
        for label in ("ours", "theirs")
    ]
    runs += [planned("specialist", subset, subsets=(subset,)) for subset in SUBSETS]
    runs += [planned("ablation", "less", 0.5, seed) for seed in (0, 1)]
    return RunGrid("small", "ours", "theirs", tuple(runs), ("A note.",))


def make_record(run: Run, digest: str = "", dice: Any = 0.5, **others: Any) -> dict[str, Any]:
    """A record; `dice` is one number, or what gives it from (subset, region, case)."""
    score: Callable = dice if callable(dice) else lambda *_: dice
    return {
        "run": asdict(run),
        "digest": digest,
        "stages": [
            {
                **{"epochs": 3, "steps": 30, "plain_steps": 45.0, "training_cases": 3},
                **{"cpu_seconds": 6.0, "wall_seconds": 7.0},
            }
        ],
        "evaluation": {"cpu_seconds": 1.0, "wall_seconds": 1.0},
        "files": {"configs/train.json": "aaaaaaaa"},
        "cases": list(CASES),
        "dice": {
            subset: {region: [score(subset, region, case) for case in CASES] for region in REGIONS}
            for subset in run.subsets or SUBSETS
        },
        "versions": {"torch": "9.9"},
        "cpu": "An abacus",
        "device": "cpu",
        "date": "2031-02-03T04:05:06+00:00",
        **others,
    }


def make_result(run: Run, dice: Any = 0.5, **others: Any) -> Result:
    return Result(run, make_record(run, "", dice, **others))


@pytest.fixture
def grid() -> RunGrid:
    return small_grid()


@pytest.fixture
def plan_run() -> Callable[..., Run]:
    """Give plan_run(group, label, ratio, seed, **fields of a run)."""
    return planned


@pytest.fixture
def result_of() -> Callable[..., Result]:
    """Give result_of(run, dice, **parts of the record)."""
    return make_result


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., None]:
    """Give record(grid, run, dice, **parts of the record): write it as the run would."""

    def write(grid: RunGrid, run: Run, dice: Any = 0.5, **others: Any) -> None:
        written = make_record(run, grid.digests()[run.name], dice, **others)
        write_record(written, record_path(tmp_path, run.name))

    return write
