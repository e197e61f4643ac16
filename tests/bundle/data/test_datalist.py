from __future__ import annotations

import json
import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import PersistentDataset

from bundle.data import check_cases as checks
from bundle.data.datalist import (
    hash_case,
    inference_cases,
    load_datalist,
    read_datalist,
    write_datalist,
)

MODALITIES = ("t1", "flair")
REGIONS = {"WT": (1, 2), "TC": (1,)}


def save(path: Path, voxels: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


def make_entry(folder: Path, case: str) -> dict:
    rng = np.random.default_rng(0)
    for name in MODALITIES:
        save(folder / f"{case}_{name}.nii", rng.random((10, 20, 30)).astype(np.float32))
    save(folder / f"{case}_seg.nii", rng.integers(0, 3, (10, 20, 30)).astype(np.uint8))
    image = {name: f"{case}_{name}.nii" for name in MODALITIES}
    return {"case": case, "image": image, "label": f"{case}_seg.nii"}


def write(folder: Path, **sections) -> Path:
    path = folder / "datalist.json"
    path.write_text(json.dumps(sections))
    return path


def test_paths_become_absolute_and_modalities_ordered(tmp_path):
    entry = make_entry(tmp_path, "a")
    entry["image"] = dict(reversed(entry["image"].items()))
    sections = read_datalist(write(tmp_path, training=[entry]), MODALITIES, REGIONS)
    assert list(sections) == ["training", "validation", "testing"]
    assert sections["validation"] == []
    (item,) = sections["training"]
    assert item["image"] == {m: str(tmp_path / f"a_{m}.nii") for m in MODALITIES}
    assert item["label"] == str(tmp_path / "a_seg.nii")


def test_null_and_missing_modalities_are_absent(tmp_path):
    entry = make_entry(tmp_path, "a")
    entry["image"]["t1"] = None
    sections = read_datalist(write(tmp_path, testing=[entry]), MODALITIES, REGIONS, check="none")
    assert list(sections["testing"][0]["image"]) == ["flair"]


def test_blank_volumes_are_left_out_unless_unread(tmp_path):
    path = write(tmp_path, training=[make_entry(tmp_path, "a")])
    save(tmp_path / "a_t1.nii", np.zeros((10, 20, 30), np.float32))
    assert list(read_datalist(path, MODALITIES, REGIONS)["training"][0]["image"]) == ["flair"]
    by_header = read_datalist(path, MODALITIES, REGIONS, check="headers")
    assert list(by_header["training"][0]["image"]) == ["t1", "flair"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "expected an object"),
        ("{}", "no case in it"),
        ('{"training": 7}', "'training' must be a list of cases, got 7"),
        ('{"training": [{"image": {}}]}', r"training\[0\]: expected an object with a 'case'"),
        ('{"training": [{"case": "a", "image": "a.nii"}]}', "'image' must map modalities to files"),
        ('{"training": [{"case": "a", "image": {"t1": null}}]}', "case a: no modality is named"),
        ('{"training": [{"case": "a", "image": {"t7": "x"}}]}', "case a: unknown modality 't7'"),
    ],
)
def test_a_malformed_datalist_says_where(tmp_path, content, message):
    path = tmp_path / "datalist.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_datalist(path, MODALITIES)


def test_a_case_twice_in_a_section_is_refused(tmp_path):
    entry = {"case": "a", "image": {"t1": "x"}}
    with pytest.raises(ValueError, match="case a: 2 times in 'testing'"):
        load_datalist(write(tmp_path, testing=[entry, entry]), MODALITIES)


def test_a_patient_in_two_sections_is_refused(tmp_path):
    entries = [make_entry(tmp_path, f"BraTS-GLI-00005-00{i}") for i in range(2)]
    path = write(tmp_path, training=entries[:1], validation=entries[1:])
    with pytest.raises(ValueError, match="patient BraTS-GLI-00005 is in training and validation"):
        read_datalist(path, MODALITIES, REGIONS)


def test_every_bad_case_is_told_in_one_error(tmp_path):
    entries = [make_entry(tmp_path, case) for case in "abc"]
    del entries[0]["label"]
    (tmp_path / "b_t1.nii").unlink()
    path = write(tmp_path, training=entries)
    with pytest.raises(ValueError, match="2 problems") as error:
        read_datalist(path, MODALITIES, REGIONS)
    assert "case a: no label, but it is in 'training'" in str(error.value)
    assert "case b: file " in str(error.value)
    kept = read_datalist(path, MODALITIES, REGIONS, on_bad="drop")
    assert [item["case"] for item in kept["training"]] == ["c"]


def test_dropping_every_case_is_an_error(tmp_path):
    entry = make_entry(tmp_path, "a") | {"label": None}
    with pytest.raises(ValueError, match="case a: no label"):
        read_datalist(write(tmp_path, training=[entry]), MODALITIES, REGIONS, on_bad="drop")


def test_check_none_still_misses_missing_files(tmp_path):
    path = write(tmp_path, testing=[{"case": "a", "image": {"t1": "nowhere.nii"}}])
    with pytest.raises(ValueError, match=r"case a: file .*nowhere\.nii does not exist"):
        read_datalist(path, MODALITIES, REGIONS, check="none")


def count_checks(monkeypatch) -> list[str]:
    checked: list[str] = []
    original = checks.check_case

    def counting(item, *rest):
        checked.append(item["case"])
        return original(item, *rest)

    monkeypatch.setattr(checks, "check_case", counting)
    return checked


def test_the_memo_spares_a_second_look_and_keeps_its_outcome(tmp_path, monkeypatch):
    checked = count_checks(monkeypatch)
    path = write(tmp_path, training=[make_entry(tmp_path, "a"), make_entry(tmp_path, "b")])
    save(tmp_path / "a_t1.nii", np.zeros((10, 20, 30), np.float32))
    memo = tmp_path / "memo.json"
    first = read_datalist(path, MODALITIES, REGIONS, memo=memo)
    assert sorted(checked) == ["a", "b"]
    assert read_datalist(path, MODALITIES, REGIONS, memo=memo) == first
    assert len(checked) == 2
    os.utime(tmp_path / "b_t1.nii", ns=(1, 1))
    read_datalist(path, MODALITIES, REGIONS, memo=memo)
    assert checked[2:] == ["b"]
    read_datalist(path, MODALITIES, REGIONS, aliases={3: 2}, memo=memo)
    assert len(checked) == 5


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 7}'])
def test_a_damaged_memo_counts_as_empty(tmp_path, content):
    memo = tmp_path / "memo.json"
    memo.write_text(content)
    path = write(tmp_path, training=[make_entry(tmp_path, "a")])
    assert read_datalist(path, MODALITIES, REGIONS, memo=memo)["training"]
    assert len(json.loads(memo.read_text())) == 1


def test_writing_and_reading_back_changes_nothing(tmp_path):
    path = write(tmp_path, training=[make_entry(tmp_path, "a") | {"patient": "p"}], note=[1])
    datalist = load_datalist(path, MODALITIES)
    copy = tmp_path / "sub" / "copy.json"
    write_datalist(datalist, copy)
    assert load_datalist(copy, MODALITIES) == datalist
    assert json.loads(copy.read_text())["training"][0]["image"]["t1"] == "../a_t1.nii"
    before = copy.read_bytes()
    write_datalist(datalist, copy)
    assert copy.read_bytes() == before
    assert [p.name for p in copy.parent.iterdir()] == ["copy.json"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"image": {"t1": 7}}, "case a: 't1' must be the path of a file, got 7"),
        ({"label": ["seg.nii"]}, "case a: 'label' must be the path of a file, got"),
    ],
)
def test_what_is_no_path_is_refused_by_case_and_key(tmp_path, change, text):
    path = write(tmp_path, testing=[make_entry(tmp_path, "a") | change])
    with pytest.raises(ValueError, match=text):
        load_datalist(path, MODALITIES)


def test_inference_takes_datalist_folder_or_file(tmp_path):
    entry = make_entry(tmp_path, "a")
    path = write(tmp_path, testing=[entry])
    (from_list,) = inference_cases(path, MODALITIES)
    (from_folder,) = inference_cases(tmp_path, MODALITIES)
    assert from_list == from_folder
    volume = tmp_path / "a_flair.nii"
    assert inference_cases(volume, MODALITIES) == [{"case": "a", "image": str(volume)}]
    with pytest.raises(ValueError, match="no case under 'validation'"):
        inference_cases(path, MODALITIES, "validation")
    with pytest.raises(FileNotFoundError, match=r"does not exist\. Expected a datalist"):
        inference_cases(tmp_path / "nowhere", MODALITIES)


def test_the_hash_follows_the_files(tmp_path):
    path = write(tmp_path, training=[make_entry(tmp_path, "a")])
    (item,) = load_datalist(path, MODALITIES)["training"]
    before = hash_case(item)
    assert isinstance(before, bytes)
    assert hash_case(dict(reversed(item.items()))) == before
    os.utime(tmp_path / "a_seg.nii", ns=(1, 1))
    assert hash_case(item) != before


def test_a_rewritten_file_never_meets_its_old_cache(tmp_path):
    path = write(tmp_path, training=[make_entry(tmp_path, "a")])
    items = load_datalist(path, MODALITIES)["training"]

    def mean(item: dict) -> float:
        return float(nib.load(item["image"]["t1"]).get_fdata().mean())

    data = PersistentDataset(items, mean, tmp_path / "cache", hash_func=hash_case)
    assert data[0] == pytest.approx(0.5, abs=0.05)
    save(tmp_path / "a_t1.nii", np.full((10, 20, 30), 7, np.float32))
    os.utime(tmp_path / "a_t1.nii", ns=(1, 1))
    assert data[0] == 7


def test_a_check_opens_every_file_once_and_a_remembered_case_never(tmp_path, file_reads):
    path = write(tmp_path, training=[make_entry(tmp_path, "a"), make_entry(tmp_path, "b")])
    files = [f"{case}_{what}.nii" for case in "ab" for what in (*MODALITIES, "seg")]
    with file_reads() as reads:
        read_datalist(path, MODALITIES, REGIONS, memo=tmp_path / "memo.json")
    assert reads.opened == dict.fromkeys(files, 1)
    with file_reads() as reads:
        read_datalist(path, MODALITIES, REGIONS, memo=tmp_path / "memo.json")
    assert not reads.opened


def test_a_blank_volume_is_logged_also_from_the_memo(tmp_path, caplog):
    path = write(tmp_path, training=[make_entry(tmp_path, "a")])
    save(tmp_path / "a_t1.nii", np.zeros((10, 20, 30), np.float32))
    for _ in range(2):
        caplog.clear()
        read_datalist(path, MODALITIES, REGIONS, memo=tmp_path / "memo.json")
        assert "a_t1.nii is constant everywhere, so 't1' counts as absent" in caplog.text


@pytest.mark.parametrize(
    ("given", "name"), [(0, "0"), (7, "7"), ("0", "0"), ("site1/p01", "site1/p01")]
)
def test_a_whole_number_is_a_name(tmp_path, given, name):
    path = write(tmp_path, testing=[{"case": given, "image": {"t1": "a.nii"}}])
    assert load_datalist(path, MODALITIES)["testing"][0]["case"] == name


@pytest.mark.parametrize("given", [False, True, "", "  ", None, 1.5, [], ["a"], {}])
def test_other_values_are_no_names(tmp_path, given):
    path = write(tmp_path, testing=[{"case": given, "image": {"t1": "a.nii"}}])
    with pytest.raises(ValueError, match=r"testing\[0\]: expected an object with a 'case', a text"):
        load_datalist(path, MODALITIES)
    path = write(tmp_path, testing=[{"case": "a", "patient": given, "image": {"t1": "a.nii"}}])
    if given is not None:
        with pytest.raises(ValueError, match="case a: 'patient' must be a name"):
            load_datalist(path, MODALITIES)


@pytest.mark.parametrize(
    "case",
    *[
        [
            "..",
            ".",
            "../p01",
            "a/../../b",
            "a\\..\\b",
            "/p01",
            "p01/",
            "C:\\p01",
            "a\nb",
            "a\u202eb",
        ]
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, case):
    path = write(tmp_path, testing=[{"case": case, "image": {"t1": "a.nii"}}])
    with pytest.raises(ValueError, match=r"testing\[0\]: expected a case's name of at most 200"):
        load_datalist(path, MODALITIES)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_the_encodings_of_windows_are_read(tmp_path, encoding):
    path = tmp_path / "d.json"
    path.write_bytes('{"testing": [{"case": "ä", "image": {"t1": "a.nii"}}]}'.encode(encoding))
    assert load_datalist(path, MODALITIES)["testing"][0]["case"] == "ä"


def test_another_encoding_is_refused_with_the_file(tmp_path):
    path = tmp_path / "d.json"
    path.write_bytes('{"testing": [{"case": "ä"}]}'.encode("cp1252"))
    with pytest.raises(ValueError, match=r"d\.json: not a JSON file, .* Save it as UTF-8"):
        load_datalist(path, MODALITIES)


def one(case: str, *files: str, label: str = "") -> dict:
    image = dict(zip(MODALITIES, files, strict=False))
    return {"case": case, "image": image} | ({"label": label} if label else {})


@pytest.mark.parametrize(
    ("sections", "messages"),
    [
        ({"testing": [one("p", "a.nii", "a.nii")]}, ["case p: t1 and flair are one file"]),
        ({"testing": [one("p", "a.nii", "x/../a.nii")]}, ["case p: t1 and flair are one file"]),
        ({"training": [one("p", "a.nii", label="a.nii")]}, ["case p: t1 and label are one file"]),
        ({"testing": [one("p", "a.nii"), one("q", "link.nii")]}, ["cases p and q share the file"]),
        (
            {"training": [one("p", "a.nii", "b.nii")], "testing": [one("q", "b.nii", "a.nii")]},
            ["cases p in 'training' and q in 'testing' share 2 files, such as"],
        ),
        (
            {"training": [one("p", "a.nii", label="s.nii")], "testing": [one("q", "s.nii")]},
            ["cases p in 'training' and q in 'testing' share the file", "Scores would be too good"],
        ),
        (
            {s: [one(s, "a.nii")] for s in ("training", "validation", "testing")},
            ["training in 'training' and validation in", "training in 'training' and testing in"],
        ),
    ],
)
def test_one_file_stands_for_one_thing(tmp_path, sections, messages):
    (tmp_path / "link.nii").symlink_to("a.nii")
    path = write(tmp_path, **sections)
    for read in (load_datalist, inference_cases):
        with pytest.raises(ValueError, match=r"datalist\.json: [12] problem") as error:
            read(path, MODALITIES)
        assert all(message in str(error.value) for message in messages)


def test_a_case_of_another_time_is_a_leak(tmp_path):
    entries = [make_entry(tmp_path, f"sub-01_ses-0{i}") for i in range(2)]
    path = write(tmp_path, training=entries[:1], testing=entries[1:])
    with pytest.raises(ValueError, match="patient sub-01 is in training and testing"):
        read_datalist(path, MODALITIES, REGIONS, check="none")


def test_dots_name_the_folder_that_they_lead_to(tmp_path, monkeypatch):
    make_entry(tmp_path, "a")
    for name in MODALITIES:
        (tmp_path / f"a_{name}.nii").rename(tmp_path / f"{name}.nii")
    (tmp_path / "a_seg.nii").unlink()
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    (item,) = inference_cases("..", MODALITIES)
    assert item["case"] == tmp_path.name
    (tmp_path / "link").symlink_to(tmp_path / "inner")
    (item,) = inference_cases(tmp_path / "link" / "..", MODALITIES)
    assert item["case"] == tmp_path.name


def test_inference_reads_given_endings_and_warns_of_what_it_does_not(tmp_path, caplog):
    entry = make_entry(tmp_path, "a")
    (tmp_path / "a_flair.nii").rename(tmp_path / "a_dark.nii")
    (item,) = inference_cases(tmp_path, MODALITIES)
    assert list(item["image"]) == ["t1"]
    assert "1 NIfTI file is not understood, such as a_dark.nii" in caplog.text
    (item,) = inference_cases(tmp_path, MODALITIES, suffixes="flair=dark")
    assert list(item["image"]) == list(entry["image"])


def test_inference_takes_the_decathlons_folder_and_drops_what_is_no_4d_file(tmp_path):
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "FLAIR", "1": "T1w"}}')
    images = tmp_path / "imagesTs"
    images.mkdir()
    save(images / "B_1.nii", np.ones((4, 5, 6, 2), np.float32))
    save(images / "B_2.nii", np.ones((4, 5, 6), np.float32))
    assert inference_cases(tmp_path, MODALITIES) == [
        {"case": "B_1", "image": str(images / "B_1.nii")}
    ]
    with pytest.raises(ValueError, match=r"case B_2: expected all channels in .* got one"):
        inference_cases(tmp_path, MODALITIES, on_bad="raise")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("~nobodyxyz/a.nii", "begins with ~ and the name of nobody on this machine"),
        ("a" * 5000 + ".nii", "of at most 4095 bytes and 255 for each name"),
        ("\u4e2d" * 90 + "/a.nii", "of at most 4095 bytes and 255 for each name"),
        ("a/" * 2500 + "a.nii", "of at most 4095 bytes and 255 for each name"),
        ("a\0b.nii", "all of whose characters can be written"),
        ("\ud800.nii", "all of whose characters can be written"),
    ],
    ids=["nobody", "long", "bytes", "deep", "NUL", "half"],
)
def test_a_path_that_no_file_can_have_names_the_case(tmp_path, file, text):
    for key, entry in (
        ("flair", {"case": "p7", "image": {"flair": file}}),
        ("label", {"case": "p7", "image": {"t1": "b.nii"}, "label": file}),
    ):
        with pytest.raises(ValueError, match=rf"case p7, {key}: .*{re.escape(text)}"):
            load_datalist(write(tmp_path, testing=[entry]), MODALITIES)
