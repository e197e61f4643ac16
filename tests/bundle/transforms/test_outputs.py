from __future__ import annotations

import os

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImage

from bundle.data.filenames import file_endings, split_name
from bundle.transforms.outputs import case_file_name, check_outputs, safe_name
from bundle.transforms.save import in_place_writer

NAMES = ("t1", "t1ce", "t2")
ORDINARY = ("p0", "BraTS.01", "scan_1998.09.19", "sub-01_ses-02", "Müller 3 (2)", "0", "p01.nii")
# Name and what becomes of it.
UNSAFE = {
    "sitea/p01": "sitea_p01",
    "a\\b": "a_b",
    "../../etc/passwd": "___.._etc_passwd",
    "..": "__",
    ".hidden": "_hidden",
    "a\nb\x00c\u202ed": "a_b_c_d",
    'p:1*?"<>|': "p_1______",
    "": "_",
    "con": "con_",
    "LPT1.x": "LPT1_.x",
}


def write(case, folder, **meta):
    volume = MetaTensor(torch.ones(1, 2, 2, 2), meta={"case": case, **meta})
    ending = "rebuilt" if meta else "pred"
    SaveImage(
        output_dir=folder,
        output_postfix=ending,
        separate_folder=False,
        resample=False,
        print_log=False,
        writer=in_place_writer(ending),
        output_name_formatter=case_file_name,
    )(volume)


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_stay(name):
    assert safe_name(name) == name


@pytest.mark.parametrize("name", UNSAFE)
def test_a_name_never_leaves_the_folder_and_holds_nothing_reserved(name):
    assert safe_name(name) == UNSAFE[name]


def test_long_names_are_cut_and_stay_apart():
    first, second = "ä" * 500 + "1", "ä" * 500 + "2"
    for name in (first, second):
        assert len(safe_name(name).encode()) <= 120
    assert safe_name(first) != safe_name(second)
    assert safe_name("a" * 120) == "a" * 120


@pytest.mark.parametrize("case", [*ORDINARY, *UNSAFE, "x" * 400])
def test_the_files_that_are_checked_are_the_files_that_are_written(case, tmp_path):
    folder = tmp_path / "out"
    write(case, folder)
    write(case, folder, modality="t1")
    written = sorted(os.listdir(folder))
    assert written == [f"{safe_name(case)}_pred.nii.gz", f"{safe_name(case)}_t1_rebuilt.nii.gz"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    for name in written:
        assert split_name(name, file_endings(NAMES))[1] not in (*NAMES, "label")
    item = {"case": case, "image": {"t2": "x.nii"}}
    with pytest.raises(FileExistsError, match=r"out: .*_pred\.nii\.gz is already there"):
        check_outputs(folder, [item], NAMES)
    with pytest.raises(FileExistsError, match=r"_pred.*_t1_rebuilt\.nii\.gz \(2 files\) are"):
        check_outputs(folder, [item], NAMES, rebuilt=True)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("site/p01", "site_p01"),
        ("p01", "P01"),
        ("a:1", "a*1"),
        ("Ma\u0308rz", "M\u00e4rz"),
        ("STRASSE", "straße"),
        ("x" * 300, "x" * 300),
    ],
)
def test_two_cases_for_one_file_are_refused_and_both_named(first, second, tmp_path):
    items = [{"case": case, "image": {"t1": "a.nii"}} for case in ("other", first, second)]
    with pytest.raises(ValueError, match="would both be written into") as refused:
        check_outputs(tmp_path, items, NAMES, overwrite=True)
    assert repr(first) in str(refused.value)
    assert repr(second) in str(refused.value)


def test_cases_of_two_folders_with_one_base_name_are_apart(tmp_path):
    items = [{"case": f"{site}/p01", "image": {"t1": "a.nii"}} for site in ("sitea", "siteb")]
    check_outputs(tmp_path / "not there yet", items, NAMES, True, True, True)
    for item in items:
        write(item["case"], tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["sitea_p01_pred.nii.gz", "siteb_p01_pred.nii.gz"]


def test_a_rebuilt_modality_and_another_case_do_not_share_a_file(tmp_path):
    items = [{"case": "p_t1", "image": {}}, {"case": "p", "image": {}}]
    check_outputs(tmp_path, items, ("t1", "t2"), rebuilt=True)
    with pytest.raises(ValueError, match=r"'p_t1' and 'p' .* p_t1_t2_rebuilt"):
        check_outputs(tmp_path, items, ("t2", "t1_t2"), rebuilt=True)


@pytest.mark.parametrize(
    ("there", "asked"),
    [
        ("a_pred.nii.gz", {}),
        ("b_pred.nii.gz", {}),
        ("a_probabilities.nii.gz", {"probabilities": True}),
        ("b_t2_rebuilt.nii.gz", {"rebuilt": True}),
        ("a_uncertainty.nii.gz", {"uncertainty": True}),
    ],
)
def test_what_is_there_is_refused_unless_it_may_be_replaced(there, asked, tmp_path):
    items = [{"case": case, "image": {"t1": "x.nii", "t1ce": "y.nii"}} for case in "ab"]
    (tmp_path / "a_t1_rebuilt.nii.gz").touch()  # of a scan that is there by now
    check_outputs(tmp_path, items, NAMES, True, True, True)
    (tmp_path / there).write_bytes(b"an expert's")
    with pytest.raises(FileExistsError) as refused:
        check_outputs(tmp_path, items, NAMES, **asked)
    assert f"{tmp_path}: {there} is already there" in str(refused.value)
    assert "--output_dir, or --overwrite true" in str(refused.value)
    if asked:
        check_outputs(tmp_path, items, NAMES)
    check_outputs(tmp_path, items, NAMES, **asked, overwrite=True)


def test_many_files_are_counted_and_the_first_named(tmp_path):
    items = [{"case": f"p{i}", "image": "single.nii.gz"} for i in range(9)]
    for i in range(1, 9):
        (tmp_path / f"p{i}_pred.nii.gz").touch()
    with pytest.raises(FileExistsError) as refused:
        check_outputs(tmp_path, items, NAMES)
    names = "p1_pred.nii.gz, p2_pred.nii.gz, p3_pred.nii.gz, ... (8 files) are already there"
    assert names in str(refused.value)
    (tmp_path / "p0_t1ce_rebuilt.nii.gz").symlink_to(tmp_path / "gone")
    with pytest.raises(FileExistsError, match=r"9 files"):
        check_outputs(tmp_path, items, NAMES, rebuilt=True)


@pytest.mark.parametrize("as_file", [False, True])
def test_a_run_never_writes_over_what_it_reads(as_file, tmp_path):
    path = tmp_path / "a_pred.nii.gz"
    path.write_bytes(b"a scan")
    (tmp_path / "link.nii.gz").symlink_to(path)
    source = str(tmp_path / "link.nii.gz")
    item = {"case": "a", "image": source if as_file else {"t1": source}}
    with pytest.raises(FileExistsError, match=r"a_pred\.nii\.gz is read by this run"):
        check_outputs(tmp_path, [item], NAMES, overwrite=True)


def test_a_layout_without_ending_is_checked_alike(tmp_path):
    case, layout = "BraTS-GLI-00000-000", "brats2026"
    scan = tmp_path / f"{case}.nii.gz"
    items = [{"case": case, "image": str(scan)}]
    check_outputs(tmp_path, items, NAMES, True, True, True, layout=layout)
    twice = [*items, {"case": case.lower(), "image": {}}]
    with pytest.raises(ValueError, match=rf"would both be written into {case.lower()}\.nii\.gz"):
        check_outputs(tmp_path, twice, NAMES, layout=layout)
    mixed = [*items, {"case": f"{case}_probabilities", "image": {}}]
    check_outputs(tmp_path, mixed, NAMES, layout=layout)
    with pytest.raises(ValueError, match=rf"written into {case}_probabilities\.nii\.gz"):
        check_outputs(tmp_path, mixed, NAMES, probabilities=True, layout=layout)
    with pytest.raises(ValueError, match=r"'p_t1' would be called .* reads as a file of t1"):
        check_outputs(tmp_path, [{"case": "p_t1", "image": {}}], NAMES, layout=layout)
    scan.write_bytes(b"an input")
    with pytest.raises(FileExistsError, match=rf"{case}\.nii\.gz is already there"):
        check_outputs(tmp_path, items, NAMES, layout=layout)
    with pytest.raises(FileExistsError, match=rf"{case}\.nii\.gz is read by this run"):
        check_outputs(tmp_path, items, NAMES, overwrite=True, layout=layout)
    check_outputs(tmp_path, items, NAMES)
