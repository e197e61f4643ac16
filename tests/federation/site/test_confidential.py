from __future__ import annotations

import numpy as np
import pytest
import torch
from federation.site.confidential import check_secrecy, find_secrets, identifiers
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


def test_a_clean_message_has_no_findings():
    message = {
        "params": {"network.encoder.12.weight": torch.randn(3), "b": np.ones(2)},
        "meta": {"cases": {"t1": 12}, "round": 12, "hash": "a12f", "rate": "12.5/3 and 1/2"},
        "task": ("train", None, 3.5, True),
    }
    assert find_secrets(message, NAMES) == []
    check_secrecy(message, NAMES)


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
def test_names_and_paths_are_found_in_every_place(text):
    messages = [
        text,
        {"meta": {"error": text}},
        {text: 1},
        [0, (text,)],
        {"a": {text}},
        text.encode(),
        torch.tensor(list(text.encode()), dtype=torch.uint8),
        np.array([["fine", text]]),
        np.array([text], dtype=object),
        FLModel(ParamsType.DIFF, {"w": torch.ones(1)}, meta={"log": [text]}),
    ]
    for message in messages:
        assert len(find_secrets(message, NAMES)) == 1, message


@pytest.mark.parametrize(
    "text",
    ["XBraTS20_001", "BraTS20_0012", "1/2", "t1/t2", "https://host/a/b", "and/or", "a: b", "/"],
)
def test_what_only_looks_like_it_is_not(text):
    assert find_secrets(text, NAMES) == []


def test_the_place_is_told_in_the_finding_and_the_secret_not_in_the_error():
    message = {"a": 1, "b": ["fine", "/data/Doe_Jane"]}
    assert find_secrets(message, NAMES) == [
        "message[1][1]: 'Doe_Jane'",
        "message[1][1]: '/data/Doe_Jane'",
    ]
    with pytest.raises(ValueError, match=r"found 2, the first in message\[1\]\[1\]") as caught:
        check_secrecy(message, NAMES)
    assert "Doe" not in str(caught.value)


def test_a_message_that_contains_itself_ends():
    message = {"a": "BraTS20_001"}
    message["self"] = message
    assert len(find_secrets(message, NAMES)) == 1


def test_no_names_still_finds_paths():
    assert find_secrets(["BraTS20_001", "/data/x"]) == ["message[1]: '/data/x'"]
