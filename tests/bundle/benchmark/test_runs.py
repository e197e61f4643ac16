from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bundle.benchmark import runs
from bundle.benchmark.data import prepare_data
from bundle.benchmark.plan import Training
from bundle.benchmark.results import record_path
from bundle.benchmark.runs import _on, epochs_of, execute, output_into


@pytest.mark.parametrize(
    ("budget", "step", "epochs"), [(100, 1.0, 10), (100, 2.0, 5), (104, 1.0, 10), (1, 3.0, 1)]
)
def test_a_budget_pays_for_epochs_by_the_work_of_a_step(budget, step, epochs):
    assert epochs_of(Training((), None, budget=budget), step, epoch_steps=10) == epochs
    assert epochs_of(Training((), 7), step, epoch_steps=10) == 7


def test_seeds_share_the_phantom_but_not_what_is_missing(plan_run, tmp_path):
    paths = [prepare_data(plan_run("main", "ours", 0.5, seed), tmp_path) for seed in (0, 1)]
    lists = [json.loads(Path(path).read_text()) for path in paths]
    assert lists[0]["phantom"] == lists[1]["phantom"]
    assert lists[0]["training"] != lists[1]["training"]
    assert lists[0]["testing"] == lists[1]["testing"]
    assert all(len(item["image"]) == 4 for item in lists[0]["testing"])
    assert len(list(tmp_path.iterdir())) == 1


def test_a_run_without_a_case_to_train_on_is_recorded_as_not_possible(plan_run, tmp_path):
    run = plan_run("main", "full_only", 1.0, needs=("t1", "flair"))
    datalist = prepare_data(run, tmp_path)
    execute(run, {run.name: "abc"}, {run.name: datalist}, str(tmp_path))
    record = json.loads(record_path(tmp_path, run.name).read_text())
    assert record["not_possible"] == "no case of 3 has t1+flair"
    assert record["digest"] == "abc"
    assert record["run"]["label"] == "full_only"
    assert {"torch", "monai", "bundle"} <= set(record["versions"])
    assert not (tmp_path / "scratch" / run.name).exists()


def test_a_device_is_a_setting_of_every_stage_and_comes_last(plan_run):
    first = Training(("train.json",), 3, {"filters": 4, "device": "$torch.device('cpu')"})
    run = plan_run("main", "ours", stages=(first, Training(("train.json",), 2)))
    assert _on(None, run) is run
    for stage, planned in zip(_on("cuda", run).stages, run.stages, strict=True):
        assert stage.overrides == {**planned.overrides, "device": "$torch.device('cuda')"}


def test_a_run_that_fails_leaves_no_record_and_gives_the_output_back(plan_run, tmp_path, capfd):
    run = replace(plan_run("main", "ours"), name="broken")
    with pytest.raises(FileNotFoundError):
        execute(run, {run.name: ""}, {run.name: str(tmp_path / "no.json")}, str(tmp_path))
    assert not record_path(tmp_path, run.name).exists()
    os.write(1, b"heard")
    assert capfd.readouterr().out == "heard"


def test_an_error_is_told_as_what_went_wrong_at_first(plan_run, tmp_path, monkeypatch):
    def fail(*_):
        try:
            raise ValueError("the cause")
        except ValueError as error:
            raise RuntimeError("an expression failed") from error

    monkeypatch.setattr(runs, "_make", fail)
    with pytest.raises(ValueError, match="the cause"):
        execute(plan_run("main", "ours"), *[{"main-ours-0-0": ""}] * 2, str(tmp_path))


def test_output_from_below_python_goes_into_the_log(tmp_path, capfd):
    with output_into(tmp_path / "log"):
        os.write(1, b"output\n")
        os.write(2, b"errors\n")
    assert (tmp_path / "log").read_text() == "output\nerrors\n"
    assert capfd.readouterr() == ("", "")
