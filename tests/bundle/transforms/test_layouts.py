from __future__ import annotations

import pytest
import torch

from bundle.regions import BRATS_REGIONS
from bundle.transforms.layouts import check_name, labels_of, postfix_of
from bundle.transforms.regions import RegionsToLabelsd

NAMES = ("t1", "t1ce", "t2", "flair")
POST_TREATMENT = {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3], "RC": [4]}


def test_our_own_layout_writes_what_the_settings_say():
    assert postfix_of("patchwork") == "pred"
    assert labels_of("patchwork", {"A": [7]}, {"7": 9}) == {"7": 9}
    assert labels_of("patchwork", BRATS_REGIONS, None) == {}


@pytest.mark.parametrize("written", [{}, {"4": 3}, {"1": 2, "2": 1}])
def test_brats_2026_numbers_its_labels_itself(written):
    assert postfix_of("brats2026") == ""
    assert labels_of("brats2026", BRATS_REGIONS, written) == {1: 1, 2: 2, 4: 3}
    assert labels_of("brats2026", POST_TREATMENT, written) == {1: 1, 2: 2, 3: 3, 4: 4}


def test_the_numbers_are_those_of_the_tissues():
    # Voxels: nothing, WT alone (SNFH), TC in WT (NETC), ET in both, RC.
    regions = {"ET": [9], "RC": [5], "WT": [7, 8, 9], "TC": [8, 9]}
    masks = {"ET": "00010", "RC": "00001", "WT": "01110", "TC": "00110"}
    pred = torch.tensor([[int(digit) for digit in masks[name]] for name in regions])
    paint = RegionsToLabelsd("pred", regions, labels_of("brats2026", regions, {}))
    found = paint({"pred": pred[:, :, None, None]})["pred"]
    assert found.flatten().tolist() == [0, 2, 1, 3, 4]


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        ({"WT": [1, 2, 4]}, r"one label for each of .* got these numbers .*: \{1: 2, 2: 2, 4: 2\}"),
        ({"TC": [1, 4], "WT": [1, 2, 4]}, r"one label for each of NETC .* \{1: 1, 2: 2, 4: 1\}"),
        ({"TC": [1], "WT": [1, 2]}, r"one label for each of NETC .* \{1: 1, 2: 2\}"),
        ({**BRATS_REGIONS, "cyst": [5]}, r"got label 5 in \['cyst'\]"),
        ({**BRATS_REGIONS, "RC": [4]}, r"got label 4 in \['ET', 'RC', 'TC', 'WT'\]"),
    ],
)
def test_regions_that_have_no_number_are_refused(regions, said):
    with pytest.raises(ValueError, match=said):
        labels_of("brats2026", regions, {})


def test_an_unknown_layout_is_refused():
    with pytest.raises(ValueError, match="expected layout patchwork or brats2026, got 'brats'"):
        postfix_of("brats")
    with pytest.raises(ValueError, match="expected layout patchwork or brats2026, got 'bids'"):
        labels_of("bids", BRATS_REGIONS, {})


@pytest.mark.parametrize(
    "case", ["BraTS-GLI-00000-000", "BraTS20_Training_001", "sub-01", "a_pred"]
)
def test_the_names_of_cases_are_fine(case):
    check_name(f"{case}.nii.gz", case, NAMES)


@pytest.mark.parametrize(("case", "role"), [("p_t1", "t1"), ("p-t2f", "flair"), ("p_seg", "label")])
def test_a_name_that_reads_as_a_scan_or_a_label_is_refused(case, role):
    with pytest.raises(ValueError, match=rf"{case}\.nii\.gz, which reads as a file of {role}"):
        check_name(f"{case}.nii.gz", case, NAMES)
