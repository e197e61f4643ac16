from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.data.volumes import (
    CaseError,
    Grid,
    check_grids,
    check_integrity,
    count_labels,
    count_volumes,
    is_blank,
    read_grid,
    read_labels,
    read_volumes,
    read_voxels,
)

SHAPE = (10, 20, 30)
MODALITIES = ("t1", "flair")


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(SHAPE).astype(np.float32)


def label_map(*values: float, dtype: type = np.uint8) -> np.ndarray:
    labels = np.zeros(SHAPE, dtype)
    for place, value in enumerate(values):
        labels[place] = value
    return labels


def test_read_grid_takes_shape_and_affine_from_the_header(tmp_path):
    path = save(tmp_path / "a.nii.gz", noise()[..., None], np.diag([1, 2, 3, 1]))
    grid = read_grid(path, "A")
    assert grid.shape == SHAPE
    assert grid.spacing_mm == (1, 2, 3)


def test_a_missing_file_names_case_and_path(tmp_path):
    with pytest.raises(CaseError, match=r"case A: file .*a\.nii\.gz does not exist"):
        read_grid(tmp_path / "a.nii.gz", "A")


@pytest.mark.parametrize("content", [b"", b"no volume", b"\x1f\x8bno volume"])
def test_a_file_that_is_no_nifti_is_one_kind_of_error(tmp_path, content):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    with pytest.raises(CaseError, match=r"case A: .*a\.nii\.gz cannot be read as a NIfTI volume"):
        read_grid(path, "A")


def test_a_4d_file_is_refused(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((4, 5, 6, 2), np.float32))
    with pytest.raises(CaseError, match=r"one 3D volume, got shape \(4, 5, 6, 2\)"):
        read_grid(path, "A")


def test_grids_of_other_shapes_name_both_files():
    grids = {
        Path("t1.nii"): Grid((4, 5, 6), np.eye(4)),
        Path("t2.nii"): Grid((4, 5, 7), np.eye(4)),
    }
    with pytest.raises(
        CaseError, match=r"Expected \(4, 5, 6\) as in t1\.nii, got \(4, 5, 7\) voxels in t2\.nii"
    ):
        check_grids(grids, "A")


def test_a_shift_counts_in_millimetres():
    def grids(shift_mm: float) -> dict[Path, Grid]:
        moved = np.eye(4)
        moved[0, 3] = shift_mm
        return {Path("a"): Grid(SHAPE, np.eye(4)), Path("b"): Grid(SHAPE, moved)}

    check_grids(grids(0.09), "A")
    with pytest.raises(CaseError, match=r"got 0\.2 mm apart in b"):
        check_grids(grids(0.2), "A")


def test_a_small_rotation_counts_by_what_it_does_to_the_far_corner():
    turned = np.eye(4)
    turned[0, 2] = 0.01  # 29 voxels away that is 0.29 mm
    grids = {Path("a"): Grid(SHAPE, np.eye(4)), Path("b"): Grid(SHAPE, turned)}
    with pytest.raises(CaseError, match=r"got 0\.29 mm apart"):
        check_grids(grids, "A")


def test_read_voxels_gives_float32_with_the_scaling_applied(tmp_path):
    image = nib.Nifti1Image(noise(), np.eye(4))
    image.header.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "a.nii.gz")
    voxels = read_voxels(tmp_path / "a.nii.gz", "A")
    assert voxels.dtype == np.float32
    assert voxels == pytest.approx(noise(), abs=1e-4)


def test_a_truncated_file_is_a_case_error(tmp_path):
    path = save(tmp_path / "a.nii.gz", noise())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CaseError, match=r"case A: .*a\.nii\.gz cannot be read"):
        read_voxels(path, "A")


def test_nan_and_infinite_voxels_are_counted(tmp_path):
    voxels = noise()
    voxels[0, 0, :3] = np.nan, np.inf, np.nan
    path = save(tmp_path / "a.nii.gz", voxels)
    with pytest.raises(
        CaseError, match=r"a\.nii\.gz holds 3 voxels that are NaN or infinite of 6000"
    ):
        read_voxels(path, "A")


@pytest.mark.parametrize(
    ("value", "changed", "blank"), [(0, 0, True), (7, 7, True), (0, 1, True), (7, 8, False)]
)
def test_a_volume_of_one_value_inside_the_brain_is_blank(value, changed, blank):
    voxels = np.full(SHAPE, value, np.float32)
    voxels[3, 4, 5] = changed
    assert is_blank(voxels) is blank


def test_float_labels_are_rounded_and_aliases_applied(tmp_path):
    labels = label_map(1.00392, 2.0, 3.0, dtype=np.float32)
    read = read_labels(save(tmp_path / "seg.nii", labels), "A", [1, 2, 4], {"3": 4})
    assert read.dtype == np.uint8
    assert [int(read[i, 0, 0]) for i in range(4)] == [1, 2, 4, 0]


def test_labels_between_whole_numbers_are_refused(tmp_path):
    path = save(tmp_path / "seg.nii", label_map(1.37, dtype=np.float32))
    with pytest.raises(CaseError, match=r"whole label values, got 600 voxels such as 1\.37"):
        read_labels(path, "A", [1, 2, 4])


def test_unknown_labels_are_listed_with_their_counts(tmp_path):
    path = save(tmp_path / "seg.nii", label_map(1, 7, -2, dtype=np.int16))
    expected = (
        r"unknown label values: -2 \(600 voxels\), 7 \(600 voxels\)\. Expected 0 and \[1, 2, 4\]"
    )
    with pytest.raises(CaseError, match=expected):
        read_labels(path, "A", [1, 2, 4])


def test_an_alias_beside_its_target_is_refused(tmp_path):
    path = save(tmp_path / "seg.nii", label_map(3, 4))
    with pytest.raises(CaseError, match=r"holds label 3 .* and label 4 .* resection cavity"):
        read_labels(path, "A", [1, 2, 4], {3: 4})


def test_count_labels_reads_the_file_as_written(tmp_path):
    path = save(tmp_path / "seg.nii", label_map(3, 1, 1))
    assert count_labels(path, "A") == {1: 1200, 3: 600}


def test_a_flipped_byte_that_still_loads_is_found_by_the_checksum(tmp_path):
    path = save(tmp_path / "a.nii.gz", noise())
    check_integrity(path, "A")
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the checksum itself: every voxel loads as before
    path.write_bytes(content)
    assert read_voxels(path, "A").shape == SHAPE
    with pytest.raises(CaseError, match=r"case A: .*a\.nii\.gz cannot be read .*CRC"):
        check_integrity(path, "A")


def test_a_4d_file_comes_volume_by_volume(tmp_path):
    voxels = np.stack([noise(0), noise(1)], -1)
    path = save(tmp_path / "a.nii.gz", voxels)
    assert count_volumes(path, "A") == 2
    read, grid = read_volumes(path, "A", 2)
    np.testing.assert_array_equal(read, np.stack([noise(0), noise(1)]))
    assert grid.shape == SHAPE
    assert count_volumes(save(tmp_path / "b.nii.gz", noise()), "A") == 1
