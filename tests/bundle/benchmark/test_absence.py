from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bundle.benchmark import runs
from bundle.benchmark.absence import prepare_data
from bundle.modalities import BRATS_MODALITIES

RATES = (0.2, 0.4, 0.6, 0.8)


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_a_run_with_one_ratio_has_the_data_it_always_had(plan_run, tmp_path):
    run = plan_run("main", "ours", 0.5)
    path = prepare_data(run, tmp_path)
    before = Path(path).read_bytes()
    assert path == runs.prepare_data(run, tmp_path)
    assert Path(path).read_bytes() == before


def test_equal_rates_are_a_ratio(plan_run, tmp_path):
    run = plan_run("main", "ours", 0.5, 1)
    even = replace(run, rates=(0.5,) * 4)
    first, second = (prepare_data(r, tmp_path) for r in (run, even))
    assert first != second
    for section in ("training", "validation", "testing"):
        assert read(first)[section] == read(second)[section]


def test_each_modality_has_its_rate_and_each_seed_its_gaps(plan_run, tmp_path):
    runs_of = [replace(plan_run("main", "ours", 0.5, seed), rates=RATES) for seed in (0, 1)]
    first, second = (read(prepare_data(run, tmp_path)) for run in runs_of)
    assert first["degraded"]["rates"] == dict(zip(BRATS_MODALITIES, RATES, strict=True))
    assert first["degraded"]["sections"] == ["training"]
    assert first["training"] != second["training"]
    assert first["testing"] == second["testing"]
    assert all(len(item["image"]) == 4 for item in first["testing"] + first["validation"])
    never = replace(runs_of[0], rates=(0.0, 1.0, 1.0, 0.0))
    kept = [list(item["image"]) for item in read(prepare_data(never, tmp_path))["training"]]
    assert kept == [["t1", "flair"]] * 3


def test_a_rate_too_few_is_refused(plan_run, tmp_path):
    run = replace(plan_run("main", "ours", 0.5), rates=(0.5,))
    with pytest.raises(ValueError, match=r"expected a rate for each of .*'flair'\], got \[0.5\]"):
        prepare_data(run, tmp_path)
