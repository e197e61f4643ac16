from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bundle.phantom.icbm152.head import Head, Tissue
from bundle.phantom.icbm152.scanner import blur, draw_scanner, pool, take_image
from bundle.phantom.icbm152.signal import draw_relaxation

SHAPE = (24, 26, 28)


@pytest.fixture
def cube():
    """A brain of white matter alone: a box of 16 x 18 x 20 voxels of 2 mm."""
    brain = np.pad(np.ones((16, 18, 20), bool), 4)
    none = np.zeros(SHAPE, np.float32)
    return Head({Tissue.WHITE: brain.astype(np.float32)}, none, brain, 2.0)


def image_of(cube, scanner, modality="t2", slab=(1, 1, 1), seed=0, **more):
    tissues = draw_relaxation(np.random.default_rng(0))
    return take_image(np.random.default_rng(seed), scanner, modality, cube, tissues, slab, **more)


@pytest.mark.parametrize("slab", [(1, 1, 1), (2, 2, 2)])
def test_the_noise_of_a_stored_voxel_is_as_asked(cube, slab):
    scanner = replace(draw_scanner(np.random.default_rng(0)), bias=0.0, blur_mm=0.0, gain=1000.0)
    first, second = (image_of(cube, scanner, slab=slab, seed=seed) for seed in (1, 2))
    deep = pool(cube.brain.astype(np.float32), slab) == 1
    noise = (first - second)[deep].std() / np.sqrt(2)
    mean = (first + second)[deep].mean() / 2
    assert mean / noise == pytest.approx(scanner.snr, rel=0.12)
    assert mean == pytest.approx(1000, rel=0.02)


def test_outside_of_the_brain_is_0_and_with_air_noise(cube):
    scanner = draw_scanner(np.random.default_rng(1))
    bare = image_of(cube, scanner)
    np.testing.assert_array_equal(bare != 0, cube.brain)
    np.testing.assert_array_equal(bare, np.rint(bare))
    noisy = image_of(cube, scanner, has_air=True)
    assert (noisy[~cube.brain] > 0).mean() > 0.5
    np.testing.assert_array_equal(noisy[cube.brain], bare[cube.brain])


def test_a_faint_brain_is_nowhere_0_even_with_air(cube):
    scanner = replace(draw_scanner(np.random.default_rng(1)), snr=0.5, gain=1.0)
    assert image_of(cube, scanner, has_air=True)[cube.brain].min() == 1


@pytest.mark.parametrize("slices_mm", [6.0, 8.0])
def test_a_slice_blurs_along_its_axis_alone_and_moves_nothing(slices_mm):
    scanner = replace(
        draw_scanner(np.random.default_rng(0)), blur_mm=0.0, slices_mm=(0.0, slices_mm)
    )
    point = np.zeros((9, 9, 15), np.float32)
    point[4, 4, 7] = 1
    blurred = blur(point, scanner, "t2", 2.0)
    line = blurred[4, 4]
    assert blurred.sum() == pytest.approx(1, abs=1e-5)
    assert line.sum() == pytest.approx(1, abs=1e-5)
    assert (line * np.arange(15)).sum() == pytest.approx(7, abs=1e-4)
    assert line[7] == pytest.approx(2 / slices_mm, abs=1e-5)
    np.testing.assert_array_equal(blur(point, scanner, "t1ce", 2.0), point)


def test_thick_slices_are_1_to_6_mm_and_those_of_t1_thinner():
    for seed in range(50):
        thin = draw_scanner(np.random.default_rng(seed))
        thick = draw_scanner(np.random.default_rng(seed), has_thick_slices=True)
        assert thin.slices_mm == (0.0, 0.0)
        assert 1 <= thick.slices_mm[0] <= thick.slices_mm[1] <= 6
        assert 20 <= thick.snr <= 40
        assert replace(thick, slices_mm=(0.0, 0.0)) == thin


def test_pooling_is_the_mean_of_blocks():
    volume = np.arange(2 * 2 * 6, dtype=np.float32).reshape(2, 2, 6)
    assert pool(volume, (2, 2, 3)).tolist() == [[[10.0, 13.0]]]
