from __future__ import annotations

import numpy as np
import pytest

from bundle.data.plausibility.coarse import (
    CoarseCase,
    coarsen,
    codes_of,
    extent_mm,
    parts_of,
    standard_name,
)
from bundle.data.volumes import Grid
from bundle.regions import BRATS_REGIONS


def hash_of(voxels: np.ndarray) -> str:
    case = CoarseCase()
    case.add("t1", voxels)
    return case.hashes["t1"]


def test_a_hash_knows_a_scan_again_however_it_was_turned_padded_or_stored():
    voxels = np.pad(np.random.default_rng(0).uniform(1, 2, (5, 6, 7)), 2).astype(np.float32)
    whole = hash_of(voxels)
    assert len(whole) == 64
    assert hash_of(voxels[::-1]) == whole
    assert hash_of(voxels.transpose(2, 0, 1)) == whole
    assert hash_of(np.pad(voxels, 3)) == whole
    assert hash_of(voxels.astype(np.float64)) == whole
    other = voxels.copy()
    other[4, 4, 4] += 0.5
    assert hash_of(other) != whole


def test_zeros_corners_and_median_are_exact():
    voxels = np.zeros((16, 16, 16), np.float32)
    voxels[4:12, 4:12, 4:12] = 3
    voxels[0, 0, 0] = 7
    case = CoarseCase()
    case.add("t1n", voxels)
    assert case.numbers == {
        "zeros t1n": 1 - 513 / 4096,
        "corners t1n": 1 / 64,
        "border t1n": 1 / 256,
        "median t1n": 3.0,
        "values t1n": 2.0,
    }
    assert list(case.volumes) == ["t1"]


@pytest.mark.parametrize(
    ("regions", "codes"),
    [
        (BRATS_REGIONS, {1: 1, 2: 2, 4: 3}),
        ({"ET": [3], "TC": [1, 3], "WT": [1, 2, 3]}, {1: 1, 2: 2, 3: 3}),
        ({"WT": [1]}, {}),
        ({"WT": [1], "TC": [2], "ET": [3]}, {}),
    ],
)
def test_the_parts_of_a_tumour_follow_from_the_regions(regions, codes):
    assert codes_of(regions) == codes
    parts = parts_of(np.array([0, 1, 2], np.uint8), regions)
    assert parts is None if not codes else parts.tolist() == [0, 1, 2]


def test_a_large_volume_becomes_about_a_million_voxels():
    assert coarsen(np.zeros((240, 240, 155), np.uint8)).shape == (120, 120, 78)
    assert coarsen(np.zeros((64, 64, 64), np.uint8)).shape == (64, 64, 64)


def test_the_extent_counts_the_voxels_that_were_left_out():
    brain = np.zeros((10, 10, 10), bool)
    brain[2:7, 3, 4] = True
    assert extent_mm(brain, Grid((20, 20, 20), np.diag([1.5, 1, 1, 1]))) == 15.0


def test_modalities_have_one_name_in_all_releases():
    assert [standard_name(n) for n in ("t1n", "t1c", "t2f", "pd")] == ["t1", "t1ce", "flair", "pd"]
