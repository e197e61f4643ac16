from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.data.datalist import read_datalist
from bundle.data.scan import scan
from bundle.modalities import BRATS_MODALITIES
from bundle.regions import BRATS_REGIONS


def make_case(root: Path, case: str, labels: tuple[int, ...] = (1, 2, 4), **blank: bool) -> Path:
    folder = root / case
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    affine = np.diag([1, 1, 2, 1])
    for name in BRATS_MODALITIES:
        voxels = rng.random((10, 20, 30)).astype(np.float32) * (not blank.get(name))
        nib.save(nib.Nifti1Image(voxels, affine), folder / f"{case}_{name}.nii.gz")
    label = rng.choice([0, *labels], (10, 20, 30)).astype(np.uint8)
    nib.save(nib.Nifti1Image(label, affine), folder / f"{case}_seg.nii.gz")
    return folder


def test_the_census_counts_what_is_there(tmp_path, capsys):
    make_case(tmp_path, "a")
    make_case(tmp_path, "b", t1=True)
    (make_case(tmp_path, "c") / "c_flair.nii.gz").unlink()
    assert scan(tmp_path) == []
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"3 usable cases under {tmp_path}, 3 with a label"
    counts = {line.rsplit(None, 1)[0]: line.rsplit(None, 1)[1] for line in lines if "  " in line}
    assert (counts["t1"], counts["t2"], counts["flair"]) == ("2", "3", "2")
    assert counts["t1ce+t2+flair"] == "1"
    assert counts["10 x 20 x 30 voxels of 1 x 1 x 2 mm"] == "3"
    assert counts["1, 2, 4"] == "3"
    assert lines[-1] == "no problems"


def test_a_bad_case_is_told_and_left_out(tmp_path, capsys):
    make_case(tmp_path / "data", "a")
    make_case(tmp_path / "data", "b", labels=(1, 9))
    output = tmp_path / "out" / "datalist.json"
    (problem,) = scan(tmp_path / "data", output)
    assert "case b: b_seg.nii.gz holds unknown label values: 9" in problem
    assert problem in capsys.readouterr().out
    sections = read_datalist(output, BRATS_MODALITIES, BRATS_REGIONS)
    assert [item["case"] for item in sections["training"]] == ["a"]


def test_nothing_is_written_when_nothing_is_usable(tmp_path, capsys):
    make_case(tmp_path, "a", labels=(9,))
    assert len(scan(tmp_path, tmp_path / "datalist.json")) == 1
    assert not (tmp_path / "datalist.json").exists()
    assert "was not written" in capsys.readouterr().out


def test_both_conventions_for_the_enhancing_tumour_are_read_with_a_warning(tmp_path, capsys):
    make_case(tmp_path, "a", labels=(1, 2, 4))
    make_case(tmp_path, "b", labels=(1, 2, 3))
    assert scan(tmp_path) == []
    assert "warning: some label files hold 3, which is read as 4" in capsys.readouterr().out


def test_the_split_goes_by_patient_and_seed(tmp_path):
    for patient in range(10):
        for time in range(2):
            folder = tmp_path / f"BraTS-GLI-{patient:05d}-{time:03d}"
            folder.mkdir()
            for ending in ("t1n", "seg"):
                (folder / f"{folder.name}-{ending}.nii.gz").touch()

    def split(seed: int) -> dict:
        scan(tmp_path, tmp_path / "d.json", split=(0.7, 0.1, 0.2), seed=seed, check="none")
        return json.loads((tmp_path / "d.json").read_text())

    first = split(0)
    assert [len(first[s]) for s in ("training", "validation", "testing")] == [14, 2, 4]
    assert split(0) == first
    assert split(1) != first
    cases = [item["case"] for item in first["testing"]]
    assert {case[:-1] + "0" for case in cases} == {case for case in cases if case.endswith("0")}


def test_cases_without_label_go_to_testing(tmp_path):
    make_case(tmp_path, "a")
    (make_case(tmp_path, "b") / "b_seg.nii.gz").unlink()
    scan(tmp_path, tmp_path / "d.json")
    datalist = json.loads((tmp_path / "d.json").read_text())
    assert [item["case"] for item in datalist["testing"]] == ["b"]


@pytest.mark.parametrize("split", [(0.5, 0.6), (1.0,), (1.2, -0.2)])
def test_shares_must_add_up(tmp_path, split):
    with pytest.raises(ValueError, match="two or three shares with sum 1"):
        scan(tmp_path, split=split)
