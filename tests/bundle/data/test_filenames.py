from __future__ import annotations

import time

import pytest

from bundle.data.filenames import (
    ending_role,
    file_endings,
    is_volume,
    might_be_volume,
    read_name,
    read_suffixes,
    split_name,
)
from bundle.modalities import BRATS_MODALITIES

ENDINGS = file_endings(BRATS_MODALITIES)


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


@pytest.mark.parametrize(
    ("name", "prefix", "role"),
    [
        ("sub-01_T1w.nii.gz", "sub-01", "t1"),
        ("sub-01_ce-gadolinium_T1w.nii.gz", "sub-01", "t1ce"),
        ("sub-01_ce-gadobutrol_run-1_T1w.nii.gz", "sub-01", "t1ce"),
        ("sub-01_ce-none_T1w.nii.gz", "sub-01", "t1"),
        ("sub-01_ce-gadolinium_T2w.nii.gz", "sub-01", "t2"),
        ("sub-01_ses-02_space-MNI_desc-preproc_FLAIR.nii.gz", "sub-01_ses-02", "flair"),
        ("sub-01_acq-3d_T1w.nii", "sub-01", "t1"),
        ("sub-01_dseg.nii.gz", "sub-01", "label"),
        ("sub-01_T2starw.nii.gz", "sub-01_T2starw", None),
    ],
)
def test_bids_entities_tell_the_agent_and_not_the_case(name, prefix, role):
    assert split_name(name, ENDINGS) == (prefix, role)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("p01_t1ce_reg.nii.gz", "t1ce"),
        ("p01_t1c_bet.nii.gz", "t1ce"),
        ("p01_flair_n4_norm_mni152_1mm.nii.gz", "flair"),
        ("p01_t2_skull_stripped.nii", "t2"),
        ("p01_T1_1.5mm.nii", "t1"),
        ("p01_coreg_t1gd.nii.gz", "t1ce"),
        ("p01_brain_t2.nii.gz", "t2"),
        ("p01_flair (1).nii.gz", "flair"),
        ("p01_flair - Copy.nii.gz", "flair"),
        ("p01_flair_reg_to_t1.nii.gz", "flair"),
        ("p01_t2_in_mni.nii.gz", "t2"),
    ],
)
def test_words_of_preprocessing_are_read_over(name, role):
    assert split_name(name, ENDINGS) == ("p01", role)


@pytest.mark.parametrize("word", ["t1post", "t1wce", "t1gd", "T1-Gd", "t1_post", "T1+C", "ce_T1w"])
def test_t1_after_the_agent_is_t1ce_in_any_spelling(word):
    assert split_name(f"p01_{word}.nii.gz", ENDINGS) == ("p01", "t1ce")


@pytest.mark.parametrize("word", ["t2flair", "t2_flair", "T2-FLAIR", "fla", "t2w.flair"])
def test_t2_flair_is_flair(word):
    assert split_name(f"p01_{word}.nii.gz", ENDINGS) == ("p01", "flair")
    # Where FLAIR is not asked for, it is nothing, and no T2.
    assert split_name(f"p01_{word}.nii.gz", file_endings(["t1", "t2"])) == ("p01", "other")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("p01_t1_flair.nii.gz", "two in the name, t1 and flair"),
        ("p01_flair_t2.nii.gz", "two in the name, flair and t2"),
        ("p01_t1_brain_mask.nii.gz", "no modality in the name"),
        ("p01_adc_to_t1.nii.gz", "no modality in the name"),
        ("p01_t1map.nii.gz", "no modality in the name"),
        ("p01_brain_seg.nii.gz", "a label of the anatomy by its name"),
        ("p01_flair.nii (1).gz", "a number after .nii, which no reader takes"),
        ("x" * 300 + "_t1.nii", "no modality in the name"),
    ],
)
def test_what_is_not_certain_is_not_understood(name, why):
    read = read_name(name, ENDINGS)
    assert (read.role, read.why) == (None, why)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("p01_pred.nii.gz", "prediction"),
        ("p01_probabilities.nii.gz", "prediction"),
        ("p01_t1_rebuilt.nii.gz", "prediction"),
        ("p01_uncertainty.nii", "prediction"),
        ("p01_pred_seg.nii.gz", "prediction"),
        ("p01_t1ce_seg.nii.gz", "label"),
    ],
)
def test_predictions_are_no_labels(name, role):
    assert split_name(name, ENDINGS)[1] == role


def test_given_endings_join_the_known_ones_and_win():
    endings = file_endings(BRATS_MODALITIES, "flair=dark_fluid,xyz_bet; other=adc")
    names = {"p_dark-fluid.nii": "flair", "p_xyz_bet.nii": "flair", "p_flair.nii": "flair"}
    names |= {"p_adc.nii": "other", "p_t2.nii": "t2"}
    assert {name: split_name(name, endings)[1] for name in names} == names
    assert file_endings(BRATS_MODALITIES, {"t1ce": ["t1"]})["t1"] == "t1ce"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("fla", "expected modalities with endings"),
        ("flair=", "expected modalities with endings"),
        (["fla"], "expected modalities with endings"),
        ({"flair": [7]}, "expected modalities with endings"),
        ({"flair": "f(la"}, "expected modalities with endings"),
        ("flair=x;t1=x", "'x' is given for flair and for t1"),
        ("flar=fla", "suffixes: unknown modality 'flar'"),
    ],
)
def test_bad_suffixes_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        file_endings(BRATS_MODALITIES, given)


def test_separators_in_a_vocabulary_mean_any_separator():
    endings = file_endings(["ADC-map", "t1"])
    assert split_name("p_adc_map.nii", endings) == ("p", "ADC-map")
    assert split_name("p-ADCmap.nii", endings) == ("p", "ADC-map")


def test_no_suffixes_are_none():
    assert read_suffixes(None) == read_suffixes({}) == read_suffixes("") == {}


def test_a_vocabulary_of_other_names_has_all_their_endings():
    endings = file_endings(["t1n", "t1c"])
    assert split_name("p_t1post.nii", endings) == ("p", "t1c")
    assert split_name("p_T1w.nii", endings) == ("p", "t1n")


def test_a_channels_name_is_an_ending_and_nothing_else():
    words = ("T1w", "t1gd", "FLAIR", "T1-weighted", "p01_t1", "zscore")
    roles = [ending_role(word, ENDINGS) for word in words]
    assert roles == ["t1", "t1ce", "flair", "t1", None, None]


def test_a_browsers_copy_may_be_a_volume_that_no_reader_takes():
    names = ("a.nii", "A.NII.GZ", "a.nii (1).gz", "._a.nii", "a.nii.txt")
    assert [is_volume(name) for name in names] == [True, True, False, False, False]
    assert [might_be_volume(name) for name in names] == [True, True, True, False, False]


@pytest.mark.parametrize(
    "word",
    [
        "3DFLAIR_T2",
        "flair3d_t2",
        "darkfluid_T2",
        "tirm_t2",
        "flair_sag_t2",
        "t2_flair_fs_T2",
        "Dark-Fluid.T2w",
        "3D_tirm_T2w",
    ],
)
def test_a_flair_that_is_called_t2_is_no_t2(word):
    for case in ("p01_", "TCGA-02-0006_", ""):
        read = read_name(f"{case}{word}.nii.gz", ENDINGS)
        assert (read.role, read.why) == (None, "tells two modalities, t2 and another")
    # Words before a number are of the case's name.
    assert split_name("FLAIR_study_001_t2.nii", ENDINGS) == ("FLAIR_study_001", "t2")


@pytest.mark.parametrize(
    "entity", ["acq-FLAIR", "acq-t2flair", "rec-flair", "acq-tirm", "desc-3DFlair"]
)
def test_an_entity_tells_that_a_t2w_is_a_flair(entity):
    assert split_name(f"sub-01_{entity}_T2w.nii.gz", ENDINGS) == ("sub-01", "flair")
    assert split_name(f"sub-01_{entity}_T2w.nii", file_endings(["t1", "t2"])) == ("sub-01", "other")


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_ce-noContrast_T1w",
        "sub-01_ce-nogad_T1w",
        "sub-01_ce-precontrast_T1w",
        "sub-01_ce-0_T1w",
        "sub-01_acq-pregad_T1w",
        "sub-01_acq-withoutGd_run-1_T1w",
    ],
)
def test_an_entity_that_denies_the_agent_is_t1(name):
    assert split_name(f"{name}.nii.gz", ENDINGS) == ("sub-01", "t1")


@pytest.mark.parametrize(
    "word",
    [
        "no_gd_t1",
        "nogad_t1",
        "non_enhanced_t1",
        "pre-contrast-T1",
        "without_contrast_T1w",
        "plain_t1",
    ],
)
def test_words_that_deny_the_agent_are_t1(word):
    assert split_name(f"p01_{word}.nii.gz", ENDINGS) == ("p01", "t1")


@pytest.mark.parametrize(
    "word",
    ["gado_t1", "contrast_t1", "km_t1", "enhanced_T1w", "postgad_t1", "post-gd-T1", "Gad.T1"],
)
def test_the_agent_before_t1_is_t1ce(word):
    assert split_name(f"p01_{word}.nii.gz", ENDINGS) == ("p01", "t1ce")


@pytest.mark.parametrize(
    "entity",
    ["desc-contrast", "acq-gd", "acq-postcontrast", "acq-mprageGd", "ce-1", "acq-3DEnhanced"],
)
def test_an_entity_tells_the_agent_and_no_ending_starts_within_it(entity):
    assert split_name(f"sub-01_{entity}_T1w.nii.gz", ENDINGS) == ("sub-01", "t1ce")


@pytest.mark.parametrize(
    "name",
    [
        "p01_post_t1",
        "post_t1",
        "sub-01_acq-MPRAGEPost_T1w",
        "sub-01_acq-post_T1w",
        "p01_gd_mprage_t1",
        "km_t1",
        "sub-01_ce-unknown_T1w",
    ],
)
def test_what_may_be_an_agent_is_no_silent_t1(name):
    read = read_name(f"{name}.nii.gz", ENDINGS)
    assert read.role is None
    assert "contrast agent" in read.why


@pytest.mark.parametrize("case", ["hosp_post_001", "MU-Glioma-Post_0003", "Pat01_postop", "ce7"])
def test_a_word_in_a_cases_name_tells_no_agent(case):
    assert split_name(f"{case}_t1.nii.gz", ENDINGS) == (case, "t1")


@pytest.mark.parametrize("entity", ["desc-aseg", "desc-aparcaseg", "space-T1w_desc-tissue"])
def test_an_entity_tells_the_label_of_something_else(entity):
    read = read_name(f"sub-01_{entity}_dseg.nii.gz", ENDINGS)
    assert read.role is None
    assert read.why.startswith("a label of ")
    assert split_name("sub-01_desc-tumor_dseg.nii.gz", ENDINGS) == ("sub-01", "label")


@pytest.mark.parametrize("word", ["t1ce_minus_t1", "flair_sub_t1", "t1_by_t2", "T1c-div-T2w"])
def test_a_computed_image_of_two_modalities_is_none(word):
    read = read_name(f"p01_{word}.nii.gz", ENDINGS)
    assert read.role is None
    assert "tells two modalities" in read.why


def test_a_given_ending_wins_over_all_its_spellings():
    endings = file_endings(BRATS_MODALITIES, "other=t1c")
    assert {split_name(f"p_{word}.nii", endings)[1] for word in ("t1c", "T1+C")} == {"other"}


def test_a_name_of_many_copies_is_read_at_once():
    start = time.process_time()
    for copies in ("_copy (1)" * 26, " Kopie 2" * 30, " (1)" * 60, "_-" * 120 + "copy"):
        split_name(f"p{copies}x.nii.gz", ENDINGS)
    assert time.process_time() - start < 0.5
    for name in ("p_t1 copy 2", "p_t1_copy (1)", "p_t1 - Kopie", "p_t1 (3)", "p_t1 copy copy 3"):
        assert split_name(f"{name}.nii.gz", ENDINGS) == ("p", "t1")
