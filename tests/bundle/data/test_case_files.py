from __future__ import annotations

import numpy as np
import pytest

from bundle.data.case_files import find_files, spell_out
from bundle.data.volumes import CaseError
from bundle.modalities import BRATS_MODALITIES


@pytest.fixture
def gap_case(write_volume):
    """T1 and FLAIR of case A."""
    return {m: write_volume(f"A/A_{m}.nii.gz", i) for i, m in enumerate(("t1", "flair"))}


def test_every_form_names_the_same_files_and_spells_out_the_same_item(gap_case):
    files = {name: str(path) for name, path in gap_case.items()}
    forms = [gap_case["t1"], gap_case["t1"].parent, list(gap_case.values()), gap_case]
    for source in forms:
        assert find_files(source, BRATS_MODALITIES, "A") == gap_case
        assert spell_out({"image": source, "label": "x"}, BRATS_MODALITIES) == {
            "image": files,
            "label": "x",
            "case": "A",
        }


def test_a_4d_file_has_nothing_to_spell_out(write_volume):
    path = write_volume("B.nii.gz", np.ones((2, 3, 4, 4), np.float32))
    assert spell_out({"image": path}, BRATS_MODALITIES) == {"image": path, "case": "B"}


def test_files_of_which_none_is_a_modality_name_the_endings(write_volume):
    folder = write_volume("A/A_map.nii.gz").parent
    with pytest.raises(CaseError, match=r"no modality is recognisable in .*_flair \(flair\)"):
        find_files(folder, BRATS_MODALITIES, "A")


def test_a_sibling_or_file_of_the_folder_that_is_not_understood_is_said(write_volume, caplog):
    path = write_volume("A/A_t1.nii.gz", 0)
    write_volume("A/A_dark.nii.gz", 1)
    for source in (path, path.parent):
        caplog.clear()
        assert list(find_files(source, BRATS_MODALITIES, "A")) == ["t1"]
        assert "case A: A_dark.nii.gz is left out, its name is not understood" in caplog.text
    item = spell_out({"image": path}, BRATS_MODALITIES, {"flair": ["dark"]})
    assert list(item["image"]) == ["t1", "flair"]


def test_bids_siblings_are_one_case_whatever_their_entities(write_volume):
    path = write_volume("sub-01_acq-3d_T1w.nii.gz", 0)
    write_volume("sub-01_ce-gd_T1w.nii.gz", 1)
    write_volume("sub-01_dseg.nii.gz", 1)
    item = spell_out({"image": path}, BRATS_MODALITIES)
    assert (item["case"], list(item["image"])) == ("sub-01", ["t1", "t1ce"])


def test_a_host_may_call_a_case_0(gap_case):
    assert spell_out({"image": gap_case, "case": 0}, BRATS_MODALITIES)["case"] == "0"
    assert spell_out({"image": gap_case, "case": ""}, BRATS_MODALITIES)["case"] == "A"


@pytest.mark.parametrize(("one", "other"), [("ctrl_N3", "ctrl_N4"), ("grp-n4", "grp-n3")])
def test_siblings_of_another_number_are_another_case(write_volume, one, other):
    path = write_volume(f"{one}_t1.nii.gz", 0)
    write_volume(f"{other}_flair.nii.gz", 1)
    item = spell_out({"image": path}, BRATS_MODALITIES)
    assert (item["case"], list(item["image"])) == (one, ["t1"])


@pytest.mark.parametrize(("one", "other"), [("ctrl_iso", "ctrl_norm"), ("a1_reg", "a1_corr")])
def test_siblings_that_differ_in_a_word_are_refused(write_volume, one, other):
    path = write_volume(f"{one}_t1.nii.gz", 0)
    write_volume(f"{other}_flair.nii.gz", 1)
    with pytest.raises(CaseError, match="differ before the ending in a word of preprocessing"):
        spell_out({"image": path}, BRATS_MODALITIES)


def test_the_plain_file_beside_a_preprocessed_one_is_taken_and_said(write_volume, caplog):
    path = write_volume("A/A_t1.nii.gz", 0)
    write_volume("A/A_t1_bias.nii.gz", 1)
    for source in (path, path.parent):
        caplog.clear()
        assert find_files(source, BRATS_MODALITIES, "A") == {"t1": path}
        assert "case A: 1 preprocessed scan is left aside" in caplog.text


@pytest.mark.parametrize("case", ["p01_post", "site1_KM"])
def test_a_case_is_named_by_the_files_beside_one(write_volume, case):
    path = write_volume(f"{case}_t1.nii.gz", 0)
    write_volume(f"{case}_t2.nii.gz", 1)
    item = spell_out({"image": path}, BRATS_MODALITIES)
    assert (item["case"], list(item["image"])) == (case, ["t1", "t2"])
