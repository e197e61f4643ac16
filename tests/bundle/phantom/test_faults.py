from __future__ import annotations

import numpy as np
import pytest

from bundle.data.plausibility.rules import RULES
from bundle.modalities import BRATS_MODALITIES
from bundle.phantom.faults import FAULTS, can_have, drop_some
from bundle.phantom.planting import Case


@pytest.fixture
def case():
    """Volumes of seeds 1 to 4 in the middle of a cube of 20, and a label with all values."""
    images = {
        name: np.pad(np.random.default_rng(seed).uniform(1, 2, (12, 12, 12)).astype(np.float32), 4)
        for seed, name in enumerate(BRATS_MODALITIES)
    }
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[6:11, 6:11, 6:11], labels[7:10, 7:10, 7:10], labels[8, 8, 8] = 2, 4, 1
    return Case(images, labels, (1.0, 1.0, 2.0))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_changes_the_copy_and_not_the_case(case, rng, name):
    before = {n: v.copy() for n, v in case.images.items()}, case.labels.copy()
    faulty = FAULTS[name].plant(rng, case)
    assert all(np.array_equal(case.images[n], v) for n, v in before[0].items())
    assert np.array_equal(case.labels, before[1])
    same = (
        faulty.spacing_mm == case.spacing_mm
        and faulty.forms_mm == case.forms_mm
        and np.array_equal(faulty.labels, case.labels)
        and all(np.array_equal(faulty.images[n], v) for n, v in case.images.items())
    )
    assert not same


def test_every_fault_names_rules_that_exist():
    named = {rule for fault in FAULTS.values() for rule in fault.rules}
    assert named <= set(RULES)
    # What no fault stands for: a label of nearly all of the brain.
    assert set(RULES) - named == {"tumour_large"}


def test_swaps_are_exact(case, rng):
    swapped = FAULTS["t1 and t1ce swapped"].plant(rng, case).images
    assert swapped["t1"] is case.images["t1ce"]
    assert swapped["t1ce"] is case.images["t1"]
    labels = FAULTS["necrosis and oedema swapped"].plant(rng, case).labels
    assert np.array_equal(labels == 1, case.labels == 2)
    assert np.array_equal(labels == 4, case.labels == 4)
    assert np.unique(FAULTS["binary mask"].plant(rng, case).labels).tolist() == [0, 1]


def test_a_label_moves_by_three_to_eight_voxels(case):
    for seed in range(20):
        moved = FAULTS["label moved"].plant(np.random.default_rng(seed), case).labels
        assert np.count_nonzero(moved) == np.count_nonzero(case.labels)
        shift = np.argwhere(moved == 1)[0] - 8
        shift = (shift + 10) % 20 - 10
        assert 2 <= np.linalg.norm(shift) <= 9


def test_one_modality_is_mirrored(case, rng):
    mirrored = FAULTS["modality mirrored"].plant(rng, case).images
    (name,) = [n for n in mirrored if not np.array_equal(mirrored[n], case.images[n])]
    assert np.array_equal(mirrored[name], case.images[name][::-1])


@pytest.mark.parametrize("factor", [10, 0.1])
def test_the_spacing_is_scaled(case, rng, factor):
    name = "spacing times ten" if factor == 10 else "spacing divided by ten"
    assert FAULTS[name].plant(rng, case).spacing_mm == pytest.approx([factor, factor, 2 * factor])


def test_a_scalp_without_noise_leaves_the_corners_empty(case, rng):
    quiet = FAULTS["head without noise"].plant(rng, case).images["t1"]
    noisy = FAULTS["head with noise"].plant(rng, case).images["t1"]
    assert quiet[0, 0, 0] == 0
    assert noisy[0, 0, 0] != 0
    assert np.count_nonzero(quiet) > np.count_nonzero(case.images["t1"])


def test_what_a_fault_needs_is_never_taken_away(case):
    for seed in range(30):
        for fault in FAULTS.values():
            left = drop_some(np.random.default_rng(seed), case, fault)
            assert can_have(left, fault)
            assert set(left.images) <= set(case.images)
    kept = [len(drop_some(np.random.default_rng(seed), case).images) for seed in range(30)]
    assert min(kept) >= 1
    assert 10 <= sum(count == 4 for count in kept) <= 25


def test_half_of_a_brain_and_eight_voxels_are_left(case, rng):
    for name, share in (("half of the brain", 0.5), ("eight voxels", 8 / 12**3)):
        faulty = FAULTS[name].plant(rng, case).images
        (changed,) = [n for n in faulty if not np.array_equal(faulty[n], case.images[n])]
        left = faulty[changed] != 0
        assert np.count_nonzero(left) == share * 12**3
        assert np.array_equal(faulty[changed][left], case.images[changed][left])


def test_a_label_lands_in_a_corner_whole(case):
    for seed in range(8):
        moved = FAULTS["label in a corner"].plant(np.random.default_rng(seed), case).labels
        assert np.bincount(moved.ravel()).tolist() == np.bincount(case.labels.ravel()).tolist()
        corner = moved[np.ix_([0, -1], [0, -1], [0, -1])]
        assert np.count_nonzero(corner) == 1


def test_a_scaled_copy_has_other_numbers_and_the_same_order(case, rng):
    whole = {name: np.rint(voxels * 500) * (voxels != 0) for name, voxels in case.images.items()}
    scaled = FAULTS["one scan twice, scaled"].plant(rng, Case(whole, case.labels, case.spacing_mm))
    (target,) = [n for n in whole if not np.array_equal(scaled.images[n], whole[n])]
    fits = [
        np.corrcoef(scaled.images[target].ravel(), voxels.ravel())[0, 1]
        for name, voxels in whole.items()
        if name != target
    ]
    assert sorted(fits)[-1] > 0.9999 > 0.999 > sorted(fits)[-2]


def test_noise_fills_the_air_alone(case, rng):
    faulty = FAULTS["noise in the air"].plant(rng, case).images
    for name, voxels in case.images.items():
        assert np.array_equal(faulty[name][voxels != 0], voxels[voxels != 0])
        assert (faulty[name] != 0).all()


def test_a_turned_head_has_empty_corners_and_a_full_border(case, rng):
    turned = FAULTS["head with noise, turned"].plant(rng, case).images["t1"]
    assert not turned[np.ix_([0, -1], [0, -1], [0, -1])].any()
    assert all(face.any() for axis in range(3) for face in (turned.take(0, axis),))
