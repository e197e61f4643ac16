from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bundle.benchmark.command import benchmark
from bundle.benchmark.data import _own_with_gaps, prepare_data, read_own_cases
from bundle.benchmark.federated import federation
from bundle.benchmark.grids import OWN
from bundle.benchmark.plan import Phantom
from bundle.modalities import BRATS_MODALITIES
from bundle.phantom.gaps import phantom_with_gaps

RATES = (0.2, 0.4, 0.6, 0.8)


def item(name: str, modalities=BRATS_MODALITIES) -> dict:
    image = {m: f"{name}_{m}.nii.gz" for m in modalities}
    return {"case": name, "image": image, "label": f"{name}_seg.nii.gz"}


def write(folder: Path, training: int = 4, testing=BRATS_MODALITIES) -> Path:
    content = {
        "training": [item(f"p{index}") for index in range(training)],
        "validation": [],
        "testing": [item("q0"), item("q1", testing)],
    }
    path = folder / "datalist.json"
    path.write_text(json.dumps(content))
    return path


def kept(path: str) -> list[set[str]]:
    return [set(case["image"]) for case in json.loads(Path(path).read_text())["training"]]


def test_counts_and_a_digest_tell_the_data_and_no_path_does(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
    data = read_own_cases(write(first))
    assert (data.training, data.testing) == (4, 2)
    assert read_own_cases(write(second)) == data
    assert read_own_cases(write(second, training=5)).digest != data.digest


def test_testing_cases_must_be_complete(tmp_path):
    with pytest.raises(ValueError, match=r"testing cases with all of t1\+t1ce\+t2\+flair.*'q1'"):
        read_own_cases(write(tmp_path, testing=("t1", "t2")))


@pytest.mark.parametrize("seed", range(8))
def test_no_modality_is_lost_from_all_training_cases(tmp_path, seed):
    path = _own_with_gaps(write(tmp_path), 0.8, seed, tmp_path / "out")
    sets = kept(path)
    assert set().union(*sets) == set(BRATS_MODALITIES)
    assert all(sets)
    assert kept(_own_with_gaps(write(tmp_path), 0.8, seed, tmp_path / "out")) == sets


def test_seeds_lack_different_scans_and_testing_cases_lack_none(tmp_path):
    paths = [_own_with_gaps(write(tmp_path), 0.5, seed, tmp_path) for seed in (0, 1)]
    assert kept(paths[0]) != kept(paths[1])
    testing = json.loads(Path(paths[0]).read_text())["testing"]
    assert all(len(case["image"]) == 4 for case in testing)


def test_too_few_cases_for_all_modalities_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected 1 training cases to have each of"):
        _own_with_gaps(write(tmp_path, training=1), 1.0, 0, tmp_path)


def test_runs_of_the_grid_are_of_these_data(tmp_path):
    datalist = write(tmp_path)
    sizes = {}
    for name, make in OWN.items():
        grid = make(read_own_cases(datalist))
        assert grid.name == name
        sizes[name] = {stage.configs[-1] for run in grid.runs for stage in run.stages}
    assert sizes == {"cases": {"benchmark_cases.yaml"}, "cases_small": {"benchmark.yaml"}}
    prepared = prepare_data(grid.runs[0], tmp_path / "out", str(datalist))
    assert Path(prepared).parent == tmp_path / "out"


def test_the_datalist_and_the_grid_go_together(tmp_path, capsys):
    with pytest.raises(ValueError, match="expected --datalist with the grids"):
        benchmark(str(tmp_path), "cases")
    with pytest.raises(ValueError, match="nowhere else, got grid 'smoke'"):
        benchmark(str(tmp_path), "smoke", datalist="x.json")
    with pytest.raises(ValueError, match="none of --only, --report_only, --device"):
        benchmark(str(tmp_path), "cost", device="cuda")
    assert benchmark(
        str(tmp_path / "out"), "cases", report_only=True, datalist=str(write(tmp_path))
    )
    assert "0 of 24 runs are finished" in capsys.readouterr().out
    report = (tmp_path / "out" / "cases" / "report.md").read_text()
    assert "4 training and 2 testing cases of one's own" in report


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_a_run_with_one_ratio_has_the_phantom_with_gaps_of_its_seed(plan_run, tmp_path):
    path = Path(prepare_data(plan_run("main", "ours", 0.5, 1), tmp_path))
    assert path.relative_to(tmp_path).parts == (
        "phantom_3_4_4_24",
        "datalist_training_missing_0.5_seed_1.json",
    )
    before = path.read_bytes()
    again = phantom_with_gaps(
        str(path.parent),
        ratio=0.5,
        sections=["training"],
        seed=0,
        counts={"training": 3, "validation": 4, "testing": 4},
        anatomy="simple",
        size=24,
        absence_seed=1,
    )
    assert again == str(path)
    assert path.read_bytes() == before


def test_a_federated_run_has_whole_cases_whatever_its_seed(tmp_path):
    grid = federation(seeds=(0, 1), phantom=Phantom(3, 4, 24))
    (path,) = {prepare_data(run, tmp_path) for run in grid.runs}
    content = read_json(path)
    assert all(
        len(item["image"]) == 4 for name in ("training", "testing") for item in content[name]
    )


def test_equal_rates_are_a_ratio(plan_run, tmp_path):
    run = plan_run("main", "ours", 0.5, 1)
    even = replace(run, rates=(0.5,) * 4)
    first, second = (prepare_data(r, tmp_path) for r in (run, even))
    assert first != second
    for section in ("training", "validation", "testing"):
        assert read_json(first)[section] == read_json(second)[section]


def test_each_modality_has_its_rate_and_each_seed_its_gaps(plan_run, tmp_path):
    runs_of = [replace(plan_run("main", "ours", 0.5, seed), rates=RATES) for seed in (0, 1)]
    first, second = (read_json(prepare_data(run, tmp_path)) for run in runs_of)
    assert first["degraded"]["rates"] == dict(zip(BRATS_MODALITIES, RATES, strict=True))
    assert first["degraded"]["sections"] == ["training"]
    assert first["training"] != second["training"]
    assert first["testing"] == second["testing"]
    assert all(len(item["image"]) == 4 for item in first["testing"] + first["validation"])
    never = replace(runs_of[0], rates=(0.0, 1.0, 1.0, 0.0))
    kept = [list(item["image"]) for item in read_json(prepare_data(never, tmp_path))["training"]]
    assert kept == [["t1", "flair"]] * 3


def test_a_rate_too_few_is_refused(plan_run, tmp_path):
    run = replace(plan_run("main", "ours", 0.5), rates=(0.5,))
    with pytest.raises(ValueError, match=r"expected a rate for each of .*'flair'\], got \[0.5\]"):
        prepare_data(run, tmp_path)
