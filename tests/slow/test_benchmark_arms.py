"""Methods and controls of the grids, trained for two tiny epochs through the real configs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from bundle.benchmark import multiply_adds
from bundle.benchmark import runs as made_runs
from bundle.benchmark.data import prepare_data
from bundle.benchmark.grids import controls
from bundle.benchmark.plan import Phantom
from bundle.benchmark.results import record_path
from bundle.benchmark.runs import execute

pytestmark = pytest.mark.slow

TINY = {"filters": 4, "blocks_down": [1, 1, 1], "epoch_samples": 8}
PHANTOM = Phantom(training=8, testing=2, size=32, validation=1)
# A word that only the weights of this arm's network have in their names.
MARKS = {"LCKD": "fusion.", "GMD": ".norms."}


def shrunk(run):
    stages = [
        replace(stage, overrides={**stage.overrides, **TINY}, epochs=2, budget=None)
        for stage in run.stages
    ]
    return replace(run, stages=tuple(stages))


@pytest.fixture(autouse=True)
def _few_batches(monkeypatch):
    """The work of a step is counted on two tiny batches in place of 24."""
    monkeypatch.setattr(multiply_adds, "_BATCHES", 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("grid")


@pytest.fixture(scope="module")
def runs():
    return [shrunk(run) for run in controls(seeds=(0,), phantom=PHANTOM).runs]


def made(run, folder):
    """Train and test; return the record and the names of the weights."""
    datalists = {run.name: prepare_data(run, folder)}
    execute(run, {run.name: ""}, datalists, str(folder), keep=True)
    saved = folder / "scratch" / run.name / "models" / "model.pt"
    record = json.loads(record_path(folder, run.name).read_text(encoding="utf-8"))
    return record, list(torch.load(saved, weights_only=True))


@pytest.mark.parametrize("label", ["LCKD", "GMD", "universal"])
def test_a_method_trains_its_network_and_tests_it_on_every_subset(label, runs, folder):
    (run,) = [r for r in runs if (r.group, r.label) == ("main", label)]
    record, weights = made(run, folder)
    assert [stage["steps"] for stage in record["stages"]] == [4] * len(run.stages)
    assert all(stage["multiply_adds"] > 0 for stage in record["stages"])
    assert len(record["dice"]) == 15
    marks = {mark for mark in MARKS.values() if any(mark in name for name in weights)}
    assert marks == ({MARKS[label]} if label in MARKS else set())


@pytest.mark.parametrize("label", ["dropout + hypernetwork", "dropout + half a batch whole"])
def test_a_control_trains_too(label, runs, folder):
    (run,) = [r for r in runs if r.label == label]
    record, _ = made(run, folder)
    work = record["stages"][0]["plain_steps"] / record["stages"][0]["steps"]
    # The hypernetwork is nearly free; half a batch more is half as much work again.
    expected = 1.5 if "half" in label else 1.05
    assert work == pytest.approx(expected, abs=0.1)


def test_a_run_that_is_stopped_goes_on_to_the_same_result(runs, folder, tmp_path, monkeypatch):
    """Killed after its training, it does not train again; the record is the same."""
    (run,) = [r for r in runs if r.label == "GMD, not decoupled"]
    whole, _ = made(run, folder)
    evaluate, trainings = made_runs._evaluate, []
    configs = made_runs.run_configs

    def run_configs(names, settings):
        trainings.append("evaluate.json" not in names)
        return configs(names, settings)

    monkeypatch.setattr(made_runs, "run_configs", run_configs)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(made_runs, "_evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        made(run, tmp_path)
    assert trainings == [True]
    monkeypatch.setattr(made_runs, "_evaluate", evaluate)
    again, _ = made(run, tmp_path)
    assert trainings == [True, False]
    assert again["dice"] == whole["dice"]
