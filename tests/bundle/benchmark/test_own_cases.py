from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundle.benchmark.absence import prepare_data
from bundle.benchmark.command import benchmark
from bundle.benchmark.grids import OWN
from bundle.benchmark.own_cases import read, with_gaps
from bundle.modalities import BRATS_MODALITIES


def item(name: str, modalities=BRATS_MODALITIES) -> dict:
    return {"case": name, "image": {m: f"{name}_{m}.nii.gz" for m in modalities}, "label": "l.nii"}


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
    data = read(write(first))
    assert (data.training, data.testing) == (4, 2)
    assert read(write(second)) == data
    assert read(write(second, training=5)).digest != data.digest


def test_testing_cases_must_be_complete(tmp_path):
    with pytest.raises(ValueError, match=r"testing cases with all of t1\+t1ce\+t2\+flair.*'q1'"):
        read(write(tmp_path, testing=("t1", "t2")))


@pytest.mark.parametrize("seed", range(8))
def test_no_modality_is_lost_from_all_training_cases(tmp_path, seed):
    path = with_gaps(write(tmp_path), 0.8, seed, tmp_path / "out")
    sets = kept(path)
    assert set().union(*sets) == set(BRATS_MODALITIES)
    assert all(sets)
    assert kept(with_gaps(write(tmp_path), 0.8, seed, tmp_path / "out")) == sets


def test_seeds_lack_different_scans_and_testing_cases_lack_none(tmp_path):
    paths = [with_gaps(write(tmp_path), 0.5, seed, tmp_path) for seed in (0, 1)]
    assert kept(paths[0]) != kept(paths[1])
    testing = json.loads(Path(paths[0]).read_text())["testing"]
    assert all(len(case["image"]) == 4 for case in testing)


def test_too_few_cases_for_all_modalities_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected 1 training cases to have each of"):
        with_gaps(write(tmp_path, training=1), 1.0, 0, tmp_path)


def test_runs_of_the_grid_are_of_these_data(tmp_path):
    datalist = write(tmp_path)
    sizes = {}
    for name, make in OWN.items():
        grid = make(read(datalist))
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
    assert "0 of 33 runs are finished" in capsys.readouterr().out
    report = (tmp_path / "out" / "cases" / "report.md").read_text()
    assert "4 training and 2 testing cases of one's own" in report
