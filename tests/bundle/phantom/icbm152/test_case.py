from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from bundle.phantom.case import has_rim
from bundle.phantom.data_set import BRATS_ORIGIN_MM, save
from bundle.phantom.icbm152.case import make_case, working_grid
from bundle.phantom.icbm152.head import Tissue
from bundle.phantom.icbm152.scanner import draw_scanner
from bundle.phantom.icbm152.signal import RELAXATION
from bundle.phantom.icbm152.skull import add_skull

COARSE = (6.0, 6.0, 6.0)


def test_images_are_whole_numbers_that_are_0_outside_of_the_brain_alone(cases):
    for images, labels in cases.values():
        brain = images["t1"] != 0
        assert 0.15 < brain.mean() < 0.6
        assert (labels[~brain] == 0).all()
        assert labels.dtype == np.uint8
        for image in images.values():
            assert image.dtype == np.float32
            np.testing.assert_array_equal(image, image.astype(np.int16))
            np.testing.assert_array_equal(image != 0, brain)


def test_only_a_seed_with_a_rim_has_one(cases):
    for seed, (_, labels) in cases.items():
        assert set(np.unique(labels)) <= {0, 1, 2, 4}
        assert (labels == 2).any()
        if not has_rim(seed, "icbm152"):
            assert not (labels == 4).any()
    assert any((labels == 4).any() for _, labels in cases.values())


def test_a_modality_looks_the_same_whatever_others_are_asked_for(cases):
    images, labels = make_case(0, ("flair", "adc"), COARSE)
    np.testing.assert_array_equal(images["flair"], cases[0][0]["flair"])
    np.testing.assert_array_equal(labels, cases[0][1])
    assert images["adc"].any()


def test_cases_differ_by_their_seed(cases):
    assert not np.array_equal(cases[0][1], cases[1][1])
    assert not np.array_equal(cases[0][0]["t1"], cases[1][0]["t1"])


def test_a_tumour_shows_where_its_labels_say(cases):
    """Oedema is brighter on FLAIR than the rest of the brain, a rim brighter on T1ce than on T1."""
    for images, labels in cases.values():
        brain = images["t1"] != 0
        rest = brain & (labels == 0)
        flair = images["flair"]
        assert np.median(flair[labels == 2]) > np.median(flair[rest])
        if np.count_nonzero(labels == 4) > 20:
            rim_of = {
                name: np.median(images[name][labels == 4]) / np.median(images[name][rest])
                for name in ("t1", "t1ce")
            }
            # Some rims are faint.
            assert rim_of["t1ce"] > 1.05 * rim_of["t1"]


@pytest.mark.parametrize(
    ("spacing", "stored", "slab", "working"),
    [
        ((3, 3, 3), (56, 72, 56), (2, 2, 2), 1.5),
        ((1, 1, 5), (168, 216, 34), (1, 1, 5), 1.0),
        ((3, 3, 6), (56, 72, 28), (2, 2, 4), 1.5),
        ((2.5, 2.5, 2.5), (68, 88, 68), (2, 2, 2), 1.25),
        ((4, 4, 4), (42, 54, 42), (2, 2, 2), 2.0),
    ],
)
def test_a_grid_is_never_smaller_than_a_head_needs(spacing, stored, slab, working):
    shape, found_slab, found_working = working_grid(spacing)
    assert (found_slab, found_working) == (slab, working)
    assert shape == tuple(n * s for n, s in zip(stored, slab, strict=True))
    assert all(n * s >= mm for n, s, mm in zip(stored, spacing, (168, 216, 168), strict=True))


def test_the_brats_grid_is_that_of_brats(tmp_path):
    shape, slab, working = working_grid((1.0, 1.0, 1.0), "brats")
    assert (shape, slab, working) == ((240, 240, 155), (1, 1, 1), 1.0)
    save(np.zeros(shape, np.uint8), (1, 1, 1), "LPS", tmp_path / "a.nii.gz", BRATS_ORIGIN_MM)
    affine = nib.load(tmp_path / "a.nii.gz").affine
    assert affine.tolist() == [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_a_skull_lies_around_the_brain_and_changes_nothing_in_it(head):
    # Six voxels more on each side, so that there is room for it.
    wide = replace(
        head,
        shares={tissue: np.pad(share, 6) for tissue, share in head.shares.items()},
        texture=np.pad(head.texture, 6),
        brain=np.pad(head.brain, 6),
    )
    whole = add_skull(np.random.default_rng(0), wide)
    total = sum(whole.shares.values())
    assert total.max() <= 1 + 1e-4
    assert min(share.min() for share in whole.shares.values()) >= 0
    np.testing.assert_array_equal(whole.brain, wide.brain)
    for tissue, share in wide.shares.items():
        np.testing.assert_allclose(whole.shares[tissue][wide.brain], share[wide.brain], atol=1e-3)
    litres = {t: whole.shares[t].sum() * 64 / 1e6 for t in (Tissue.BONE, Tissue.SCALP, Tissue.EYE)}
    assert 0.2 < litres[Tissue.BONE] < 1.2
    assert 0.2 < litres[Tissue.SCALP] < 1.4
    # Two eyes of 24 mm.
    assert litres[Tissue.EYE] == pytest.approx(2 * 0.00724, rel=0.4)


def test_a_head_has_noise_in_its_air():
    images, labels = make_case(0, ("t1", "t2"), COARSE, head=True)
    for image in images.values():
        corner = image[:4, :4, -4:]
        assert (corner > 0).mean() > 0.5
        assert corner.mean() < 0.3 * image[labels == 2].mean()


def test_cases_of_one_scanner_share_its_contrast():
    """As `make_case` draws it: from the scanner's seed and nothing else."""
    drawn = [draw_scanner(np.random.default_rng([4, 15])) for _ in range(2)]
    assert drawn[0] == drawn[1]
    gains = {}
    for scanner_seed in (4, None):
        means = [
            image[image > 0].mean()
            for seed in (1, 2)
            for image in make_case(seed, ("t2",), COARSE, scanner_seed=scanner_seed)[0].values()
        ]
        gains[scanner_seed] = max(means) / min(means)
    # Noise and bias move the mean a little; another gain moves it a lot.
    assert gains[4] < 1.05 < gains[None]


def test_every_tissue_can_be_scanned():
    assert set(RELAXATION) == set(Tissue)


@pytest.mark.long
def test_a_whole_case_of_1_mm_is_as_large_as_those_of_brats():
    images, labels = make_case(0, ("t1", "flair"), (1.0, 1.0, 1.0), grid="brats")
    assert labels.shape == (240, 240, 155)
    brain = images["t1"] != 0
    assert 1.1e6 < brain.sum() < 2.2e6
    assert 2e3 < np.count_nonzero(labels) < 3e5
