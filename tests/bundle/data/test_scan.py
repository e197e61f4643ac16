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


def touch(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def test_what_is_not_understood_is_a_problem_and_given_endings_mend_it(tmp_path, capsys):
    touch(tmp_path, "p1/p1_t1.nii", "p1/p1_dark.nii", "p1/p1_pred.nii")
    (problem,) = scan(tmp_path, check="none")
    assert problem.startswith("1 NIfTI file is not understood, such as p1/p1_dark.nii (no modality")
    out = capsys.readouterr().out
    assert problem in out
    assert "predictions of this bundle, left aside: 1 files" in out
    assert scan(tmp_path, check="none", suffixes="flair=dark") == []
    assert scan(tmp_path, check="none", suffixes="other=dark") == []


def test_the_patients_are_written_where_their_names_are_not_the_cases(tmp_path):
    cases = [f"sub-0{s}_ses-0{v}" for s in range(6) for v in (1, 2)]
    touch(tmp_path, *(f"{case}_{end}.nii" for case in cases for end in ("t1", "seg")))
    scan(tmp_path, tmp_path / "d.json", split=(0.5, 0.25, 0.25), check="none")
    sections = json.loads((tmp_path / "d.json").read_text())
    held = {s: {i["patient"] for i in sections[s]} for s in ("training", "validation", "testing")}
    assert set.union(*held.values()) == {f"sub-0{s}" for s in range(6)}
    assert sum(map(len, held.values())) == 6


def test_a_given_pattern_keeps_patients_together(tmp_path):
    touch(
        tmp_path, *(f"c{p}_{t}_{end}.nii" for p in range(4) for t in "ab" for end in ("t1", "seg"))
    )
    split = {"split": (0.5, 0.5), "check": "none", "patient": r"(c\d)_"}
    assert scan(tmp_path, tmp_path / "d.json", **split) == []
    sections = json.loads((tmp_path / "d.json").read_text())
    assert [len(sections[s]) for s in ("training", "validation")] == [4, 4]
    assert len({item["patient"] for item in sections["training"]}) == 2
    with pytest.raises(ValueError, match="patient: expected a regular expression"):
        scan(tmp_path, check="none", patient="(")


def test_a_patients_scan_without_label_is_not_tested_on(tmp_path):
    touch(tmp_path, "p1_tp1_t1.nii", "p1_tp1_seg.nii", "p1_tp2_t1.nii", "p2_tp1_t1.nii")
    (problem,) = scan(tmp_path, tmp_path / "d.json", check="none")
    assert problem.startswith("case p1_tp2: no label, and its patient p1 is in 'training'.")
    sections = json.loads((tmp_path / "d.json").read_text())
    assert [item["case"] for item in sections["testing"]] == ["p2_tp1"]
    read_datalist(tmp_path / "d.json", BRATS_MODALITIES, BRATS_REGIONS, check="none")


def test_4d_files_are_told_with_their_channels(tmp_path, capsys):
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "FLAIR", "1": "T1w"}}')
    touch(tmp_path, "imagesTr/B_1.nii.gz", "labelsTr/B_1.nii.gz")
    (problem,) = scan(tmp_path, tmp_path / "d.json")
    assert "1 4D file beside" in problem
    assert "channels FLAIR, T1w: inference takes them as they are. Training needs" in problem
    assert "was not written" in capsys.readouterr().out


def test_patients_with_several_cases_are_counted_and_an_empty_section_is_said(tmp_path, capsys):
    for case in ("p1_tp1", "p1_tp2", "p1_tp3", "q2"):
        make_case(tmp_path, case)
    assert scan(tmp_path, split=(0.7, 0.1, 0.2), check="none") == []
    out = capsys.readouterr().out
    assert "2 patients, the largest is p1 with 3 cases" in out
    assert "warning: split: testing is empty although its share is 0.2" in out
    assert "there are only 2 patients with a label" in out
    assert scan(tmp_path, split=(0.5, 0.5), check="none") == []
    out = capsys.readouterr().out
    assert "is empty" not in out


def test_a_plain_scan_beside_a_preprocessed_one_is_a_warning(tmp_path, capsys):
    folder = make_case(tmp_path, "a")
    (folder / "a_t1_bias.nii.gz").write_bytes((folder / "a_t2.nii.gz").read_bytes())
    assert scan(tmp_path, check="none") == []
    out = capsys.readouterr().out
    assert "warning: 1 preprocessed scan is left aside" in out
    assert "patients" not in out
