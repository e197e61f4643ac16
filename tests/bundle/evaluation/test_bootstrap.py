from __future__ import annotations

import numpy as np
import pytest

from bundle.evaluation.bootstrap import bootstrap_interval


def test_an_interval_excludes_what_it_should_and_holds_the_mean():
    noise = np.random.default_rng(1).normal(0, 0.01, (3, 16))
    low, high = bootstrap_interval(0.02 + noise)
    assert 0 < low < 0.02 + noise.mean() < high
    low, high = bootstrap_interval(noise - noise.mean())
    assert low < 0 < high


def test_an_interval_of_one_training_is_that_of_the_mean_of_its_cases():
    cases = np.random.default_rng(2).normal(0, 1, (1, 400))
    low, high = bootstrap_interval(cases)
    assert (high - low) / 2 == pytest.approx(1.96 * cases.std() / 20, rel=0.03)


def test_seeds_that_disagree_widen_an_interval_that_cases_alone_would_keep_narrow():
    agreeing = np.full((3, 16), 0.02)
    disagreeing = agreeing + np.array([[-0.03], [0.0], [0.03]])
    assert bootstrap_interval(agreeing) == pytest.approx((0.02, 0.02))
    low, high = bootstrap_interval(disagreeing)
    assert low == pytest.approx(-0.01)
    assert high == pytest.approx(0.05)


def test_cases_are_shared_by_the_seeds_and_not_drawn_for_each():
    # All seeds see the same hard cases: more of them must not make the interval narrower.
    cases = np.random.default_rng(3).normal(0, 1, (1, 16))
    one = bootstrap_interval(cases)
    assert bootstrap_interval(np.repeat(cases, 8, axis=0)) == pytest.approx(one, abs=0.02)


def test_the_same_differences_give_the_same_interval():
    differences = np.random.default_rng(4).normal(0, 1, (3, 16))
    assert bootstrap_interval(differences) == bootstrap_interval(differences)
