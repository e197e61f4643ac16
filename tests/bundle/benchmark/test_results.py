from __future__ import annotations

from dataclasses import replace

import pytest

from bundle.benchmark.plan import RunGrid
from bundle.benchmark.results import (
    compact_dice,
    read_result,
    read_results,
    record_path,
)
from bundle.evaluation.metrics import Score


def rows(*left_out: str) -> list[Score]:
    return [
        Score(case, subset, region, ord(case) / 1000 + 0.00001, float("nan"))
        for case in ("b", "a")
        for subset in ("t1", "t2")
        for region in ("TC", "WT")
        if f"{case} {subset}" not in left_out
    ]


def test_dice_is_kept_by_subset_and_region_in_the_order_of_the_cases():
    cases, dice = compact_dice(rows())
    assert cases == ["a", "b"]
    assert dice == {s: {"TC": [0.097, 0.098], "WT": [0.097, 0.098]} for s in ("t1", "t2")}


def test_a_subset_that_some_case_lacks_is_refused():
    with pytest.raises(ValueError, match="expected Dice of 2 cases for TC of t2, got 1"):
        compact_dice(rows("a t2"))


def test_means_go_over_regions_then_subsets(result_of, plan_run):
    known = {"t1": 0.1, "flair": 0.2, "t1+flair": 0.6}
    result = result_of(
        plan_run("main", "ours"),
        lambda subset, region, case: known[subset] + 0.1 * (region == "WT") + (case == "d"),
    )
    assert result.scores["t1"].shape == (4, 2)
    assert result.regions == ["TC", "WT"]
    for subset, dice in known.items():
        assert result.region_means[subset].tolist() == pytest.approx([dice + 0.25, dice + 0.35])
    assert result.case_means.tolist() == pytest.approx([0.35, 0.35, 0.35, 1.35])
    assert result.dice == pytest.approx(0.6)


def test_costs_add_up_over_stages(result_of, plan_run):
    stages = [
        {"epochs": 2, "steps": 20, "plain_steps": 14.5, "cpu_seconds": 3.0},
        {"epochs": 4, "steps": 40, "plain_steps": 50.0, "cpu_seconds": 10.0},
    ]
    result = result_of(plan_run("main", "ours"), stages=stages)
    assert (result.steps, result.plain_steps, result.cpu_seconds) == (60, 64.5, 13.0)


def test_a_record_counts_only_for_the_plan_that_it_was_made_by(grid, record, tmp_path):
    run = grid.runs[0]
    assert read_result(run, grid.digests()[run.name], tmp_path) == ("missing", None)
    record(grid, run)
    state, result = read_result(run, grid.digests()[run.name], tmp_path)
    assert (state, result.run) == ("finished", run)
    changed = RunGrid("small", "ours", "theirs", (replace(run, seed=7),))
    assert read_result(run, changed.digests()[run.name], tmp_path) == ("changed", None)
    assert list(read_results(grid, tmp_path).finished) == [run.name]
    assert read_results(changed, tmp_path).finished == {}


def test_a_record_of_sixteen_cases_is_small(grid, record, tmp_path):
    from bundle.benchmark.results import write_record

    scores = [
        Score(f"Phantom_{case:04}", f"subset_number_{subset}", region, 0.12345, 0.0)
        for case in range(16)
        for subset in range(15)
        for region in ("TC", "WT", "ET")
    ]
    path = record_path(tmp_path, "large")
    write_record(dict(zip(("cases", "dice"), compact_dice(scores), strict=True)), path)
    assert path.stat().st_size < 20_000


def test_a_cell_holds_its_seeds_and_leaves_out_what_was_not_possible(grid, record, tmp_path):
    runs = {run.name: run for run in grid.runs}
    record(grid, runs["main-ours-0.5-0"])
    record(grid, runs["main-ours-0.5-1"], not_possible="no case of 3 has t1")
    results = read_results(grid, tmp_path)
    assert list(results.of("main", "ours", 0.5)) == [0]
    assert results.why_not("main", "ours", 0.5) == "no case of 3 has t1"
    assert results.why_not("main", "ours", 0.0) == ""
    assert results.labels("main") == ["ours", "theirs"]
    assert results.ratios("main") == [0.0, 0.5]
