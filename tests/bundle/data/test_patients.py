from __future__ import annotations

import time

import pytest

from bundle.data.patients import (
    check_pattern,
    largest_patient,
    name_patients,
    patient_of,
    shared_patients,
)


@pytest.mark.parametrize(
    ("cases", "patient"),
    [
        (["sub-01_ses-02", "sub-01_ses-01_run-2", "sub-01/ses-02"], "sub-01"),
        (["UPENN-GBM-00001_11", "UPENN-GBM-00001_21"], "UPENN-GBM-00001"),
        (["UCSF-PDGM-0004", "UCSF-PDGM-0004_FU001d"], "UCSF-PDGM-0004"),
        (["BraTS-GLI-00005-000", "BraTS-GLI-00005-001"], "BraTS-GLI-00005"),
        (["BraTS-MET-00086-002"], "BraTS-MET-00086"),
        (["p01_tp2", "p01_visit-3", "p01_Baseline", "p01_followup2", "p01_preop"], "p01"),
        (["p01_2019-05-04", "p01_20190504", "p01-v2", "p01_m06", "p01_ses-1_tp2"], "p01"),
        (["TCGA-02-0006_1996.08.23"], "TCGA-02-0006"),
        (["PatientID_0003_Timepoint_1"], "PatientID_0003"),
        (["Patient-001/week-000-1"], "Patient-001"),
        (["100115_time1", "100115_time02"], "100115"),
        (["site1/sub-01_ses-02"], "site1/sub-01"),
        (["smith_postop", "smith_pre-op", "smith_ses-1", "smith_tp2"], "smith"),
        (["p01_month_12", "p01_day_1200", "p01_fu_90d", "p01_post_2"], "p01"),
    ],
)
def test_sessions_and_timepoints_are_one_patients(cases, patient):
    assert {patient_of({"case": case}) for case in cases} == {patient}


@pytest.mark.parametrize(
    "case",
    [
        *("Phantom_0000", "BRATS_001", "BraTS20_Training_001", "BraTS2021_00005", "case_11"),
        *("case_21", "Brats18_2013_2_1", "Brats18_TCIA08_167_1", "x-001", "site1/p01", "sub-P_001"),
        *("case_20010203", "MR_20240115", "hospital_v1", "tp2", "t1", "BRATS-001"),
        *("MU-Glioma-Post_0003", "hosp_post_001", "glioma_pre_0042", "HGG_recurrence_0001"),
        *("UCSF_BL_012", "GBM-FU-0012", "GBM_MO_0012", "site1_m001", "site1_v012", "cohort2-M12"),
        *("hosp_day_012", "study_visit_0012", "BraTS-Africa-001", "BraTS-GLI-001"),
        *("glioma-week-0001", "hospital-2_visit_3", "center12_post_01", "HGG2_recurrence_0001"),
    ],
)
def test_other_names_are_each_a_patient(case):
    assert patient_of({"case": case}) == case


def test_the_datalist_may_name_the_patient():
    assert patient_of({"case": "x-001", "patient": "x"}) == "x"
    assert patient_of({"case": "x-001", "patient": 0}) == "0"
    assert patient_of({"case": "p01_tp2", "patient": None}) == "p01"


def test_a_pattern_names_the_patient_and_the_key_is_written_where_it_differs():
    items = [{"case": "case_11_a"}, {"case": "case_11_b"}, {"case": "p01_tp2"}, {"case": "odd"}]
    (line,) = name_patients(items, r"(case_\d+)_")
    assert [item.get("patient") for item in items] == ["case_11", "case_11", "p01", None]
    assert "fits not 2 cases, such as p01_tp2, odd." in line
    assert name_patients([{"case": "a"}]) == []


@pytest.mark.parametrize(
    "pattern", ["(", "case", "(a)(b)", "(a+)+$", "(a|aa)*b", "(.*.*.*.*)", "(x)" * 1 + "y" * 200]
)
def test_a_bad_pattern_is_refused(pattern):
    with pytest.raises(ValueError, match="patient: expected a regular expression"):
        check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", ["(" + ".?" * 40 + ")x", "(" + "[a-z]??" * 20 + ")1", "(" + "(?:a|a)" * 40 + ")x"]
)
def test_a_pattern_of_many_choices_is_refused_before_it_is_tried(pattern):
    with pytest.raises(ValueError, match=r"at most four of \? and \|"):
        check_pattern(pattern)


@pytest.mark.parametrize("pattern", [r"(.+?)(?:_\d+)?$", r"(?i)(p-?\d+)[_-]?(?:a|b)", r"(.*?\?)x"])
def test_a_pattern_of_some_choices_passes(pattern):
    assert check_pattern(pattern).groups == 1


def test_no_name_takes_long():
    start = time.process_time()
    for name in (
        "a1" + "_.-/ " * 25,
        "1" * 128,
        "a/" * 64,
        "sub-1" + "_a-1" * 30 + "!",
        "_" * 9999,
    ):
        patient_of({"case": name})
    assert time.process_time() - start < 0.5


def test_a_patient_in_two_sections_is_named():
    sections = {"training": [{"case": "p1_tp1"}], "testing": [{"case": "p1_tp2"}, {"case": "q"}]}
    (line,) = shared_patients(sections)
    assert line.startswith("patient p1 is in training and testing: scores would be too good.")
    assert "read off the case's name" in line
    assert "the key 'patient', which overrides it" in line
    named = [{"case": "x", "patient": "p1"}], [{"case": "y", "patient": "p1"}]
    (line,) = shared_patients(dict(zip(("training", "testing"), named, strict=True)))
    assert "read off" not in line


def test_the_largest_patient_is_said_where_one_has_several_cases():
    items = [{"case": "p1_tp1"}, {"case": "p1_tp2"}, {"case": "q"}]
    assert largest_patient(items) == "2 patients, the largest is p1 with 2 cases"
    assert largest_patient(items[1:]) is None
    assert largest_patient([]) is None
