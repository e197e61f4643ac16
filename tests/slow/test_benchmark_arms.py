"""What grid `methods` adds, trained for two tiny epochs through the real configs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from bundle.benchmark.data import prepare_data
from bundle.benchmark.grids import CENTRE, methods
from bundle.benchmark.plan import GMD_NOT_DECOUPLED, PCGRAD_UNET, Phantom
from bundle.benchmark.results import record_path
from bundle.benchmark.runs import execute

pytestmark = pytest.mark.slow

TINY = {"filters": 4, "blocks_down": [1, 1, 1], "epoch_samples": 8}
PHANTOM = Phantom(training=4, testing=2, size=32, validation=1)
# A word that only the weights of this arm's network have in their names.
MARKS = {"LCKD": "fusion.", "GMD": ".norms.", GMD_NOT_DECOUPLED: ".norms.", PCGRAD_UNET: None}


def shrunk(run):
    stages = [replace(stage, overrides={**stage.overrides, **TINY}) for stage in run.stages]
    return replace(run, stages=tuple(stages))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("grid")


@pytest.fixture(scope="module")
def runs():
    plan = methods(seeds=(0,), pretrain_epochs=1, train_epochs=1, phantom=PHANTOM)
    return [shrunk(run) for run in plan.runs if run.group in ("main", "ablation")]


def made(run, folder):
    """Train and test; return the record and the names of the weights."""
    datalists = {run.name: prepare_data(run, folder)}
    execute(run, {}, {run.name: ""}, datalists, str(folder), keep=True)
    saved = folder / "scratch" / run.name / "models" / "model.pt"
    record = json.loads(record_path(folder, run.name).read_text(encoding="utf-8"))
    return record, list(torch.load(saved, weights_only=True))


@pytest.mark.parametrize(
    ("label", "missing"),
    [*((label, CENTRE) for label in MARKS), ("GMD", "0.2/0.4/0.6/0.8")],
)
def test_an_arm_trains_its_network_and_tests_it_on_every_subset(label, missing, runs, folder):
    (run,) = [r for r in runs if (r.label, r.missing) == (label, missing)]
    record, weights = made(run, folder)
    assert record["stages"][0]["steps"] == 4
    assert len(record["dice"]) == 15
    marks = {mark for mark in MARKS.values() if mark and any(mark in name for name in weights)}
    assert marks == ({MARKS[label]} if MARKS[label] else set())


def test_variants_train_too(runs, folder):
    for run in runs:
        if run.group == "ablation":
            assert len(made(run, folder)[0]["dice"]) == 15
