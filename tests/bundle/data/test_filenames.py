from __future__ import annotations

import re
from pathlib import Path

import pytest

from bundle.data.filenames import file_endings, split_name, survey
from bundle.modalities import BRATS_MODALITIES

ENDINGS = file_endings(BRATS_MODALITIES)


def touch(root: Path, *files: str) -> None:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def find_cases(root: Path) -> list[dict]:
    items, problems = survey(root, BRATS_MODALITIES)
    assert not problems
    return items


@pytest.mark.parametrize(
    ("name", "prefix", "role"),
    [
        ("Brats18_2013_2_1_t1ce.nii.gz", "Brats18_2013_2_1", "t1ce"),
        ("BraTS20_Training_001_flair.nii", "BraTS20_Training_001", "flair"),
        ("BraTS-GLI-00000-000-t1c.nii.gz", "BraTS-GLI-00000-000", "t1ce"),
        ("BraTS-GLI-00000-000-t1n.nii.gz", "BraTS-GLI-00000-000", "t1"),
        ("BraTS-GLI-00000-000-t2f.nii.gz", "BraTS-GLI-00000-000", "flair"),
        ("W39_1998.09.19_Segm.nii", "W39_1998.09.19", "label"),
        ("CASE.T2W.NII.GZ", "CASE", "t2"),
        ("t1.nii", "", "t1"),
        ("case_adc.nii", "case_adc", None),
    ],
)
def test_names_of_every_release_are_split(name, prefix, role):
    assert split_name(name, ENDINGS) == (prefix, role)


def test_a_modality_without_known_endings_is_found_by_its_own_name():
    endings = file_endings(["adc_map", "map"])
    assert split_name("case_adc_map.nii", endings) == ("case", "adc_map")


def test_nested_folders_of_brats2018(tmp_path):
    for grade, case in (("HGG", "Brats18_A_1"), ("LGG", "Brats18_B_1")):
        touch(tmp_path, *(f"{grade}/{case}/{case}_{e}.nii.gz" for e in (*BRATS_MODALITIES, "seg")))
    items = find_cases(tmp_path)
    assert [item["case"] for item in items] == ["Brats18_A_1", "Brats18_B_1"]
    assert list(items[0]["image"]) == list(BRATS_MODALITIES)
    assert items[0]["label"].endswith("HGG/Brats18_A_1/Brats18_A_1_seg.nii.gz")


def test_the_odd_label_of_brats2020_belongs_to_its_folder(tmp_path):
    case = "BraTS20_Training_355"
    touch(tmp_path, f"{case}/{case}_t1.nii", f"{case}/W39_1998.09.19_Segm.nii")
    (item,) = find_cases(tmp_path)
    assert item["case"] == case
    assert item["label"].endswith("W39_1998.09.19_Segm.nii")


def test_a_stray_label_joins_no_case_of_a_flat_folder(tmp_path):
    touch(tmp_path, "a_t1.nii", "b_seg.nii")
    assert "label" not in find_cases(tmp_path)[0]


def test_a_stray_image_is_another_case(tmp_path):
    touch(tmp_path, "a/a_t1.nii", "a/b_flair.nii")
    items = find_cases(tmp_path)
    assert [(item["case"], *item["image"]) for item in items] == [("a", "t1"), ("b", "flair")]


def test_several_cases_in_one_folder(tmp_path):
    touch(tmp_path, "a_t1.nii.gz", "a_seg.nii.gz", "b-flair.nii.gz", "b-t1.nii.gz")
    first, second = find_cases(tmp_path)
    assert (first["case"], list(first["image"]), "label" in first) == ("a", ["t1"], True)
    assert (second["case"], list(second["image"]), "label" in second) == (
        "b",
        ["t1", "flair"],
        False,
    )


def test_bare_names_take_the_folder_as_case(tmp_path):
    touch(tmp_path, "patient7/t1.nii.gz", "patient7/seg.nii.gz")
    assert find_cases(tmp_path)[0]["case"] == "patient7"


def test_two_files_for_one_modality_are_a_problem_and_spare_the_others(tmp_path):
    touch(tmp_path, "a/a_t1.nii", "a/a_t1.nii.gz", "b/b_t1.nii")
    items, problems = survey(tmp_path, BRATS_MODALITIES)
    assert [item["case"] for item in items] == ["b"]
    assert len(problems) == 1
    assert "a_t1.nii," in problems[0]
    assert "a_t1.nii.gz." in problems[0]
    assert problems[0].startswith("case a: expected one file for 't1', got 2")


def test_one_name_in_two_folders_is_a_problem(tmp_path):
    touch(tmp_path, "x/a/a_t1.nii", "y/a/a_t1.nii")
    items, problems = survey(tmp_path, BRATS_MODALITIES)
    assert not items
    assert len(problems) == 1
    assert re.match(r"case a: found in .*x/a and .*y/a", problems[0])


def test_no_case_says_which_names_are_understood(tmp_path):
    touch(tmp_path, "notes.txt", "scan.nii.gz")
    with pytest.raises(ValueError, match=r"no case found under .* t1c \(t1ce\)"):
        survey(tmp_path, BRATS_MODALITIES)


def test_no_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder of cases"):
        survey(tmp_path / "nowhere", BRATS_MODALITIES)
