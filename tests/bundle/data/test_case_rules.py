from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.data.case_rules import check_case
from bundle.data.volumes import CaseError

SHAPE = (10, 20, 30)
MODALITIES = ("t1", "flair")


BLANK = np.zeros(SHAPE, np.float32)


@pytest.fixture
def item(write_case):
    """A good case A with labels 1, 2 and 4; its files lie in A/."""
    return write_case("A", MODALITIES) | {"site": "s"}


def test_a_quaternion_only_label_passes(item, write_volume):
    affine = np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    for seed, path in enumerate(item["image"].values()):
        write_volume(path, seed, affine)
    label = nib.Nifti1Image(np.ones(SHAPE, np.uint16), affine)
    label.set_sform(None, code=0)
    label.set_qform(affine, code=1)
    nib.save(label, item["label"])
    check_case(item, MODALITIES, [1, 2, 4])


def test_a_good_case_comes_back_as_it_was(item):
    finding = check_case(item, MODALITIES, [1, 2, 4])
    assert finding.usable == item
    assert finding.warnings == []
    assert finding.grid.shape == SHAPE
    assert finding.labels == (2,)


def test_a_blank_volume_counts_as_absent_with_a_warning(item, write_volume):
    write_volume("A/A_t1.nii.gz", BLANK)
    finding = check_case(item, MODALITIES, [1, 2, 4])
    assert list(finding.usable["image"]) == ["flair"]
    assert len(finding.warnings) == 1
    assert item["image"]["t1"] in finding.warnings[0]


def test_headers_alone_do_not_see_a_blank_volume(item, write_volume):
    write_volume("A/A_t1.nii.gz", BLANK)
    finding = check_case(item, MODALITIES, [1], voxels=False)
    assert finding.usable == item
    assert finding.warnings == []
    assert finding.labels is None


def test_a_case_of_blank_volumes_is_refused(item, write_volume):
    for path in item["image"].values():
        write_volume(path, BLANK)
    with pytest.raises(
        CaseError, match="nothing is present, the volumes of t1, flair are constant"
    ):
        check_case(item, MODALITIES, [1, 2, 4])


def test_every_problem_of_a_case_is_told_at_once(item, write_volume):
    write_volume("A/A_t1.nii.gz", np.full(SHAPE, np.nan, np.float32))
    with pytest.raises(CaseError) as error:
        check_case(item, MODALITIES, [1])
    assert len(str(error.value).splitlines()) == 2


def test_a_label_on_another_grid_is_told_beside_a_damaged_volume(item, write_volume):
    Path(item["image"]["t1"]).write_bytes(b"no volume")
    write_volume("A/seg.nii.gz", np.zeros((10, 20, 31), np.uint8))
    with pytest.raises(
        CaseError, match=r"(?s)t1\.nii\.gz cannot be read.*\(10, 20, 31\) voxels in seg"
    ):
        check_case(item, MODALITIES, [1, 2, 4])


def test_every_file_is_opened_and_unpacked_once(item, file_reads):
    with file_reads() as reads:
        check_case(item, MODALITIES, [1, 2, 4])
    assert reads.opened == {"A_t1.nii.gz": 1, "A_flair.nii.gz": 1, "seg.nii.gz": 1}
    assert reads.unpacked == 3


@pytest.mark.parametrize("voxels", [True, False])
def test_qform_and_sform_apart_are_told_once_a_file_and_refused_if_strict(item, voxels):
    for path, shift_mm in ((item["image"]["t1"], 20), (item["label"], 3)):
        image = nib.load(path)
        image = nib.Nifti1Image(np.asanyarray(image.dataobj), np.eye(4))
        moved = np.eye(4)
        moved[1, 3] = shift_mm
        image.set_qform(moved, 1)
        image.set_sform(np.eye(4), 2)
        nib.save(image, path)
    finding = check_case(item, MODALITIES, [1, 2, 4], voxels=voxels)
    text = "qform and sform of the header put it in two places; the sform is used (two_forms: "
    assert [line.split("apart")[0] for line in finding.warnings] == [
        f"case A: t1: {text}corners ",
        f"case A: label: {text}corners ",
    ]
    assert "apart in mm 20, expected at most 0.5" in finding.warnings[0]
    assert finding.refused_if_strict == finding.warnings


def test_a_copy_within_a_case_is_refused_with_both_files(item, write_volume):
    copy = nib.load(item["image"]["t1"]).get_fdata(dtype=np.float32)
    item["image"]["flair"] = str(write_volume("A/A_flair.nii.gz", copy * 3 + 7))
    with pytest.raises(
        CaseError,
        match=r"case A: t1 and flair: they hold the same voxels.*A_t1\.nii\.gz and .*A_flair\.nii",
    ):
        check_case(item, MODALITIES, [1, 2, 4])


def test_a_label_under_a_modality_is_refused_with_its_file(item, write_volume):
    labels = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
    item["image"]["flair"] = str(write_volume("A/A_flair.nii.gz", labels))
    with pytest.raises(
        CaseError,
        match=r"case A: flair: it has a handful of values.* 3, exp.*A_flair\.nii\.gz\.$",
    ):
        check_case(item, MODALITIES, [1, 2, 4])


@pytest.mark.parametrize("unit", ["meter", "micron"])
def test_a_header_in_another_unit_is_refused_beside_what_else_is_wrong(item, unit):
    image = nib.load(item["image"]["t1"])
    image.header.set_xyzt_units(unit)
    nib.save(image, item["image"]["t1"])
    Path(item["image"]["flair"]).unlink()
    with pytest.raises(CaseError, match=r"(?s)A_t1\.nii\.gz gives places in m.*A_flair.* does not"):
        check_case(item, MODALITIES, [1, 2, 4])
