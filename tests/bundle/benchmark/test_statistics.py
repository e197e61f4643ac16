from __future__ import annotations

import numpy as np
import pytest

from bundle.benchmark.results import Results
from bundle.benchmark.statistics import (
    bootstrap_interval,
    gap_closed,
    mean_and_spread,
    paired_difference,
    specialists_dice,
)


def by_seed(plan_run, result_of, label, dice):
    """Results of a label whose Dice in seed s and case c is dice[s][c]."""
    found = {}
    for seed, row in enumerate(dice):
        values = dict(zip("abcd", row, strict=True))
        run = plan_run("main", label, seed=seed)
        found[seed] = result_of(run, lambda subset, region, case, values=values: values[case])
    return found


def test_differences_are_paired_by_seed_and_case(plan_run, result_of):
    # The methods differ by 0.1, though seeds and cases differ by much more.
    base = np.array([[0.1, 0.4, 0.6, 0.8], [0.2, 0.5, 0.3, 0.7]])
    first = by_seed(plan_run, result_of, "ours", base + 0.1)
    second = by_seed(plan_run, result_of, "theirs", base)
    found = paired_difference(first, second)
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert (found.seeds, found.cases) == (2, 4)


def test_only_seeds_that_both_have_count(plan_run, result_of):
    first = by_seed(plan_run, result_of, "ours", [[0.5] * 4, [0.9] * 4])
    second = by_seed(plan_run, result_of, "theirs", [[0.25] * 4])
    assert paired_difference(first, second).mean == pytest.approx(0.25)
    assert paired_difference(first, {}) is None


def test_other_cases_or_subsets_are_refused(plan_run, result_of):
    first = by_seed(plan_run, result_of, "ours", [[0.5] * 4])
    second = {0: result_of(plan_run("main", "theirs"), cases=["a", "b", "c", "x"])}
    with pytest.raises(ValueError, match="main-theirs-0-0 tested on the same cases and subsets"):
        paired_difference(first, second)
    second = {0: result_of(plan_run("main", "theirs", subsets=("t1",)))}
    with pytest.raises(ValueError, match="3 and 1 subsets"):
        paired_difference(first, second)


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


def test_spread_is_that_of_a_sample():
    assert mean_and_spread([]) == (None, None)
    assert mean_and_spread([0.5]) == (0.5, None)
    assert mean_and_spread([0.4, 0.6]) == pytest.approx((0.5, 0.02**0.5))


def test_a_gap_is_closed_by_its_share_or_not_there():
    assert gap_closed(0.65, 0.6, 0.8) == pytest.approx(0.25)
    assert gap_closed(0.9, 0.6, 0.8) == pytest.approx(1.5)
    assert gap_closed(0.5, 0.6, 0.8) == pytest.approx(-0.5)
    assert gap_closed(0.65, 0.8, 0.8) is None


def test_specialists_count_once_all_of_them_are_there(grid, result_of):
    runs = [run for run in grid.runs if run.group == "specialist"]
    found = {run.name: result_of(run, 0.6 + 0.1 * place) for place, run in enumerate(runs)}
    expected = {"t1": 0.6, "flair": 0.7, "t1+flair": 0.8}
    assert specialists_dice(Results(grid, found)) == pytest.approx(expected)
    found.pop(runs[0].name)
    assert specialists_dice(Results(grid, found)) == {}
