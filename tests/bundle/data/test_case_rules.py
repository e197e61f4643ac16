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
    for path in item["image"].values():
        write_volume(path, 0, affine)
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
