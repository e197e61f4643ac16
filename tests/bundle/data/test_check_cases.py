"""Where the rules of `bundle.data.plausibility` speak up: the check, its memo, a scan."""

from __future__ import annotations

import json
import logging
import shutil

import nibabel as nib
import numpy as np
import pytest

from bundle.__main__ import main
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
    assert set(outcome) == {"blank", "numbers", "hashes", "profiles", "arrangements"}


@pytest.mark.parametrize("on_bad", ["raise", "drop"])
def test_the_same_scan_in_two_sections_is_refused_also_from_the_memo(
    tmp_path, write_list, write_phantom_case, on_bad
):
    path = write_list(
        training=[write_phantom_case("a"), write_phantom_case("b", 1)],
        validation=[write_phantom_case("c", spacing_mm=2.5)],
    )
    for _ in range(2):
        with pytest.raises(
            ValueError,
            match=r"1 problem\n  case c: validation, as case a in training: a scan is that of a "
            r"case in another section.*Keep one of the cases, or both in one section",
        ):
            read(path, on_bad=on_bad, memo=tmp_path / "memo.json")
    assert read(path, sections=["validation"]).flagged == {}


def test_one_shared_scan_of_several_is_enough_where_voxels_are_read(write_list, write_phantom_case):
    first, second = write_phantom_case("a"), write_phantom_case("b", 1)
    # A copy, for one file in two sections is refused by its path alone.
    path = write_list(training=[first], testing=[second])
    folder = path.parent
    shutil.copy(folder / first["image"]["t2"], folder / second["image"]["flair"])
    with pytest.raises(ValueError, match="equal volumes 1, expected at most"):
        read(path)
    assert read(path, check="headers").flagged == {}


def test_the_same_scan_twice_in_a_section_is_used_with_a_warning(
    write_list, write_phantom_case, caplog
):
    path = write_list(training=[write_phantom_case("a"), write_phantom_case("b")])
    assert read(path).flagged == {"same_scan": 1}
    assert "case b: training, as case a in training: a scan is that of another case" in caplog.text


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
    assert "warning: case c: training, as case b in training: a scan is that of another" in shown
    lines = dict(line.split() for line in shown.splitlines() if len(line.split()) == 2)
    assert lines["agent_in_rim"] == "1"
    assert lines["same_scan"] == "1"


def test_the_memo_depends_on_the_regions(tmp_path):
    checks = [Checks(("t1",), (1,), {}, "voxels", regions) for regions in ({"WT": (1,)}, {})]
    (tmp_path / "a.nii").touch()
    item = {"case": "a", "image": {"t1": str(tmp_path / "a.nii")}}
    first, other = (CheckMemo(None, check).key(item) for check in checks)
    assert first != other


@pytest.fixture
def unstripped(tmp_path, write_phantom_case):
    """A case whose t2 has a background of 1; its folder."""
    entry = write_phantom_case("a")
    path = tmp_path / entry["image"]["t2"]
    image = nib.load(path)
    voxels = np.asanyarray(image.dataobj) + 1
    nib.save(nib.Nifti1Image(voxels.astype(np.int16), image.affine), path)
    return path.parent


def test_a_scan_counts_what_cannot_be_right_as_a_problem_and_keeps_the_case(
    tmp_path, unstripped, capsys
):
    (problem,) = scan(unstripped, tmp_path / "list.json")
    assert problem.startswith("case a: t2: hardly any voxel is 0 (background: share of 0 0,")
    shown = capsys.readouterr().out
    assert f"1 problem\n  {problem}\nthe cases that look odd, or share a scan, stay" in shown
    assert f"warning: {problem}" not in shown
    assert len(json.loads((tmp_path / "list.json").read_text())["training"]) == 1
    assert main(["scan", str(unstripped)]) == 0
    with pytest.raises(SystemExit, match="1"):
        main(["scan", str(unstripped), "--strict"])


def test_a_scan_names_a_leak_between_the_sections_that_it_writes(tmp_path, write_phantom_case):
    write_phantom_case("a")
    entry = write_phantom_case("b")
    (tmp_path / entry["label"]).unlink()  # so that it goes to testing
    (problem,) = scan(tmp_path)
    assert problem.startswith("case b: testing, as case a in training: a scan is that of a case in")


def test_inference_refuses_what_cannot_be_right_only_if_strict(unstripped, caplog):
    (item,) = inference_cases(unstripped, BRATS_MODALITIES)
    assert item["checked"] is True
    assert "case a: t2: hardly any voxel is 0" in caplog.text
    with pytest.raises(ValueError, match="case a: t2: hardly any voxel is 0"):
        inference_cases(unstripped, BRATS_MODALITIES, strict=True)


def test_strict_inference_leaves_out_one_case_and_keeps_the_others(
    tmp_path, unstripped, write_phantom_case, caplog
):
    write_phantom_case("b", 1, swap=SWAPPED)
    items = inference_cases(tmp_path, BRATS_MODALITIES, strict=True)
    assert [item["case"] for item in items] == ["b"]
    assert "left out: case a: t2: hardly any voxel is 0" in caplog.text
    assert "case b: t1 and t1ce seem to be swapped" in caplog.text


@pytest.fixture(autouse=True)
def all_warnings(caplog):
    caplog.set_level(logging.WARNING)
