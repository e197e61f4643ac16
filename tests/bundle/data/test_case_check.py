from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.data.case_check import check_case
from bundle.data.volumes import CaseError

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


def make_item(folder: Path, label: np.ndarray) -> dict:
    image = {m: str(save(folder / f"A_{m}.nii.gz", noise(i))) for i, m in enumerate(MODALITIES)}
    return {
        "case": "A",
        "image": image,
        "label": str(save(folder / "A_seg.nii.gz", label)),
        "site": "s",
    }


def test_a_quaternion_only_label_passes(tmp_path):
    affine = np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    item = make_item(tmp_path, label_map(1))
    for path in item["image"].values():
        save(Path(path), noise(), affine)
    label = nib.Nifti1Image(label_map(1).astype(np.uint16), affine)
    label.set_sform(None, code=0)
    label.set_qform(affine, code=1)
    nib.save(label, item["label"])
    check_case(item, MODALITIES, [1, 2, 4])


def test_a_good_case_comes_back_as_it_was(tmp_path):
    item = make_item(tmp_path, label_map(1, 2, 4))
    assert check_case(item, MODALITIES, [1, 2, 4]) == (item, [])


def test_a_blank_volume_counts_as_absent_with_a_warning(tmp_path):
    item = make_item(tmp_path, label_map(1))
    save(Path(item["image"]["t1"]), np.zeros(SHAPE, np.float32))
    clean, warnings = check_case(item, MODALITIES, [1, 2, 4])
    assert list(clean["image"]) == ["flair"]
    assert len(warnings) == 1
    assert item["image"]["t1"] in warnings[0]


def test_headers_alone_do_not_see_a_blank_volume(tmp_path):
    item = make_item(tmp_path, label_map(1))
    save(Path(item["image"]["t1"]), np.zeros(SHAPE, np.float32))
    assert check_case(item, MODALITIES, [1], voxels=False) == (item, [])


def test_a_case_of_blank_volumes_is_refused(tmp_path):
    item = make_item(tmp_path, label_map(1))
    for path in item["image"].values():
        save(Path(path), np.zeros(SHAPE, np.float32))
    with pytest.raises(
        CaseError, match="nothing is present, the volumes of t1, flair are constant"
    ):
        check_case(item, MODALITIES, [1])


def test_every_problem_of_a_case_is_told_at_once(tmp_path):
    item = make_item(tmp_path, label_map(9))
    save(Path(item["image"]["t1"]), np.full(SHAPE, np.nan, np.float32))
    with pytest.raises(CaseError) as error:
        check_case(item, MODALITIES, [1])
    assert len(str(error.value).splitlines()) == 2
