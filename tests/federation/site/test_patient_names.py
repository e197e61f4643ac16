from __future__ import annotations

import numpy as np
import pytest
import torch
from federation.site.patient_names import find_names, identifiers, presentable
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType

DATALIST = {
    "training": [
        {
            "case": "BraTS20_001",
            "patient": "Doe_Jane",
            "image": {"t1": "scans/BraTS20_001/x_t1.nii.gz"},
            "label": "scans/BraTS20_001/x_seg.nii.gz",
        }
    ],
    "validation": [{"case": "12", "image": "scans/12/volume.nii.gz"}],
    "testing": [],
    "name": "a note",
}
NAMES = identifiers(DATALIST)


def test_what_a_datalist_calls_its_patients():
    expected = {"BraTS20_001", "Doe_Jane", "x_t1.nii.gz", "x_seg.nii.gz", "12", "volume.nii.gz"}
    assert expected == NAMES


def test_a_folder_counts_if_it_is_one_cases_alone():
    cases = [{"case": f"case_{i}", "image": {"t1": f"Doe_{i}/imagesTr/{i}.nii"}} for i in (1, 2)]
    assert "imagesTr" in identifiers({"training": cases[:1]})
    assert "imagesTr" not in identifiers({"training": cases})


@pytest.mark.parametrize(
    "text",
    [
        "BraTS20_001",
        "cannot read brats20_001_flair",
        "x_t1.nii.gz is damaged",
        "/data/site",
        "see '/mnt/scans/file.nii'",
        "C:\\scans\\file",
        "C:/scans/file",
        "\\\\server\\share",
        "file://somewhere",
        "~/scans",
        "~jane/scans",
        "12",
    ],
)
def test_names_and_paths_are_found(text):
    assert len(find_names(text, NAMES)) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("XBraTS20_001", "BraTS20_0012", "1/2", "t1/t2", "https://host/a/b", "and/or", "a: b"),
        *("/", "", "network.encoder.12.weight", "12.5/3 and 1/2", "a12f"),
    ],
)
def test_what_only_looks_like_it_is_not(text):
    assert find_names(text, NAMES) == []


def test_a_text_may_hold_several():
    assert find_names("fine", NAMES) == []
    assert find_names("in /data/Doe_Jane", NAMES) == ["Doe_Jane", "/data/Doe_Jane"]


def test_no_names_still_finds_paths():
    assert find_names("BraTS20_001") == []
    assert find_names("/data/x") == ["/data/x"]


def test_an_error_is_told_unless_it_holds_a_name_or_nobody_knows_the_names():
    assert presentable(ValueError("no labels"), NAMES) == "ValueError: no labels"
    hidden = "ValueError. The site's own log says more."
    assert presentable(ValueError("no label of Doe_Jane"), NAMES) == hidden
    assert presentable(ValueError("no labels"), None) == hidden
    assert presentable(ValueError("Doe_Jane"), ()) == "ValueError: Doe_Jane"


@pytest.mark.parametrize("text", ["cannot read brats20_001_flair", "see '/mnt/scans/file.nii'"])
def test_the_search_that_other_tests_rely_on_looks_everywhere(text, find_secrets):
    itself = {"a": text}
    itself["self"] = itself
    messages = [
        text,
        {"meta": {"error": text}},
        {text: 1},
        [0, (text,)],
        {"a": {text}},
        text.encode(),
        torch.tensor(list(text.encode()), dtype=torch.uint8),
        np.frombuffer(text.encode(), dtype=np.uint8).copy(),
        np.array([["fine", text]]),
        np.array([text], dtype=object),
        FLModel(ParamsType.DIFF, {"w": torch.ones(1)}, meta={"log": [text]}),
        itself,
    ]
    for message in messages:
        assert len(find_secrets(message, NAMES)) == 1, message


def test_the_search_finds_nothing_in_a_clean_message(find_secrets):
    message = {
        "params": {"network.encoder.12.weight": torch.randn(3), "b": np.ones(2)},
        "meta": {"cases": {"t1": 12}, "round": 12, "hash": "a12f", "rate": "12.5/3 and 1/2"},
        "task": ("train", None, 3.5, True),
    }
    assert find_secrets(message, NAMES) == []
