from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest
import yaml

import bundle
from bundle.benchmark.controls import CONTROLS
from bundle.benchmark.grids import CHOOSING, GRIDS, cases, main, plateau
from bundle.benchmark.named_runs import CENTRE, CHANGED, METHODS, OVERLAYS, UNEVEN
from bundle.benchmark.plan import OwnCases, Phantom
from bundle.modalities import BRATS_MODALITIES

CONFIGS = Path(bundle.ROOT) / "configs"


@functools.cache
def read_config(name: str) -> dict:
    text = (CONFIGS / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else yaml.safe_load(text)


def look_up(config: dict, path: str) -> object:
    """Find 'a#b' as MONAI does; KeyError = there is no such id."""
    return functools.reduce(lambda part, key: part[key], path.split("#"), config)


def known_ids(configs):
    known = {}
    for config in configs:
        known |= read_config(config)
    return known


@pytest.mark.parametrize("name", GRIDS)
def test_every_override_is_an_id_of_the_configs_it_comes_after(name):
    # An argument that a config leaves to its default may be set all the same.
    defaults = {"method#rebuilding_weight"}
    for run in GRIDS[name]().runs:
        for stage in run.stages:
            for path in stage.overrides.keys() - defaults:
                look_up(known_ids(stage.configs), path)


def test_grids_share_no_name_so_that_one_folder_holds_the_records_of_all():
    names = [run.name for make in GRIDS.values() for run in make().runs]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[\w.-]+", name)] == []


@pytest.mark.parametrize("name", GRIDS)
def test_what_stands_in_one_table_had_the_same_budget(name):
    runs = [run for run in GRIDS[name]().runs if not run.label.isdigit()]
    assert len({sum(stage.budget for stage in run.stages) for run in runs}) <= 1


def test_the_main_grid_begins_with_what_matters_most():
    runs = main().runs
    assert len(runs) == 48
    first = runs[:24]
    assert {run.missing for run in first} == {CENTRE, "0.2/0.4/0.6/0.8"}
    assert {run.label for run in first[:4]} == set(METHODS)
    # A grid that is stopped has whole seeds.
    assert [run.seed for run in first] == [0] * 8 + [1] * 8 + [2] * 8
    assert {run.missing for run in runs[24:]} == {0.0, 0.8}
    assert all(run.data.testing == 32 for run in runs)


def test_uneven_runs_say_their_rates():
    runs = [run for run in main().runs if run.rates is not None]
    assert {run.missing for run in runs} == {"0.2/0.4/0.6/0.8"}
    assert all((run.rates, run.ratio) == (UNEVEN, 0.5) for run in runs)


def test_the_second_stage_starts_from_what_the_first_one_writes():
    run = next(run for run in main().runs if run.label == "universal")
    first, second = run.stages
    assert second.overrides["pretrained_file"] == read_config("pretrain.yaml")["model_file"]
    assert "pretrain.yaml" in first.configs
    assert "pretrain.yaml" not in second.configs
    assert first.budget == pytest.approx(0.2 * (first.budget + second.budget))


def test_each_length_of_the_plateau_is_twice_the_one_before():
    grid = plateau(seeds=(0,))
    budgets = [run.stages[0].budget for run in grid.runs]
    assert budgets == [625 * 2**n for n in range(5)]
    assert [run.label for run in grid.runs] == [str(budget) for budget in budgets]
    assert {run.stages[0].configs for run in grid.runs} == {
        ("train.json", "method_modality_dropout.yaml", "benchmark.yaml")
    }


def test_what_is_chosen_is_chosen_on_other_cases_than_are_reported_on():
    reported = {run.data for name in ("main", "ceiling") for run in GRIDS[name]().runs}
    chosen = {run.data for name in ("controls", "plateau", "drawing") for run in GRIDS[name]().runs}
    profile = {run.data for run in GRIDS["realism"]().runs}
    assert chosen == {CHOOSING}
    assert not chosen & reported
    assert not profile & (chosen | reported)


@pytest.mark.parametrize("label", CONTROLS)
def test_a_control_changes_what_its_configs_say(label):
    control = CONTROLS[label]
    *_, last = control.stages(100)
    assert sum(stage.budget for stage in control.stages(100)) == pytest.approx(100)
    known = known_ids(last.configs)
    changed = {
        path: value
        for path, value in last.overrides.items()
        if path not in ("method#rebuilding_weight", "pretrained_file")
        and look_up(known, path) != value
    }
    # Leaving out pre-training changes the stages and no id.
    assert changed or len(control.stages(100)) == 1
    assert control.whole in METHODS


@pytest.mark.parametrize("label", CHANGED)
def test_no_variant_sets_what_is_the_default(label):
    for path, value in CHANGED[label].items():
        assert look_up(read_config(OVERLAYS[label][0]), path) != value


def test_each_specialist_trains_and_is_tested_on_its_own_subset():
    runs = [run for run in GRIDS["ceiling"]().runs if run.group == "specialist"]
    assert len({run.label for run in runs}) == 15
    for run in runs:
        assert run.subsets == (run.label,)
        assert run.stages[0].overrides["specialist_subset"] == run.label
        assert run.ratio == 0


def test_full_only_needs_complete_cases_and_is_left_out_where_all_are():
    runs = [run for run in cases(OwnCases(3, 2, "x")).runs if run.label == "full_only"]
    assert {run.ratio for run in runs} == {0.5, 0.8}
    assert all(run.needs == BRATS_MODALITIES for run in runs)


def test_a_phantom_says_its_anatomy():
    assert (Phantom().anatomy, Phantom(size=32).anatomy) == ("icbm152", "simple")


def test_the_handler_that_the_benchmark_quietens_is_tensorboards():
    (path,) = [path for path in read_config("benchmark.yaml") if path.startswith("train#handlers#")]
    number = int(path.split("#")[2])
    assert look_up(known_ids(["train.json"]), "train#handlers")[number]["_target_"] == (
        "TensorBoardStatsHandler"
    )
