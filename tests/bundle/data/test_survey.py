from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bundle.data.survey import Survey, survey
from bundle.modalities import BRATS_MODALITIES


def touch(root: Path, *files: str) -> None:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def look(root: Path, *files: str, **options) -> Survey:
    touch(root, *files)
    return survey(root, BRATS_MODALITIES, **options)


def find_cases(root: Path) -> list[dict]:
    found = survey(root, BRATS_MODALITIES)
    assert not found.problems
    assert not found.unread
    return found.items


def held(found: Survey) -> dict[str, str]:
    """Case -> what it has, such as 't1+flair+label'."""
    return {
        item["case"]: "+".join([*item["image"], *(["label"] if "label" in item else [])])
        for item in found.items
    }


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
    found = look(tmp_path, "a_t1.nii", "b_seg.nii")
    assert held(found) == {"a": "t1"}
    (problem,) = found.problems
    assert problem.startswith("1 label joins no case, such as b_seg.nii. Give a label the name")


def test_a_stray_image_is_another_case_or_raises_the_question(tmp_path):
    found = look(tmp_path, "a/a_t1.nii", "a/b_t1.nii", "a/a_flair.nii")
    assert held(found) == {"a": "t1+flair", "b": "t1"}
    found = look(tmp_path, "x/x_t1.nii", "x/x_t2.nii", "x/y_flair.nii")
    assert held(found) == {"a": "t1+flair", "b": "t1"}
    (problem,) = found.problems
    assert re.match(r"folder .*/x: 2 names with one scan each, .*Is this one patient\?", problem)


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
    found = survey(tmp_path, BRATS_MODALITIES)
    problems = found.problems
    assert held(found) == {"b": "t1"}
    assert len(problems) == 1
    assert "a_t1.nii," in problems[0]
    assert "a_t1.nii.gz." in problems[0]
    assert problems[0].startswith("case a: expected one file for 't1', got 2")


def test_one_name_in_two_folders_is_a_problem(tmp_path):
    touch(tmp_path, "x/a/a_t1.nii", "y/a/a_t1.nii")
    found = survey(tmp_path, BRATS_MODALITIES)
    assert not found.items
    (problem,) = found.problems
    assert re.match(r"case a: found in .*x/a and .*y/a", problem)


def test_no_case_says_which_names_are_understood(tmp_path):
    touch(tmp_path, "notes.txt", "scan.nii.gz")
    with pytest.raises(ValueError, match=r"no case found under .* t1c \(t1ce\)"):
        survey(tmp_path, BRATS_MODALITIES)


def test_no_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder of cases"):
        survey(tmp_path / "nowhere", BRATS_MODALITIES)


def test_a_bids_tree_is_read_session_by_session(tmp_path):
    for session in ("01", "02"):
        stem = f"sub-01/ses-{session}/anat/sub-01_ses-{session}"
        touch(tmp_path, *(f"{stem}_{e}.nii.gz" for e in ("T1w", "ce-gd_T1w", "acq-x_FLAIR")))
    touch(tmp_path, "derivatives/manual/sub-01_ses-02_dseg.nii.gz")
    assert held(survey(tmp_path, BRATS_MODALITIES)) == {
        "sub-01_ses-01": "t1+t1ce+flair",
        "sub-01_ses-02": "t1+t1ce+flair+label",
    }


@pytest.mark.parametrize(
    "files",
    [
        ("p1/t1/p1_t1.nii", "p1/t1ce/p1_t1ce.nii", "p1/seg/p1_seg.nii"),
        ("p1/T1w/t1.nii", "p1/T1-Gd/t1c.nii", "p1/seg/seg.nii"),
        ("p1/series_4/p1_t1.nii", "p1/series_9/p1_t1ce_reg.nii", "p1/p1_seg.nii"),
        ("T1/p1_t1.nii", "T1CE/p1_t1ce.nii", "labelsTr/p1_seg.nii"),
        ("images/p1_t1.nii", "images/p1_t1c.nii", "labels/p1_segm.nii"),
        ("a/p1_t1.nii", "a/p1_t1c.nii", "b/truth/p1_seg.nii"),
    ],
)
def test_scans_and_labels_in_folders_of_their_own_are_one_case(tmp_path, files):
    found = look(tmp_path, *files)
    assert (held(found), found.problems) == ({"p1": "t1+t1ce+label"}, [])


@pytest.mark.parametrize(
    "files",
    [
        ("siteA/p1_t1.nii", "siteB/p1_flair.nii"),
        ("p1/2019-01-02/p1_t1.nii", "p1/2020-03-04/p1_flair.nii"),
        ("p1/ses-1/p1_t1.nii", "p1/ses-2/p1_flair.nii"),
    ],
)
def test_folders_of_other_sites_and_times_are_never_joined(tmp_path, files):
    found = look(tmp_path, *files)
    assert not found.items
    assert re.match(r"case p1: found in .* and .*Give each case a name", found.problems[0])


def test_bare_names_below_a_session_take_the_patients_name_too(tmp_path):
    found = look(tmp_path, *(f"p{p}/ses-{s}/t1.nii" for p in (1, 2) for s in (1, 2)))
    assert list(held(found)) == ["p1_ses-1", "p1_ses-2", "p2_ses-1", "p2_ses-2"]


def test_a_folder_keeps_its_name_whatever_words_it_holds(tmp_path):
    found = look(tmp_path, "a_reg/a_reg_t1.nii", "a_norm/a_norm_t1.nii")
    assert held(found) == {"a_norm": "t1", "a_reg": "t1"}


@pytest.mark.parametrize("second", ["p1_t1_reg", "p1_brain_t1", "p1_t1 (2)", "p1_T1w"])
def test_two_versions_of_a_scan_are_never_chosen_from(tmp_path, second):
    found = look(tmp_path, "p1_t1.nii.gz", f"{second}.nii.gz", "p2_t1.nii.gz")
    assert held(found) == {"p2": "t1"}
    (problem,) = found.problems
    assert problem.startswith("case p1: expected one file for 't1', got 2: ")


@pytest.mark.parametrize(("one", "other"), [("p01_T1", "P01_FLAIR"), ("A/A_t1", "a/a_t1")])
def test_names_that_differ_in_letter_case_alone_are_named(tmp_path, one, other):
    found = look(tmp_path, f"{one}.nii", f"{other}.nii")
    assert not found.items
    (problem,) = found.problems
    assert "their names differ in upper and lower case alone" in problem


def test_a_folder_of_series_raises_the_question_and_one_of_patients_does_not(tmp_path):
    series = ("T1_AX_SE_10_t1", "T2_tse_11_t2", "T1_POST_13_t1c", "FLAIR_21_fla")
    found = look(tmp_path / "one", *(f"PAT-1/{name}.nii.gz" for name in series))
    (problem,) = found.problems
    assert not found.items
    assert "4 names with one scan each, no modality twice" in problem
    assert "PAT-1_t1.nii.gz and PAT-1_flair.nii.gz" in problem
    several = ("a_t1", "b_t1", "c_flair")
    assert not look(tmp_path / "two", *(f"{name}.nii" for name in several)).problems
    labelled = ("a_t1", "a_seg", "b_flair", "b_seg")
    assert not look(tmp_path / "three", *(f"{name}.nii" for name in labelled)).problems


def test_files_that_are_not_understood_are_counted_with_examples(tmp_path):
    names = ("p1_t1", "p1_mystery", "p1_t1_flair", "p1_map", "p1_x")
    found = look(tmp_path, *(f"{name}.nii.gz" for name in names), "p1_flair.nii (1).gz")
    (line,) = found.unread
    assert line.startswith("5 NIfTI files are not understood, such as p1_flair.nii (1).gz (a num")
    assert "p1_map.nii.gz (no modality in the name)" in line
    assert "p1_x" not in line
    found = survey(tmp_path, BRATS_MODALITIES, "other=map,x,mystery;flair=t1_flair")
    assert held(found) == {"p1": "t1+flair"}
    assert found.unread[0].startswith("1 NIfTI file is not understood")


def test_what_the_vocabulary_leaves_out_is_understood(tmp_path):
    touch(tmp_path, "a_t1.nii", "a_t2.nii", "a_t1ce.nii", "a_flair.nii", "a_seg.nii")
    found = survey(tmp_path, ["t1", "flair"])
    assert (held(found), found.unread) == ({"a": "t1+flair+label"}, [])


@pytest.mark.parametrize("name", ["a_pred", "a_probabilities", "a_t2_rebuilt", "a_uncertainty"])
def test_our_own_outputs_are_counted_and_nothing_else(tmp_path, name):
    found = look(tmp_path, "a_t1.nii", f"{name}.nii.gz")
    assert (held(found), found.problems, found.unread) == ({"a": "t1"}, [], [])
    assert found.predictions == 1


def test_a_second_label_elsewhere_is_a_problem(tmp_path):
    found = look(tmp_path, "a/a_t1.nii", "a/a_seg.nii", "labels/a_seg.nii")
    assert found.problems[0].startswith("case a: expected one file for 'label', got 2")


def test_one_file_behind_two_names_is_a_problem(tmp_path):
    touch(tmp_path, "a_t1.nii", "b_t1.nii", "b_t2.nii")
    (tmp_path / "a_t1ce.nii").symlink_to("a_t1.nii")
    found = survey(tmp_path, BRATS_MODALITIES)
    assert held(found) == {"b": "t1+t2"}
    assert found.problems[0].startswith("case a: t1 and t1ce are one file")
    (tmp_path / "c_flair.nii").symlink_to("b_t2.nii")
    assert survey(tmp_path, BRATS_MODALITIES).problems[-1].startswith("cases b and c share the fi")


def test_a_name_that_no_file_may_have_is_refused(tmp_path):
    found = look(tmp_path, "a\x07_t1.nii", "b_t1.nii")
    assert held(found) == {"b": "t1"}
    assert "without control characters" in found.problems[0]


def write_json(root: Path, **content) -> None:
    (root / "dataset.json").write_text(json.dumps(content))


def test_nnunet_reads_channels_by_number(tmp_path):
    write_json(tmp_path, channel_names={"0": "T1-weighted", "1": "FLAIR", "2": "ADC map"})
    files = [f"imagesTr/BRATS_001_000{i}.nii.gz" for i in range(2)]
    found = look(tmp_path, *files, "labelsTr/BRATS_001.nii.gz", "imagesTs/B_7_0001.nii.gz")
    assert held(found) == {"BRATS_001": "t1+flair+label", "B_7": "flair"}
    (problem,) = found.problems
    assert "channel 2 is called 'ADC map', which is the name of no known modality" in problem
    assert not survey(tmp_path, BRATS_MODALITIES, "other=adc_map").problems
    assert held(survey(tmp_path / "imagesTs", BRATS_MODALITIES, "other=adc_map")) == {
        "B_7": "flair"
    }


def test_an_older_nnunet_is_told_by_its_files(tmp_path):
    write_json(tmp_path, modality={"0": "t2w", "1": "t1gd"})
    found = look(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz")
    assert (held(found), found.problems) == ({"a": "t1ce+t2"}, [])


def test_the_decathlons_4d_files_come_whole_with_their_channels_said(tmp_path):
    order = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    write_json(tmp_path, modality=order, training=[{"image": "/etc/passwd", "label": "../x"}])
    files = ("imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz", "imagesTs/BRATS_002.nii.gz")
    found = look(tmp_path, *files)
    assert (found.items, found.problems, found.unread) == ([], [], [])
    assert [item["case"] for item in found.volumes_4d] == ["BRATS_001", "BRATS_002"]
    (line,) = found.channels
    assert line.startswith("2 4D files beside ")
    assert "channels FLAIR, T1w, t1gd, T2w: inference takes them as they are." in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as a JSON file"),
        ('{"modality": [["t1"]]}', "expected channels such as"),
        ('{"modality": {"1": "t1", "2": "t2"}}', "numbered from 0, got"),
        ('{"modality": {"0": "t1", "00": "t2"}}', "numbered from 0, got"),
        ('{"modality": {"0": ["t1"]}}', "expected channels such as"),
        ('{"modality": {"x": "t1"}}', "expected channels such as"),
        (json.dumps({"modality": {str(i): "t1" for i in range(65)}}), "at most 64"),
        ('{"channel_names": {"0": "T1", "1": "t1w"}}', "channels 0 and 1 are both t1"),
    ],
)
def test_a_dataset_json_out_of_form_is_a_problem(tmp_path, content, message):
    (tmp_path / "dataset.json").write_text(content)
    found = look(tmp_path, "a_t1.nii")
    assert held(found) == {"a": "t1"}
    assert message in found.problems[0]


def test_a_huge_dataset_json_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("bundle.data.dataset_json._LARGEST_BYTES", 10)
    write_json(tmp_path, modality={"0": "T1"})
    assert "expected at most 10 bytes, got" in look(tmp_path, "a_t1.nii").problems[0]


def test_another_programs_dataset_json_means_nothing(tmp_path):
    write_json(tmp_path, name="what")
    assert look(tmp_path, "a_t1.nii").problems == []
