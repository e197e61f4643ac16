from __future__ import annotations

import functools
import itertools
import json
import re
from pathlib import Path

import pytest
import yaml

import bundle
from bundle.benchmark.grids import (
    ABLATIONS,
    CENTRE,
    CHANGED,
    FINER_ABLATIONS,
    GRIDS,
    OVERLAYS,
    STAGE_2_ALONE,
    UNEVEN,
    VARIANTS,
    VARIANTS_OF_ALL_SEEDS,
    methods,
    universal,
)
from bundle.benchmark.plan import GMD_NOT_DECOUPLED, PCGRAD_UNET
from bundle.modalities import BRATS_MODALITIES

CONFIGS = Path(bundle.ROOT) / "configs"
# Of runs that may lie finished in somebody's folder: their records count by these.
DIGESTS = {
    "universal-missing_0.5-seed_0": "9b452ecf68d5ee67",
    "modality_dropout-missing_0-seed_0": "9710e8cc552cb299",
    "modality_dropout-missing_0.8-seed_2": "95d845243f3137bf",
    "full_only-missing_0.3-seed_1": "0f1c8416cf4f1c57",
    "wall_clock-modality_dropout-missing_0-seed_0": "8d5606c2bac84a37",
    "wall_clock-modality_dropout-missing_0.5-seed_1": "c7fcb01d0059e293",
    "wall_clock-modality_dropout-missing_0.8-seed_2": "d9622a587fe07726",
    "specialist-t1-missing_0-seed_0": "a45d9627382999d6",
    "specialist-t1_t1ce_t2_flair-missing_0-seed_0": "ecc1a923db09235c",
}
OF_UNIVERSAL_ALONE = {
    "ablation-no_pre-training-missing_0.5-seed_0": "4cc4fde3bc7e8a8f",
    "ablation-no_hypernetwork-missing_0.5-seed_2": "48ccc9c874f2e207",
    "ablation-random_prompts-missing_0.5-seed_0": "af3053e63d944b35",
}


@functools.cache
def read_config(name: str) -> dict:
    text = (CONFIGS / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else yaml.safe_load(text)


def look_up(config: dict, path: str) -> object:
    """Find 'a#b' as MONAI does; KeyError = there is no such id."""
    return functools.reduce(lambda part, key: part[key], path.split("#"), config)


@pytest.fixture(scope="module")
def plan():
    return universal(pretrain_epochs=2, train_epochs=5)


@pytest.mark.parametrize("name", GRIDS)
def test_every_override_is_an_id_of_the_configs_it_comes_after(name):
    for run in GRIDS[name]().runs:
        for stage in run.stages:
            known = {}
            for config in stage.configs:
                known |= read_config(config)
            for path in stage.overrides:
                look_up(known, path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("universal", DIGESTS | OF_UNIVERSAL_ALONE),
        ("methods", DIGESTS),
    ],
)
def test_runs_keep_their_names_and_digests(name, expected):
    found = GRIDS[name]().digests()
    assert {run: found.get(run) for run in expected} == expected


def test_grids_share_runs_of_one_name():
    """So that one folder can hold the records of all."""
    found = {name: GRIDS[name]().digests() for name in ("universal", "methods")}
    first, second = found.values()
    common = first.keys() & second.keys()
    assert {name: first[name] for name in common} == {name: second[name] for name in common}
    plain = {name for name in found["universal"] if not name.startswith("ablation")}
    assert plain <= found["methods"].keys()


@pytest.mark.parametrize("name", GRIDS)
def test_names_are_fit_for_files(name):
    names = [run.name for run in GRIDS[name]().runs]
    assert [name for name in names if not re.fullmatch(r"[\w.-]+", name)] == []


def test_runs_make_the_same_number_of_steps_but_for_equal_time_and_stage_2_alone(plan):
    for run in plan.runs:
        epochs = [stage.epochs for stage in run.stages]
        if run.group == "wall_clock":
            assert epochs == [None], run.name
        else:
            assert sum(epochs) == (5 if run.label == STAGE_2_ALONE else 7), run.name


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
    assert len(runs) == len(ABLATIONS) + len(FINER_ABLATIONS) + 2
    variants = [repr(run.stages) for run in (whole, *runs)]
    assert len(set(variants)) == len(variants)


def test_no_ablation_sets_what_is_the_default(plan):
    known = read_config("pretrain.yaml") | read_config("train.json")
    known |= {"distribution": read_config("pretrain.yaml")["distribution"]}
    for first, second in (*ABLATIONS.values(), *FINER_ABLATIONS.values()):
        for key, value in {**first, **second}.items():
            assert known[key] != value


@pytest.fixture(scope="module")
def comparison():
    return methods(pretrain_epochs=2, train_epochs=5)


def test_every_method_has_the_same_steps_and_at_the_centre_every_seed(comparison):
    main = [run for run in comparison.runs if run.group == "main"]
    assert all(sum(stage.epochs for stage in run.stages) == 7 for run in main)
    every = {"universal", "modality_dropout", "full_only", "LCKD", "GMD"}
    every |= {GMD_NOT_DECOUPLED, PCGRAD_UNET}
    for seed in (0, 1, 2):
        assert {run.label for run in main if (run.missing, run.seed) == (CENTRE, seed)} == every


def test_the_costly_variants_have_one_run_outside_of_the_centre(comparison):
    uneven = "0.2/0.4/0.6/0.8"
    for missing in (0.0, 0.3, 0.8, uneven):
        for label in (GMD_NOT_DECOUPLED, PCGRAD_UNET):
            runs = [r for r in comparison.runs if (r.label, r.missing) == (label, missing)]
            assert {r.seed for r in runs} == ({0} if missing == uneven else set())
    assert "have one seed" in comparison.notes[-1]


def test_at_the_centre_every_method_gets_the_time_of_the_universal_model(comparison):
    by_name = {run.name: run for run in comparison.runs}
    central = [r for r in comparison.runs if r.group == "wall_clock" and r.missing == CENTRE]
    assert len(central) == 6 * 3
    for run in central:
        budget, pace = (by_name[name] for name in run.after)
        assert (budget.label, budget.group, pace.group) == ("universal", "main", "main")
        assert {r.seed for r in (budget, pace)} == {run.seed}
        assert [stage.epochs for stage in run.stages] == [None]
        assert run.stages[0].overrides == pace.stages[0].overrides
        # full_only makes plain steps, of which there is a run that is always possible.
        assert pace.label == ("modality_dropout" if run.label == "full_only" else run.label)
        assert (run.needs == BRATS_MODALITIES) == (run.label == "full_only")


def test_what_another_grid_has_made_tells_no_time_for_this_one(comparison):
    """Budget and pace of a run that is this grid's alone are, so that one device makes both."""
    shared = {run.name for run in universal(pretrain_epochs=2, train_epochs=5).runs}
    own = [r for r in comparison.runs if r.group == "wall_clock" and r.name not in shared]
    assert {run.label for run in own} >= {"LCKD", "GMD", "full_only"}
    for run in own:
        assert shared.isdisjoint(run.after), run.name


def test_elsewhere_random_dropping_alone_gets_that_time(comparison):
    others = {r.label for r in comparison.runs if r.group == "wall_clock" and r.missing != CENTRE}
    assert others == {"modality_dropout"}


def test_a_grid_that_is_stopped_has_a_whole_comparison(comparison):
    """The centre of the first seed comes before its other ratios, those before the next seed.

    Left aside are runs that tell the time, which come before, and the costly ones with one seed,
    which come last.
    """
    timing = {name for run in comparison.runs for name in run.after}
    runs = [run for run in comparison.runs if run.name not in timing]
    costly = (GMD_NOT_DECOUPLED, PCGRAD_UNET)
    main = [run for run in runs if run.group != "ablation" and run.label not in costly]
    places = {
        what: [place for place, run in enumerate(main) if wanted(run)]
        for what, wanted in {
            "centre": lambda r: r.seed == 0 and r.missing == CENTRE,
            "first": lambda r: r.seed == 0 and r.missing != CENTRE and r.group == "main",
            "specialists": lambda r: r.group == "specialist",
            "second": lambda r: r.seed == 1,
            "third": lambda r: r.seed == 2,
        }.items()
    }
    for earlier, later in itertools.pairwise(places):
        assert max(places[earlier]) < min(places[later]), (earlier, later)
    assert [run.label for run in runs[-2:]] == [*costly]
    assert all(run.rates == UNEVEN for run in runs[-2:])


def test_uneven_runs_say_their_rates(comparison):
    runs = [run for run in comparison.runs if run.rates is not None]
    assert {run.missing for run in runs} == {"0.2/0.4/0.6/0.8"}
    assert all((run.rates, run.ratio) == (UNEVEN, 0.5) for run in runs)
    assert {run.label for run in runs} == {r.label for r in comparison.runs if r.group == "main"}


@pytest.mark.parametrize(
    ("overlay", "change"),
    [
        *(("method_gmd.yaml", change) for change in CHANGED.values()),
        *((OVERLAYS[whole][0], change) for whole, change in VARIANTS.values()),
    ],
)
def test_no_variant_sets_what_is_the_default(overlay, change):
    for path, value in change.items():
        assert look_up(read_config(overlay), path) != value


def test_changes_of_gmd_are_one_thing_each(comparison):
    """What they have in common with the whole is all but the one id that is overridden."""
    by_label = {
        r.label: r for r in comparison.runs if (r.group, r.seed, r.missing) == ("main", 0, CENTRE)
    }
    assert {change.label: change.whole for change in comparison.changes} == dict.fromkeys(
        (GMD_NOT_DECOUPLED, PCGRAD_UNET), "GMD"
    )
    for change in comparison.changes:
        (changed,), (whole,) = (by_label[x].stages for x in (change.label, change.whole))
        assert (changed.configs, changed.epochs) == (whole.configs, whole.epochs)
        assert len(changed.overrides.items() ^ whole.overrides.items()) == 1


def test_variants_are_of_methods_of_the_grid(comparison):
    runs = [run for run in comparison.runs if run.group == "ablation"]
    planned = [*VARIANTS, *VARIANTS_OF_ALL_SEEDS * 2]
    assert [(run.label, run.whole) for run in runs] == [(k, VARIANTS[k][0]) for k in planned]
    others = [seed for seed in (1, 2) for _ in VARIANTS_OF_ALL_SEEDS]
    assert [run.seed for run in runs] == [0] * len(VARIANTS) + others
    by_label = {r.label: r for r in comparison.runs if (r.group, r.seed) == ("main", 0)}
    for run in runs:
        whole = by_label[run.whole]
        assert run.stages[0].configs == whole.stages[0].configs
        assert run.stages[0].overrides != whole.stages[0].overrides
        assert run.stages[0].epochs == sum(stage.epochs for stage in whole.stages)
