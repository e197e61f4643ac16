from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from bundle.phantom.icbm152.core import CorePlan, core_distance, fill_core
from bundle.phantom.icbm152.head import Head, Tissue
from bundle.phantom.icbm152.mass_effect import push_aside, source_points
from bundle.phantom.icbm152.oedema import spread_oedema
from bundle.phantom.icbm152.tumour import CORE, draw_tumour, grow_tumour

PLAN = CorePlan(20.0, 1, rim_share=0.5, solid_share=0.0, has_blood=False, has_calcium=False)


def synthetic_head(spacing=3.0):
    """A box of white matter, cut by a sheet of fluid across the first axis and holding a lake."""
    shape = (40, 30, 30)
    brain = np.pad(np.ones([n - 4 for n in shape], bool), 2)
    fluid = np.zeros(shape, np.float32)
    fluid[20] = 1
    fluid[8:12, 20:24, 12:18] = 1
    fluid *= brain
    shares = {Tissue.FLUID: fluid, Tissue.WHITE: brain - fluid}
    shares[Tissue.GREY] = np.zeros(shape, np.float32)
    return Head(shares, np.zeros(shape, np.float32), brain, spacing)


def core_of(plan, seed=0, spacing=3.0):
    head = synthetic_head(spacing)
    rng = np.random.default_rng(seed)
    allowed = head.brain & (head.shares[Tissue.FLUID] < 0.6)
    centre = np.array([11.0, 12.0, 15.0])
    distance = core_distance(rng, plan, centre, allowed, spacing)
    return head, allowed, fill_core(rng, plan, distance, spacing)


@pytest.mark.parametrize("seed", range(3))
def test_a_core_has_the_volume_that_is_planned_and_is_where_it_may_be(seed):
    _, allowed, parts = core_of(PLAN, seed)
    core = sum(parts.values())
    assert core.sum() * 27 / 1000 == pytest.approx(20, rel=0.12)
    assert (core[~allowed] == 0).all()
    assert core.max() <= 1 + 1e-5
    assert min(part.min() for part in parts.values()) >= 0
    assert parts[Tissue.RIM].sum() / core.sum() == pytest.approx(0.5, abs=0.2)


def test_a_rim_is_outside_and_necrosis_within():
    _, _, parts = core_of(PLAN)
    core = sum(parts.values()) > 0.5
    depth = ndimage.distance_transform_edt(core)
    means = [np.average(depth[core], weights=parts[t][core]) for t in (Tissue.RIM, Tissue.NECROSIS)]
    assert means[0] < means[1]


def test_what_is_not_planned_is_not_there():
    _, _, parts = core_of(replace(PLAN, rim_share=0.0, solid_share=1.0))
    for tissue in (Tissue.RIM, Tissue.BLOOD, Tissue.CALCIUM):
        assert parts[tissue].max() == 0
    core = sum(parts.values()) > 0.9
    assert parts[Tissue.SOLID][core].mean() > 0.9
    assert parts[Tissue.NECROSIS][core].mean() < 0.05
    _, _, parts = core_of(replace(PLAN, has_blood=True, has_calcium=True), spacing=2.0)
    assert parts[Tissue.BLOOD].max() > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_oedema_has_its_volume_and_stops_at_fluid_and_the_sheet(seed):
    head, _, parts = core_of(PLAN, seed)
    core = sum(parts.values())
    oedema = spread_oedema(np.random.default_rng(seed), head, core, 60.0)
    assert oedema.sum() * 27 / 1000 == pytest.approx(60, rel=0.25)
    assert (oedema[head.shares[Tissue.FLUID] == 1] == 0).all()
    assert (oedema[~head.brain] == 0).all()
    assert (oedema + core <= 1 + 1e-5).all()
    # The core is on the lower side of the sheet.
    assert oedema[21:].sum() < 0.01 * oedema.sum()


def test_nothing_is_pushed_out_of_the_brain_and_nothing_folds(head):
    deep = ndimage.distance_transform_edt(head.brain) * head.spacing_mm
    for spot in np.argwhere((deep > 12) & (deep < 18))[::900]:
        for radius in (12.0, 29.7):
            points = source_points(head, spot, radius, 0.65, (0, 0, 0), head.brain.shape)
            still = np.stack(np.meshgrid(*map(np.arange, head.brain.shape), indexing="ij"))
            assert np.abs(points - still)[:, ~head.brain].max() == 0
            slopes = np.stack([np.stack(np.gradient(axis)) for axis in points])
            folded = np.linalg.det(np.moveaxis(slopes, (0, 1), (-2, -1))) <= 0
            assert not folded.any(), (spot, radius, folded.sum())


def test_outside_of_the_sphere_tissue_keeps_its_volume():
    """Far from the surface and near the sphere: shells map to shells of the same volume."""
    brain = np.ones((80, 80, 80), bool)
    big = Head({}, np.zeros(brain.shape, np.float32), brain, 1.0)
    points = source_points(big, (40, 40, 40), 10.0, 0.5, (0, 0, 0), brain.shape)
    moved = 40 + 12 - points[0, 52, 40, 40]
    whole = 12 - np.cbrt(12**3 - 0.5 * 10**3)
    assert moved == pytest.approx(whole * (1 - (12 / 35) ** 2), abs=1e-3)


def test_pushing_keeps_the_shares_whole(head):
    pushed = push_aside(head, (18, 27, 25), 20.0, 0.6)
    np.testing.assert_array_equal(pushed.brain, head.brain)
    total = sum(pushed.shares.values())
    deep = ndimage.binary_erosion(head.brain, iterations=2)
    np.testing.assert_allclose(total[deep], 1, atol=1e-4)
    np.testing.assert_allclose(total[~head.brain], 0, atol=1e-4)
    # There is more of what was around the centre, and less of the rest.
    assert not np.array_equal(pushed.shares[Tissue.WHITE], head.shares[Tissue.WHITE])


@pytest.mark.parametrize("has_rim", [True, False])
def test_a_tumour_takes_the_place_of_tissue_and_its_labels_are_nested(head, has_rim):
    grown, labels = grow_tumour(np.random.default_rng(5), head, has_rim)
    total = sum(grown.shares.values())
    assert total.max() <= 1 + 1e-4
    np.testing.assert_allclose(
        total[ndimage.binary_erosion(head.brain, iterations=2)], 1, atol=1e-3
    )
    assert set(np.unique(labels)) == ({0, 1, 2, 4} if has_rim else {0, 1, 2})
    assert (labels[~head.brain] == 0).all()
    core = sum(grown.shares[tissue] for tissue in CORE)
    assert core[np.isin(labels, (1, 4))].mean() > 0.7
    assert core[labels == 2].mean() < 0.4
    assert (grown.shares[Tissue.RIM].max() > 0) == has_rim


def test_plans_keep_to_their_limits():
    plans = [draw_tumour(np.random.default_rng(seed), has_rim=True) for seed in range(300)]
    cores = [plan.core.volume_ml for plan in plans]
    assert min(cores) >= 0.6
    assert max(cores) <= 110
    assert 20 < np.median(cores) < 45
    assert 20 < sum(plan.core.foci > 1 for plan in plans) < 70
    solid = [draw_tumour(np.random.default_rng(seed), has_rim=False) for seed in range(50)]
    assert {plan.core.rim_share for plan in solid} == {0.0}
    assert {plan.core.foci for plan in solid} == {1}


def test_a_brain_that_a_tumour_would_fill_is_refused():
    small = synthetic_head(1.0)
    with pytest.raises(ValueError, match=r"at least 100 mL to grow a tumour in, got 2[0-9] mL"):
        grow_tumour(np.random.default_rng(0), small, True)


def test_oedema_is_no_less_than_a_share_of_the_core():
    plans = [draw_tumour(np.random.default_rng(seed), has_rim=seed % 2 == 0) for seed in range(300)]
    assert min(plan.oedema_ml / plan.core.volume_ml for plan in plans) >= 0.3
