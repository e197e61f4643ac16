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


@pytest.mark.parametrize(
    ("first", "second"),
    [("p1_t1", "p1_t1 (2)"), ("p1_t1", "p1_T1w"), ("p1_t1_reg", "p1_brain_t1")],
)
def test_two_versions_of_a_scan_are_never_chosen_from(tmp_path, first, second):
    found = look(tmp_path, f"{first}.nii.gz", f"{second}.nii.gz", "p2_t1.nii.gz")
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


@pytest.mark.parametrize(
    ("names", "held_by"),
    [
        (
            ("ctrl_N3_t1", "ctrl_N3_t1ce", "ctrl_N4_flair", "ctrl_N4_t2"),
            {"ctrl_N3": "t1+t1ce", "ctrl_N4": "t2+flair"},
        ),
        (("GBM-n4-T1", "GBM-n3-FLAIR"), {"GBM-n3": "flair", "GBM-n4": "t1"}),
    ],
)
def test_a_bare_n3_or_n4_before_the_ending_is_part_of_the_name(tmp_path, names, held_by):
    # A third name keeps the folder from being one patient's by question.
    found = look(tmp_path, *(f"{name}.nii" for name in (*names, "p9_t1", "p9_t2")))
    assert held(found) == held_by | {"p9": "t1+t2"}
    assert found.problems == []
    # After the ending, and in the folder of the case's name, it is a word of preprocessing.
    found = look(tmp_path / "in", "b1/b1_n4_t1.nii", "b1/b1_flair_n4.nii", "b1/b1_seg.nii")
    assert held(found) == {"b1": "t1+flair+label"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ctrl_iso_t1", "ctrl_norm_flair"),
        ("site1_corr_t1", "site1_reg_flair"),
        ("ctrl_t1", "ctrl_brain_flair"),
        ("p01_t1", "p01_n4_flair"),
    ],
)
def test_names_that_differ_in_a_word_before_the_ending_are_not_joined(tmp_path, one, other):
    found = look(tmp_path, f"{one}.nii", f"{other}.nii", "p9_t1.nii", "p9_flair.nii")
    assert held(found) == {"p9": "t1+flair"}
    (problem,) = found.problems
    assert "a word of preprocessing" in problem
    assert "Spell them alike if this is one patient" in problem


def test_the_plain_file_of_a_scan_is_taken_and_said_once(tmp_path):
    """UCSF-PDGM is published so."""
    kinds = ("T1", "T1c", "T2", "FLAIR")
    names = [
        f"UCSF-PDGM-{n}_{k}{b}" for n in ("0004", "0005") for k in kinds for b in ("", "_bias")
    ]
    found = look(tmp_path, *(f"{name[:14]}_nifti/{name}.nii.gz" for name in names))
    assert found.problems == found.unread == []
    assert set(held(found).values()) == {"t1+t1ce+t2+flair"}
    assert not [path for item in found.items for path in item["image"].values() if "bias" in path]
    (note,) = found.notes
    assert note.startswith("8 preprocessed scans are left aside, for there is a plain file of the ")
    assert "such as UCSF-PDGM-0004_FLAIR.nii.gz beside UCSF-PDGM-0004_FLAIR_bias.nii.gz" in note
    endings = "other=t1,t1c,t2,flair;t1=t1_bias;t1ce=t1c_bias;t2=t2_bias;flair=flair_bias"
    chosen = survey(tmp_path, BRATS_MODALITIES, endings)
    assert chosen.problems == chosen.notes == []
    assert chosen.items[0]["image"]["t1"].endswith("_T1_bias.nii.gz")


def test_one_plain_file_beside_a_stripped_one_is_taken(tmp_path):
    found = look(tmp_path, *(f"p1/{n}.nii" for n in ("T1", "T1_brain", "T2_FLAIR", "FLAIR_brain")))
    assert [Path(p).stem for p in found.items[0]["image"].values()] == ["T1", "T2_FLAIR"]


def test_versions_that_do_not_pair_are_not_chosen_from(tmp_path):
    found = look(tmp_path, "p1/T1_bias.nii", "p1/T1_bet.nii", "p2/T1.nii", "p2/T1_reg.nii")
    touch(tmp_path, "p2/FLAIR_reg.nii")
    found = survey(tmp_path, BRATS_MODALITIES)
    assert found.items == found.notes == []
    assert len(found.problems) == 2
    assert "--suffixes other=t1_be" in found.problems[0] or "=t1_bias" in found.problems[0]
    assert "leave it aside by its ending, such as --suffixes other=t1_reg" in found.problems[1]


@pytest.mark.parametrize(
    "files",
    [
        ("imagesTr/p01_t1.nii", "imagesTs/p01_flair.nii"),
        ("a/imagesTr/p01_t1.nii", "a/imagesVal/p01_t1.nii"),
        ("siteA_T1/p01_t1.nii", "siteB_FLAIR/p01_flair.nii"),
    ],
)
def test_one_name_in_two_parts_of_a_data_set_is_a_problem(tmp_path, files):
    found = look(tmp_path, *files)
    assert found.items == []
    (problem,) = found.problems
    assert problem.startswith("case p01: found in ")


def test_a_folder_called_like_a_modality_that_holds_others_is_a_case(tmp_path):
    found = look(tmp_path / "one", "T1/flair.nii", "T2/t1.nii")
    assert held(found) == {"T1": "flair", "T2": "t1"}
    found = look(tmp_path / "two", *(f"{c}/{m}.nii" for c in ("T1", "T2") for m in ("t1", "flair")))
    assert held(found) == {"T1": "t1+flair", "T2": "t1+flair"}


@pytest.mark.parametrize(
    "names",
    [
        ("3D_AX_T1_precontrast", "3D_AX_T1_postcontrast", "2D_AX_T2", "2D_AX_T2_FLAIR"),
        ("AX_T1", "AX_T1ce", "SAG_FLAIR"),
        ("cor_tse_t2", "cor_tse_flair", "tra_t1"),
    ],
)
def test_series_of_unequal_numbers_raise_the_question(tmp_path, names):
    found = look(tmp_path, *(f"P1/{name}.nii.gz" for name in names))
    assert found.items == []
    (problem,) = found.problems
    assert "names with no modality twice, such as" in problem
    assert "Is this one patient?" in problem


def test_patients_with_different_modalities_are_not_questioned(tmp_path):
    found = look(tmp_path / "ids", "p01_t1.nii", "p01_flair.nii", "p02_t2.nii")
    assert held(found) == {"p01": "t1+flair", "p02": "t2"}
    assert found.problems == found.notes == []
    found = look(tmp_path / "names", "smith_t1.nii", "smith_flair.nii", "jones_t2.nii")
    assert held(found) == {"jones": "t2", "smith": "t1+flair"}
    assert found.problems == []
    assert "the cases jones and smith have no modality in common" in found.notes[0]


@pytest.mark.parametrize(
    "label", ["p01_ventricles_seg", "wmh_seg", "p01_t1_fast_pve_seg", "edema_label", "p01_pons_gt"]
)
def test_a_label_of_something_else_joins_no_case(tmp_path, label):
    found = look(tmp_path, "p01/p01_t1.nii", f"p01/{label}.nii")
    assert held(found) == {"p01": "t1"}
    assert "by its name" in found.unread[0]
    assert f"{label}.nii (a label of " in found.unread[0]


@pytest.mark.parametrize(
    "label", ["p01_manual_seg", "glioma_final_seg", "W39_1998.09.19_tumour_gt"]
)
def test_a_label_with_words_of_a_tumour_joins_its_folder(tmp_path, label):
    found = look(tmp_path, "p01/p01_t1.nii", f"p01/{label}.nii")
    assert (held(found), found.unread) == ({"p01": "t1+label"}, [])


@pytest.mark.parametrize(("one", "other"), [("J\u00f6rg", "Jo\u0308rg"), ("\u00e5_1", "a\u030a_1")])
def test_both_ways_to_write_an_accent_are_one_name(tmp_path, one, other):
    found = look(tmp_path, f"{one}_t1.nii", f"{other}_flair.nii", "p2_t1.nii", "p2_flair.nii")
    assert held(found) == {one: "t1+flair", "p2": "t1+flair"}
    found = look(tmp_path / "in", f"{one}/t1.nii", f"{other}/t1.nii")
    assert found.problems[0].startswith(f"case {one}: found in ")


@pytest.mark.parametrize(
    ("parent", "folders"), [("s1", ("Raw", "Prep")), ("p01", ("1", "2")), ("p7", ("native", "12"))]
)
def test_a_folder_whose_name_is_none_takes_its_parents_too(tmp_path, parent, folders):
    found = look(tmp_path, *(f"{parent}/{f}/{m}.nii" for f in folders for m in ("t1", "flair")))
    assert held(found) == {f"{parent}_{folder}": "t1+flair" for folder in folders}
    assert {item["patient"] for item in found.items} == {parent}


def test_patients_below_a_site_keep_their_names(tmp_path):
    found = look(tmp_path, *(f"{g}/{p}/t1.nii" for g, p in (("HGG", "1"), ("LGG", "2"))))
    assert held(found) == {"1": "t1", "2": "t1"}


@pytest.mark.parametrize(
    "files",
    [
        ("IXI-T1/I02-Guys-T1.nii", "IXI-T2/I02-Guys-T2.nii"),
        ("T1_images/I02-Guys_t1.nii", "T2_images/I02-Guys_t2.nii"),
        ("I02-Guys/1_T1/NIFTI/T1.nii", "I02-Guys/3_T2/NIFTI/T2.nii"),
    ],
)
def test_a_folder_with_a_modality_in_its_name_stands_for_it(tmp_path, files):
    found = look(tmp_path, *files)
    assert (held(found), found.problems) == ({"I02-Guys": "t1+t2"}, [])


def test_post_beside_other_scans_of_that_name_is_a_time(tmp_path):
    found = look(tmp_path, *(f"p01_post_{m}.nii" for m in ("t1", "t1ce", "flair")))
    assert (held(found), found.unread) == ({"p01_post": "t1+t1ce+flair"}, [])
    found = look(tmp_path / "in", *(f"p01_{m}.nii" for m in ("t1", "post_t1", "flair")))
    assert held(found) == {"p01": "t1+flair"}
    assert "p01_post_t1.nii (a word before t1 may be of the contrast agent" in found.unread[0]


def test_initials_are_no_agent(tmp_path):
    found = look(tmp_path, *(f"{n}_{m}.nii" for n in ("KM", "site1_CE") for m in ("t1", "flair")))
    assert held(found) == {"KM": "t1+flair", "site1_CE": "t1+flair"}


def test_a_word_of_time_before_t1ce_is_of_the_time(tmp_path):
    kinds = ("t1", "t1ce", "t2", "flair", "seg")
    found = look(tmp_path, *(f"p01_{t}_{m}.nii" for t in ("pre", "post") for m in kinds))
    assert held(found) == dict.fromkeys(("p01_post", "p01_pre"), "t1+t1ce+t2+flair+label")


@pytest.mark.parametrize("second", ["p01_flair_reg_to_t1", "p01_flair_resampled"])
def test_a_registered_scan_beside_its_native_one_is_not_chosen_from(tmp_path, second):
    found = look(tmp_path, "p01_t1.nii", "p01_flair.nii", f"{second}.nii")
    assert (held(found), found.notes) == ({}, [])
    assert found.problems[0].startswith("case p01: expected one file for 'flair', got 2")


@pytest.mark.parametrize(
    "names", [("p01_gd_t1", "p01_gd_flair", "p01_flair"), ("p01_post_t1", "p01_post_flair")]
)
def test_an_agent_or_a_time_that_cannot_be_told_is_said(tmp_path, names):
    found = look(tmp_path, *(f"{name}.nii" for name in names))
    assert not [item for item in found.items if "t1" in item["image"] or "t1ce" in item["image"]]
    assert "may be of the contrast agent, or of another time" in found.unread[0]
