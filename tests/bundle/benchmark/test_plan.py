from __future__ import annotations

from dataclasses import replace

import pytest

from bundle.benchmark.grids import main
from bundle.benchmark.plan import Change, RunGrid, _stated
from bundle.phantom import parameters


def test_a_name_may_come_once(grid):
    first = grid.runs[0]
    with pytest.raises(ValueError, match=f"expected each name once, got {first.name} twice"):
        replace(grid, runs=(*grid.runs, first))


def test_changes_need_the_ratio_at_which_they_are_compared(grid):
    changes = (Change("theirs", "ours", "ours, poorer"),)
    with pytest.raises(ValueError, match="grid small: expected a centre"):
        replace(grid, changes=changes)
    assert replace(grid, changes=changes, centre=0.5).changes == changes


def test_a_digest_changes_with_the_run_alone(grid):
    before = grid.digests()
    assert before == replace(grid, notes=()).digests()
    changed = replace(grid.runs[0], stages=(replace(grid.runs[0].stages[0], epochs=4),))
    after = RunGrid("small", "ours", "theirs", (changed, *grid.runs[1:])).digests()
    different = {name for name in before if before[name] != after[name]}
    assert different == {changed.name}


def test_digests_do_not_depend_on_the_order_of_overrides(grid, plan_run):
    runs = []
    for overrides in ({"a": 1, "b": 2}, {"b": 2, "a": 1}):
        stage = replace(grid.runs[0].stages[0], overrides=overrides)
        runs.append(plan_run("main", "ours", stages=(stage,)))
    first, second = (RunGrid("g", "ours", "ours", (run,)).digests() for run in runs)
    assert first == second


def test_a_digest_leaves_out_what_is_not_stated():
    """A field that is added later must not make finished runs count for nothing."""
    assert _stated({"a": 1, "later": None}) == {"a": 1}


def test_results_on_heads_of_another_version_do_not_count(monkeypatch):
    digests = main(seeds=(0,)).digests()
    monkeypatch.setitem(parameters.VERSIONS, "icbm152", 1000)
    assert not set(digests.values()) & set(main(seeds=(0,)).digests().values())


def test_results_on_ellipsoids_keep_their_digests(grid, monkeypatch):
    digests = grid.digests()
    monkeypatch.setitem(parameters.VERSIONS, "icbm152", 1000)
    assert grid.digests() == digests
