from __future__ import annotations

import json
import os

import pytest

from bundle.data.channels import channel_order
from bundle.data.dataset_json import DATASET_JSON, channel_role, read_channels, read_layout
from bundle.data.filenames import file_endings
from bundle.modalities import BRATS_MODALITIES

ENDINGS = file_endings(BRATS_MODALITIES)


@pytest.mark.parametrize(
    "channels",
    [
        {"0": "T1", "1": "FLAIR"},
        ["t1w", "T2 FLAIR"],
        {"1": "brain_t2f", "0": "MR T1"},
    ],
)
@pytest.mark.parametrize("key", ["modality", "channel_names"])
def test_a_survey_and_a_4d_file_read_the_same_channels(tmp_path, key, channels):
    note = tmp_path / DATASET_JSON
    note.write_text(json.dumps({key: channels}))
    layout = read_layout(note, ENDINGS)
    assert (layout.roles, layout.problems) == ({0: "t1", 1: "flair"}, [])
    assert channel_order(tmp_path / "a.nii", BRATS_MODALITIES) == ("t1", "flair")


@pytest.mark.parametrize(
    ("name", "role"),
    [("T1/T2", None), ("MRI", None), ("seg", "label"), ("ADC", None), (" T1 Gd ", "t1ce")],
)
def test_a_channel_is_no_path(name, role):
    assert channel_role(name, ENDINGS) == role


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_plain_file_is_not_waited_for(tmp_path, make):
    make(tmp_path / DATASET_JSON)
    with pytest.raises(ValueError, match=r"dataset\.json cannot be read .*it is no plain file"):
        read_channels(tmp_path / DATASET_JSON)
    assert channel_order(tmp_path / "a.nii", BRATS_MODALITIES) is None
