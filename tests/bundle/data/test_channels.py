from __future__ import annotations

import json

import pytest

from bundle.data.channels import channel_order, check_order, unknown_order
from bundle.data.volumes import CaseError
from bundle.modalities import BRATS_MODALITIES

MSD = {"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}}


@pytest.fixture
def note(tmp_path):
    """Give note(content, folder): write a dataset.json; the path of a 4D file in `folder`."""

    def write(content, folder=""):
        text = content if isinstance(content, (str, bytes)) else json.dumps(content)
        path = tmp_path / "dataset.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        (tmp_path / folder).mkdir(exist_ok=True)
        return tmp_path / folder / "BRATS_001.nii.gz"

    return write


@pytest.mark.parametrize("folder", ["", "imagesTr", "imagesTs", "ImagesTs"])
def test_the_file_beside_or_above_the_images_tells_the_order(note, folder):
    assert channel_order(note(MSD, folder), BRATS_MODALITIES) == ("flair", "t1", "t1ce", "t2")


@pytest.mark.parametrize(
    ("content", "order"),
    [
        ({"channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "Flair"}}, "t1 t1ce t2 flair"),
        ({"channel_names": {"1": "T2", "0": "T2-FLAIR"}}, "flair t2"),
        ({"modality": ["t1n", " T1c ", "brain_t2f"]}, "t1 t1ce flair"),
        ({"channel_names": {"0": "T2"}, "modality": {"0": "T1"}}, "t2"),
        ({"modality": {"0": "MR T1", "1": "t1wce", "2": "T2-FLAIR"}}, "t1 t1ce flair"),
    ],
)
def test_the_keys_of_nnunet_and_msd_are_read_with_the_endings_of_file_names(note, content, order):
    assert channel_order(note(content), BRATS_MODALITIES) == tuple(order.split())


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_vocabulary_of_2023_and_a_byte_order_mark_are_understood(note, mark):
    path = note(mark + json.dumps(MSD).encode())
    assert channel_order(path, ("t1n", "t1c", "t2w", "t2f")) == ("t2f", "t1n", "t1c", "t2w")


@pytest.mark.parametrize("content", [{}, {"name": "BRATS"}, {"modality": {}}, []])
def test_a_file_that_tells_no_channels_counts_as_none(note, content):
    assert channel_order(note(content), BRATS_MODALITIES) is None


def test_no_file_is_no_order_and_other_folders_are_not_searched(note, tmp_path):
    assert channel_order(tmp_path / "a.nii", BRATS_MODALITIES) is None
    assert channel_order(note(MSD, "patients"), BRATS_MODALITIES) is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"modality": {"0": "FLAIR", "1": "ADC"}}, "names a channel 'ADC', expected one of"),
        ({"modality": {"0": "MRI"}}, "names a channel 'MRI'"),
        ({"modality": {"0": "seg", "1": "T1"}}, "names a channel 'seg'"),
        ({"modality": {"0": "T1", "1": "T1w"}}, "names t1 twice: T1, T1w"),
        ({"modality": {"1": "T1", "2": "T2"}}, "numbered from 0, got"),
        ({"modality": {"0": 7}}, "numbered from 0, got"),
        ({"channel_names": "T1"}, "numbered from 0, got"),
        ({"channel_names": [["T1"]]}, "numbered from 0, got"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (" " * (2**24 + 1), "expected at most 16777216 bytes"),
        ({"modality": {"0": "T1", "00": "T2"}}, "each number once"),
        ('{"modality": {"0": "T1", "0": "T2"}}', "a channel is there twice: 0, 0"),
        ({"channel_names": ["T1"] * 65}, "at most 64 of them"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_with_the_way_out(note, content, text):
    with pytest.raises(CaseError, match=text) as error:
        channel_order(note(content), BRATS_MODALITIES)
    assert "dataset.json" in str(error.value)
    assert "channel_order" in str(error.value)
    assert len(str(error.value)) < 600


def test_a_given_order_may_be_short_and_leave_volumes_out():
    assert check_order(["t2", None, "t1"], BRATS_MODALITIES, "x") == ("t2", None, "t1")
    assert check_order(("flair", ""), BRATS_MODALITIES, "x") == ("flair", None)


@pytest.mark.parametrize(
    ("order", "text"),
    [
        ("t1,t2", "must be a list of modalities"),
        ({"0": "t1"}, "must be a list of modalities"),
        ([0, 1], "must be a list of modalities"),
        ([], "must be a list of modalities"),
        (["t1"] * 65, "must be a list of modalities"),
        (["t1", "pet"], "unknown modality 'pet'"),
        (["t1", "t1"], "each of them once"),
        ([None], "at least one modality"),
    ],
)
def test_a_given_order_is_checked(order, text):
    with pytest.raises(ValueError, match=rf"x: .*{text}|x: {text}"):
        check_order(order, BRATS_MODALITIES, "x")


def test_an_unknown_order_says_what_to_give():
    said = str(unknown_order("a/b.nii.gz", 3, ("t1", "flair"), "B"))
    assert said.startswith("case B: b.nii.gz holds 3 volumes, and nothing says which modality each")
    assert 'such as ["t1", "flair"]' in said
    assert '{"channel_names": {"0": "t1", "1": "flair"}}' in said
