from __future__ import annotations

import numpy as np
import pytest

from bundle.data.plausibility.head import border_share, ring_numbers

DEPTH = 24 - np.linalg.norm(np.indices((50, 50, 50)) - 24.5, axis=0)  # voxels below the surface


def ring_depth(volume: np.ndarray, spacing_mm: tuple[float, ...]) -> float:
    return ring_numbers({"t1": volume}, spacing_mm)["ring t1"]


def layers(*values: float) -> np.ndarray:
    """A ball whose layers of 4 voxels have these values from the surface inwards, the last deep."""
    at = np.minimum((DEPTH / 4).astype(int), len(values) - 1)
    return np.where(DEPTH > 0, np.array(values)[at], 0).astype(np.float32)


@pytest.mark.parametrize(
    ("values", "share"),
    [
        ((100, 10, 80, 90), 10 / 90),
        ((100, 0, 80, 90), 0),
        ((30, 50, 80, 90), 1),
        ((90, 60, 50, 50), 1),
        ((90, 60, 50, 80), 50 / 80),
    ],
    ids=["bone", "bone at 0", "brighter inwards", "darker inwards", "a little darker"],
)
def test_a_ring_is_what_is_darker_than_both_its_sides(values, share):
    assert ring_depth(layers(*values), (2.0, 2.0, 2.0)) == pytest.approx(share, abs=0.01)


def test_a_head_that_is_cut_off_has_its_ring_all_the_same():
    head = layers(100, 0, 80, 90)
    assert ring_depth(head[:, :, :30], (2.0, 2.0, 2.0)) == 0
    assert ring_depth(head[6:-6], (2.0, 2.0, 2.0)) == 0
    assert ring_depth(head[:, :, ::2], (2.0, 2.0, 4.0)) == 0


def test_z_scores_below_0_make_no_ring():
    brain = layers(30, 50, 80, 90)
    inside = brain != 0
    scored = np.where(inside, (brain - brain[inside].mean()) / brain[inside].std(), 0)
    assert ring_depth(scored.astype(np.float32), (2.0, 2.0, 2.0)) == 1


def test_a_stripped_volume_beside_one_with_its_scalp_has_no_ring():
    head, brain = layers(100, 10, 80, 90), layers(0, 0, 50, 40)
    numbers = ring_numbers({"t1": head, "t2": brain}, (2.0, 2.0, 2.0))
    assert numbers == {"ring t1": pytest.approx(0.11, abs=0.02), "ring t2": 1.0}


def test_a_volume_too_thin_for_three_layers_has_no_number():
    assert np.isnan(ring_depth(np.ones((6, 6, 6), np.float32), (2.0, 2.0, 2.0)))
    assert np.isnan(ring_depth(np.zeros((6, 6, 6), np.float32), (2.0, 2.0, 2.0)))


def test_the_border_counts_where_two_axes_are_reached():
    brain = (DEPTH > 0).astype(np.float32)
    assert border_share(brain) == 0
    assert border_share(brain[:, :, 20:30]) == 0
    cut = brain[:, 15:35, 15:35]
    assert border_share(cut) > 0.5
    one_slice = brain[:, :, 24:25]
    assert border_share(one_slice) == 0


@pytest.mark.parametrize("rim", [(60, 25, 90, 90), (90, 25, 90, 90)], ids=["t1", "t1ce"])
def test_fluid_below_a_dura_that_was_left_on_is_a_ring_but_not_on_t2(rim):
    fluid = {"t1": layers(*rim), "t2": layers(70, 140, 60, 60)}
    numbers = ring_numbers(fluid, (1.0, 1.0, 1.0))
    assert numbers["ring t1"] < 0.5
    assert numbers["ring t2"] > 0.8
