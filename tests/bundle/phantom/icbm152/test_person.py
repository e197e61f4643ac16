from __future__ import annotations

import numpy as np

from bundle.phantom.icbm152.fields import values_at
from bundle.phantom.icbm152.head import Tissue
from bundle.phantom.icbm152.person import draw_person, grow_person, take_over, warped_points
from bundle.phantom.icbm152.template import template

SHAPE, SPACING = (42, 54, 42), 4.0


def persons(count):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        yield rng, draw_person(rng)


def test_shares_are_1_in_the_brain_and_0_outside(head):
    total = sum(head.shares.values())
    np.testing.assert_allclose(total[head.brain], 1, atol=1e-5)
    assert (total[~head.brain] == 0).all()
    assert all(share.min() >= 0 and share.max() <= 1 + 1e-6 for share in head.shares.values())
    assert 1100 < head.brain.sum() * SPACING**3 / 1000 < 2300
    assert (head.texture[~head.brain] == 0).all()


def test_a_person_is_drawn_from_the_seed_alone(head):
    rng = np.random.default_rng(3)
    again = grow_person(rng, draw_person(rng), SHAPE, SPACING)
    for tissue, share in head.shares.items():
        np.testing.assert_array_equal(again.shares[tissue], share)


def test_no_warp_folds():
    for rng, person in persons(12):
        points = warped_points(rng, person, SHAPE, SPACING)
        slopes = np.stack([np.stack(np.gradient(axis, SPACING)) for axis in points])
        volume = np.linalg.det(np.moveaxis(slopes, (0, 1), (-2, -1)))
        brain = values_at(template().inside, points) > 0
        assert (volume * (-1 if person.is_mirrored else 1))[brain].min() > 0.05


def test_persons_are_of_an_age_and_both_ways_round():
    drawn = [person for _, person in persons(200)]
    ages = [person.age for person in drawn]
    assert min(ages) >= 25
    assert max(ages) <= 80
    assert 70 < sum(person.is_mirrored for person in drawn) < 130
    old, young = (
        np.mean([p.ventricles_mm for p in drawn if low <= p.age <= high])
        for low, high in ((65, 80), (25, 50))
    )
    assert old > young + 1


def test_what_one_tissue_takes_the_others_lose():
    shares = {t: np.full((2, 2, 2), 0.5, np.float32) for t in (Tissue.GREY, Tissue.FLUID)}
    take_over(shares, Tissue.SPOT, np.full((2, 2, 2), 0.25, np.float32), keep=(Tissue.FLUID,))
    assert (shares[Tissue.FLUID] == 0.5).all()
    assert (shares[Tissue.GREY] == 0.375).all()
    assert (shares[Tissue.SPOT] == 0.125).all()
