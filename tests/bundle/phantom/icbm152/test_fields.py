from __future__ import annotations

import numpy as np
import pytest

from bundle.phantom.icbm152.fields import (
    blob,
    grid_points,
    smooth_field,
    turned_stretch,
    values_at,
)


@pytest.mark.parametrize("width", [0.5, 2.0, 9.0])
def test_a_field_has_mean_0_and_deviation_1_and_its_seed_decides(width):
    fields = [smooth_field(np.random.default_rng(s), (17, 20, 23), width) for s in (1, 1, 2)]
    assert fields[0].shape == (17, 20, 23)
    assert abs(fields[0].mean()) < 1e-5
    assert fields[0].std() == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(fields[0], fields[1])
    assert not np.array_equal(fields[0], fields[2])


def test_a_field_is_as_wide_in_mm_whatever_the_voxels():
    def change_of_a_mm(spacing):
        size = round(96 / spacing)
        field = smooth_field(np.random.default_rng(0), (size,) * 3, 8.0, spacing)
        return np.abs(np.diff(field, axis=0)).mean() / spacing

    assert change_of_a_mm(2.0) == pytest.approx(change_of_a_mm(4.0), rel=0.2)


def test_values_between_voxels_are_exact_for_a_plane_and_0_outside():
    places = grid_points((5, 6, 7), 1.0)
    plane = places[0] + 2 * places[1] - places[2]
    points = np.array([[1.25, 2.5, -9], [2.0, 0.5, 2], [3.5, 4.0, 2]], np.float32)
    read = values_at(plane, points[:, :, None, None])[:, 0, 0]
    wanted = [plane[0, 0, 0] + a + 2 * b - c for a, b, c in points.T]
    np.testing.assert_allclose(read[:2], wanted[:2], atol=1e-5)
    assert read[2] == 0
    both = values_at(np.stack([plane, -plane]), points[:, :, None, None])
    np.testing.assert_allclose(both[1], -both[0], atol=1e-6)


def test_the_middle_of_a_grid_is_0_mm():
    places = grid_points((4, 5, 6), 2.0)
    np.testing.assert_allclose(places.mean((1, 2, 3)), 0, atol=1e-6)
    assert places[0, 1, 0, 0] - places[0, 0, 0, 0] == 2


def test_a_blob_measures_distances_and_its_stretch_keeps_to_the_limit():
    assert blob((5, 5, 5), (1, 2, 2), np.eye(3))[4, 2, 2] == 3
    for seed in range(20):
        stretch = turned_stretch(np.random.default_rng(seed), 1.45)
        lengths = np.linalg.svd(stretch, compute_uv=False)
        assert 1 / 1.45 - 1e-9 <= lengths.min() <= lengths.max() <= 1.45 + 1e-9
