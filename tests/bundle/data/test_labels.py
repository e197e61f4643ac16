from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.data.labels import read_labels
from bundle.data.volumes import CaseError

SHAPE = (10, 20, 30)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def label_map(*values: float, dtype: type = np.uint8) -> np.ndarray:
    labels = np.zeros(SHAPE, dtype)
    for index, value in enumerate(values):
        labels[index] = value
    return labels


def test_float_labels_are_rounded_and_aliases_applied(tmp_path):
    labels = label_map(1.00392, 2.0, 3.0, dtype=np.float32)
    read = read_labels(save(tmp_path / "seg.nii", labels), "A", [1, 2, 4], {"3": 4}).labels
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


def test_labels_are_counted_as_the_file_has_them(tmp_path):
    path = save(tmp_path / "seg.nii", label_map(3, 1, 1), np.diag([1, 2, 3, 1]))
    read = read_labels(path, "A", [1, 2, 4], {3: 4})
    assert read.counts == {1: 1200, 3: 600}
    assert read.grid.spacing_mm == (1, 2, 3)
