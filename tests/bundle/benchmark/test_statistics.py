from __future__ import annotations

import numpy as np
import pytest

from bundle.benchmark.results import Results
from bundle.benchmark.statistics import (
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
