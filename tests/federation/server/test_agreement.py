from __future__ import annotations

import pytest
import torch
from federation.server.agreement import Agreement, clipping, outliers


def seen(*parts):
    """Show an `Agreement` parts {site: numbers}, each with its own holders."""
    agreement = Agreement()
    for part in parts:
        agreement.add(list(part), torch.tensor(list(part.values()), dtype=torch.float64))
    return agreement.cosines()


def test_a_cosine_is_with_the_mean_of_the_others():
    found = seen({"A": [1.0, 0.0], "B": [1.0, 0.0], "C": [0.0, 1.0]})
    assert found["A"] == pytest.approx(0.5**0.5)
    assert found["C"] == pytest.approx(0.0, abs=1e-6)


def test_pieces_of_one_tensor_add_up():
    whole = seen({"A": [1.0, 2.0, 3.0], "B": [3.0, -1.0, 2.0]})
    pieces = seen({"A": [1.0, 2.0], "B": [3.0, -1.0]}, {"A": [3.0], "B": [2.0]})
    assert pieces == pytest.approx(whole)
    assert whole["A"] == pytest.approx(7 / (14 * 14) ** 0.5)


def test_only_what_another_site_holds_too_is_compared():
    shared = {"A": [1.0, 0.0], "B": [1.0, 0.0], "C": [2.0, 0.0]}
    found = seen(shared, {"A": [5.0, 5.0]}, {"B": [0.0, 3.0], "C": [0.0, -3.0]})
    assert found["A"] == pytest.approx(1.0)
    # (1, 0, 0, 3) and the means of the others (1.5, 0, 0, -3).
    assert found["B"] == pytest.approx((1.5 - 9) / (10 * 11.25) ** 0.5)


def test_without_another_or_without_a_move_there_is_none():
    assert seen({"A": [1.0]}) == {}
    assert seen({"A": [0.0], "B": [1.0]}) == {}
    assert seen() == {}


def test_a_huge_update_does_not_drown_the_others():
    small = {"A": [1.0, 1.0], "B": [1.0, 1.0]}
    found = seen({**small, "X": [1e30, -1e30]})
    assert found["X"] == pytest.approx(0.0, abs=1e-6)
    again = seen({**small, "X": [-1e30, -1e30]})
    assert again["X"] == pytest.approx(-1.0)


def test_the_one_that_points_against_the_others_is_marked():
    cosines = {"A": 0.35, "B": 0.3, "C": 0.4, "X": -0.61}
    assert outliers(cosines, {}) == {"X": ["points against the others (cosine -0.61)"]}


def test_one_of_three_sites_that_points_backwards_is_marked():
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(1000, generator=generator, dtype=torch.float64)
    a, b, x = (common + torch.randn(1000, generator=generator) for _ in range(3))
    cosines = seen({"A": a.tolist(), "B": b.tolist(), "X": (-x).tolist()})
    assert cosines["X"] == pytest.approx(-1 / 3**0.5, abs=0.05)
    assert list(outliers(cosines, {})) == ["X"]


def test_nobody_is_marked_where_the_others_do_not_agree():
    assert outliers({"A": -0.6, "X": -0.6}, {}) == {}
    assert outliers({"A": -0.3, "B": -0.2, "X": -0.6}, {}) == {}
    assert outliers({"A": 0.1, "B": 0.0, "X": -0.2}, {}) == {}


def test_a_norm_far_from_the_median_is_marked_in_its_group():
    norms = {
        "A": {"shared": 1.0, "t1": 1.0},
        "B": {"shared": 1.1, "t1": 9.0},
        "C": {"shared": 0.15},
        "X": {"shared": 6.0},
    }
    assert outliers({}, norms) == {
        "C": ["norm of shared is 0.15 times the median"],
        "X": ["norm of shared is 6 times the median"],
    }
    assert outliers({}, {"A": {"t1": 0.0}, "B": {"t1": 0.0}, "C": {"t1": 1.0}}) == {}


def test_norms_are_clipped_to_the_median_of_their_group():
    norms = {"A": {"shared": 1.0, "t1": 4.0}, "B": {"shared": 2.0, "t1": 1.0}, "C": {"shared": 8.0}}
    assert clipping(norms) == {
        "A": {"shared": 1.0, "t1": 0.25},
        "B": {"shared": 1.0, "t1": 1.0},
        "C": {"shared": 0.25},
    }
    assert clipping({"A": {"t1": 0.0}, "B": {"t1": 0.0}, "X": {"t1": 5.0}})["X"] == {"t1": 0.0}
