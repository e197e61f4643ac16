"""Where the rules of `bundle.data.plausibility` speak up: the check, its memo, a scan."""

from __future__ import annotations

import json
import logging

import pytest

from bundle.data.case_rules import check_case
from bundle.data.check_cases import CheckMemo, Checks
from bundle.data.datalist import inference_cases, read_datalist
from bundle.data.scan import scan
from bundle.modalities import BRATS_MODALITIES
from bundle.regions import BRATS_REGIONS

SWAPPED = {"t1": "t1ce", "t1ce": "t1"}


@pytest.fixture
def write_list(tmp_path):
    """Give write(**sections): the path of a datalist in the temporary folder."""

    def write(**sections):
        path = tmp_path / "datalist.json"
        path.write_text(json.dumps(sections))
        return path

    return write


def read(path, **more):
    return read_datalist(path, BRATS_MODALITIES, BRATS_REGIONS, **more)


def test_a_clean_datalist_warns_of_nothing(write_list, write_phantom_case, caplog):
    path = write_list(training=[write_phantom_case("a")], testing=[write_phantom_case("b", 1)])
    datalist = read(path)
    assert [item["case"] for item in datalist["training"]] == ["a"]
    assert datalist.flagged == {}
    assert caplog.text == ""


def test_a_swapped_case_is_used_with_a_warning_that_has_the_number(
    write_list, write_phantom_case, caplog
):
    path = write_list(training=[write_phantom_case("a", swap=SWAPPED), write_phantom_case("b", 1)])
    datalist = read(path)
    assert len(datalist["training"]) == 2
    (line,) = [r.getMessage() for r in caplog.records if "agent_in_rim" in r.getMessage()]
    assert line.startswith("case a: t1 and t1ce seem to be swapped: the enhancing tumour is darker")
    assert "expected at least -0.1). Swap the two files." in line
    assert datalist.flagged["agent_in_rim"] == 1


def test_a_remembered_case_is_warned_of_again_without_being_read(
    tmp_path, write_list, write_phantom_case, caplog, file_reads
):
    path = write_list(training=[write_phantom_case("a", swap=SWAPPED), write_phantom_case("b", 0)])
    memo = tmp_path / "memo.json"
    first = read(path, memo=memo)
    warned = [record.getMessage() for record in caplog.records]
    assert any("agent_in_rim" in line for line in warned)
    assert any("same_scan" in line for line in warned)
    caplog.clear()
    with file_reads() as reads:
        again = read(path, memo=memo)
    assert reads.opened == {}
    assert [record.getMessage() for record in caplog.records] == warned
    assert (again, again.flagged) == (first, first.flagged)


def test_what_an_earlier_version_remembered_is_not_believed(
    tmp_path, write_list, write_phantom_case
):
    path = write_list(training=[write_phantom_case("a", swap=SWAPPED)])
    memo = tmp_path / "memo.json"
    read(path, memo=memo)
    kept = json.loads(memo.read_text())
    memo.write_text(json.dumps({key: [] for key in kept}))
    assert read(path, memo=memo).flagged["agent_in_rim"] == 1


def test_a_memo_holds_numbers_and_no_names(tmp_path, write_list, write_phantom_case):
    path = write_list(training=[write_phantom_case("patient")])
    read(path, memo=tmp_path / "memo.json")
    text = (tmp_path / "memo.json").read_text()
    assert "patient" not in text
    (outcome,) = json.loads(text).values()
    assert set(outcome) == {"blank", "numbers", "hashes"}


def test_the_same_patient_in_two_sections_is_told(write_list, write_phantom_case, caplog):
    path = write_list(
        training=[write_phantom_case("a"), write_phantom_case("b", 1)],
        testing=[write_phantom_case("c", spacing_mm=2.5)],
    )
    assert read(path).flagged == {"same_scan": 1}
    assert (
        caplog.records[0]
        .getMessage()
        .startswith("case c: testing, as case a in training: a scan is that of another case")
    )


def test_headers_alone_tell_the_voxel_size(write_list, write_phantom_case, caplog):
    path = write_list(training=[write_phantom_case("a", swap=SWAPPED, spacing_mm=20.0)])
    assert read(path, check="headers").flagged == {"voxel_large": 1}
    assert "shortest edge in mm 20, expected at most 3" in caplog.text
    assert read(path, check="none").flagged == {}


def test_inference_warns_too_though_it_has_no_label(write_list, write_phantom_case, caplog):
    path = write_list(testing=[write_phantom_case("a", swap={"t2": "flair", "flair": "t2"})])
    assert [item["case"] for item in inference_cases(path, BRATS_MODALITIES)] == ["a"]
    assert "case a: t2 and flair seem to be swapped" in caplog.text


def test_a_case_is_still_read_file_by_file_and_once(tmp_path, write_phantom_case, file_reads):
    entry = write_phantom_case("a")
    image = {name: str(tmp_path / file) for name, file in entry["image"].items()}
    item = {"case": "a", "image": image, "label": str(tmp_path / entry["label"])}
    with file_reads() as reads:
        finding = check_case(item, BRATS_MODALITIES, [1, 2, 4], regions=BRATS_REGIONS)
    assert set(reads.opened.values()) == {1}
    assert len(reads.opened) == 5
    assert finding.warnings == []
    assert finding.measured.numbers["ml WT"] > 0


def test_a_scan_prints_the_warning_and_the_count_by_rule(tmp_path, write_phantom_case, capsys):
    write_phantom_case("a", swap=SWAPPED)
    write_phantom_case("b", 1)
    write_phantom_case("c", 1)
    assert scan(tmp_path) == []
    shown = capsys.readouterr().out
    assert "warning: case a: t1 and t1ce seem to be swapped" in shown
    assert "warning: case c: folder, as case b in folder: a scan is that of another" in shown
    lines = dict(line.split() for line in shown.splitlines() if len(line.split()) == 2)
    assert lines["agent_in_rim"] == "1"
    assert lines["same_scan"] == "1"


def test_the_memo_depends_on_the_regions(tmp_path):
    checks = [Checks(("t1",), (1,), {}, "voxels", regions) for regions in ({"WT": (1,)}, {})]
    (tmp_path / "a.nii").touch()
    item = {"case": "a", "image": {"t1": str(tmp_path / "a.nii")}}
    first, other = (CheckMemo(None, check).key(item) for check in checks)
    assert first != other


@pytest.fixture(autouse=True)
def all_warnings(caplog):
    caplog.set_level(logging.WARNING)
