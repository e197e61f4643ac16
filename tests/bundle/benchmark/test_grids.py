from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest
import yaml

import bundle
from bundle.benchmark.grids import ABLATIONS, FINER_ABLATIONS, GRIDS, universal
from bundle.modalities import BRATS_MODALITIES

CONFIGS = Path(bundle.ROOT) / "configs"


@functools.cache
def read_config(name: str) -> dict:
    text = (CONFIGS / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else yaml.safe_load(text)


@pytest.fixture(scope="module")
def plan():
    return universal(pretrain_epochs=2, train_epochs=5)


@pytest.mark.parametrize("name", GRIDS)
def test_every_override_is_an_id_of_the_configs_it_comes_after(name):
    for run in GRIDS[name]().runs:
        for stage in run.stages:
            known = {key for config in stage.configs for key in read_config(config)}
            assert set(stage.overrides) <= known, run.name


@pytest.mark.parametrize("name", GRIDS)
def test_names_are_fit_for_files(name):
    names = [run.name for run in GRIDS[name]().runs]
    assert [name for name in names if not re.fullmatch(r"[\w.-]+", name)] == []


def test_all_but_the_equal_time_runs_make_the_same_number_of_steps(plan):
    for run in plan.runs:
        epochs = [stage.epochs for stage in run.stages]
        assert epochs == [None] if run.group == "wall_clock" else sum(epochs) == 7, run.name


def test_equal_time_runs_wait_for_both_runs_of_their_ratio_and_seed(plan):
    by_name = {run.name: run for run in plan.runs}
    longer = [run for run in plan.runs if run.group == "wall_clock"]
    assert len(longer) == 4 * 3
    for run in longer:
        budget, pace = (by_name[name] for name in run.after)
        assert (budget.label, pace.label) == ("universal", run.label)
        assert {(r.ratio, r.seed) for r in (budget, pace)} == {(run.ratio, run.seed)}


def test_the_second_stage_starts_from_what_the_first_one_writes(plan):
    run = plan.runs[0]
    assert run.label == "universal"
    first, second = run.stages
    written = {key: read_config("pretrain.yaml")[key] for key in ("model_file",)}
    assert second.overrides["pretrained_file"] == written["model_file"]
    assert "pretrain.yaml" in first.configs
    assert "pretrain.yaml" not in second.configs


def test_full_only_needs_complete_cases_and_is_left_out_where_all_are(plan):
    runs = [run for run in plan.runs if run.label == "full_only"]
    assert {run.ratio for run in runs} == {0.3, 0.5, 0.8}
    assert all(run.needs == BRATS_MODALITIES for run in runs)


def test_each_specialist_trains_and_is_tested_on_its_own_subset(plan):
    runs = [run for run in plan.runs if run.group == "specialist"]
    assert len({run.label for run in runs}) == 15
    for run in runs:
        assert run.subsets == (run.label,)
        assert run.stages[0].overrides["specialist_subset"] == run.label
        assert run.ratio == 0


def test_each_ablation_differs_from_the_whole_and_from_the_others(plan):
    runs = [run for run in plan.runs if run.group == "ablation" and run.seed == 0]
    whole = next(r for r in plan.runs if r.label == "universal" and (r.ratio, r.seed) == (0.5, 0))
    assert len(runs) == len(ABLATIONS) + len(FINER_ABLATIONS) + 1
    variants = [repr(run.stages) for run in (whole, *runs)]
    assert len(set(variants)) == len(variants)


def test_no_ablation_sets_what_is_the_default(plan):
    known = read_config("pretrain.yaml") | read_config("train.json")
    known |= {"distribution": read_config("pretrain.yaml")["distribution"]}
    for first, second in (*ABLATIONS.values(), *FINER_ABLATIONS.values()):
        for key, value in {**first, **second}.items():
            assert known[key] != value
