from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from bundle.benchmark.plan import Change, RunGrid
from bundle.benchmark.results import read_results
from bundle.benchmark.tables import all_tables, write_csv

# What each label reaches; a case adds its own part, which pairing must cancel.
DICE = {"ours": 0.7, "theirs": 0.6, "less": 0.65, "t1": 0.8, "flair": 0.75, "t1+flair": 0.85}
CASE = {"a": 0.0, "b": 0.04, "c": -0.04, "d": 0.0}


def dice_of(run):
    level = DICE[run.label] - 0.2 * run.ratio + 0.02 * run.seed

    def dice(subset, region, case):
        return level + CASE[case] - (0.03 if (subset, run.group) == ("t1", "main") else 0.0)

    return dice


@pytest.fixture
def tables(grid, record, tmp_path):
    """Give tables(left out): the tables of a grid whose other runs have finished."""

    def make(*left_out):
        for run in grid.runs:
            if run.name not in left_out:
                record(grid, run, dice_of(run))
        return all_tables(read_results(grid, tmp_path))

    return make


def pick(rows, **values):
    (row,) = [r for r in rows if all(r[key] == value for key, value in values.items())]
    return row


def test_methods_have_mean_spread_and_worst_subset(tables):
    row = pick(tables()["methods"], method="ours", ratio=0.5, comparison="equal work")
    assert row["dice"] == pytest.approx(0.7 - 0.1 + 0.01 - 0.01)
    assert row["spread"] == pytest.approx(0.02 / 2**0.5)
    assert (row["seeds"], row["worst_subset"]) == (2, "t1")
    assert row["worst_dice"] == pytest.approx(0.7 - 0.1 + 0.01 - 0.03)


def test_differences_are_exact(tables):
    rows = tables()["differences"]
    assert {row["other"] for row in rows} == {"theirs"}
    for ratio in (0.0, 0.5):
        row = pick(rows, ratio=ratio, comparison="equal work")
        assert [row[k] for k in ("difference", "low", "high")] == pytest.approx([0.1] * 3)
        assert (row["seeds"], row["cases"]) == (2, 4)


def test_the_gap_to_the_specialists_is_closed_by_its_share(tables):
    row = pick(tables()["gaps"], ratio=0.0, comparison="equal work")
    assert row["specialists"] == pytest.approx(0.8)
    assert row["baseline"] == pytest.approx(0.6)
    assert row["closed"] == pytest.approx(0.5)


def test_a_gap_is_measured_on_the_seeds_that_both_have(tables):
    row = pick(tables("main-ours-0-1")["gaps"], ratio=0.0, comparison="equal work")
    assert (row["method"], row["seeds"]) == ("ours", 1)
    assert (row["dice"], row["baseline"]) == pytest.approx((0.69, 0.59))


def test_gains_are_what_a_method_has_over_the_baseline(tables):
    rows = tables()["gains"]
    assert {row["method"] for row in rows} == {"ours"}
    for ratio in (0.0, 0.5):
        assert pick(rows, ratio=ratio, comparison="equal work")["difference"] == pytest.approx(0.1)


def test_rates_by_modality_are_a_ratio_of_their_own(grid, plan_run, record, tmp_path):
    uneven = replace(plan_run("main", "ours", 0.5), name="uneven", rates=(0.2, 0.8))
    grid = replace(grid, runs=(*grid.runs, uneven))
    for run in grid.runs:
        record(grid, run, 0.3 if run is uneven else 0.7)
    found = all_tables(read_results(grid, tmp_path))
    assert list(dict.fromkeys(row["ratio"] for row in found["methods"])) == [0.0, 0.5, "0.2/0.8"]
    assert pick(found["methods"], method="ours", ratio="0.2/0.8")["dice"] == pytest.approx(0.3)
    row = pick(found["methods"], method="ours", ratio=0.5, comparison="equal work")
    assert (row["dice"], row["seeds"]) == (pytest.approx(0.7), 2)
    assert pick(found["runs"], run="uneven")["ratio"] == "0.2/0.8"


def test_an_ablation_may_be_of_another_method_than_the_reference(grid, plan_run, record, tmp_path):
    other = plan_run("ablation", "theirs, less", 0.5, whole="theirs")
    grid = replace(grid, runs=(*grid.runs, other))
    for run in grid.runs:
        record(grid, run, {"ours": 0.9, "theirs": 0.6, "theirs, less": 0.5}.get(run.label, 0.7))
    rows = all_tables(read_results(grid, tmp_path))["ablation"]
    assert {row["change"]: row["whole"] for row in rows} == {
        "less": "ours",
        "theirs, less": "theirs",
    }
    assert pick(rows, change="less")["difference"] == pytest.approx(-0.2)
    assert pick(rows, change="theirs, less")["difference"] == pytest.approx(-0.1)


def test_compared_methods_that_differ_in_one_thing_are_ablations_too(grid, record, tmp_path):
    changes = (Change("theirs", "ours", "ours, poorer"),)
    grid = replace(grid, centre=0.5, changes=changes)
    for run in grid.runs:
        record(grid, run, 0.1 * (run.label == "ours") + 0.4)
    rows = all_tables(read_results(grid, tmp_path))["ablation"]
    assert [row["change"] for row in rows] == ["ours, poorer", "less"]
    assert (rows[0]["dice"], rows[0]["difference"]) == pytest.approx((0.4, -0.1))
    assert [rows[0][name] for name in ("whole", "ratio", "seeds")] == ["ours", 0.5, 2]


def test_regions_have_columns_of_their_own(grid, record, tmp_path):
    for run in grid.runs:
        record(grid, run, lambda subset, region, case: 0.2 if region == "TC" else 0.6)
    found = all_tables(read_results(grid, tmp_path))
    for name, keys in (("methods", {"method": "ours"}), ("subsets", {"method": "specialists"})):
        row = next(r for r in found[name] if keys.items() <= r.items())
        assert [row[k] for k in ("TC", "WT", "dice")] == pytest.approx([0.2, 0.6, 0.4])


def test_the_overview_joins_dice_with_the_work_and_the_costs(grid, record, tmp_path):
    names = {"ours": "universal", "theirs": "modality_dropout"}
    runs = tuple(replace(run, label=names.get(run.label, run.label)) for run in grid.runs)
    grid = RunGrid("small", "universal", "modality_dropout", runs, centre=0.5)
    two = [
        {"steps": 20, "plain_steps": 14.0, "training_cases": 3, "cpu_seconds": 2.0},
        {"steps": 40, "plain_steps": 86.0, "training_cases": 3, "cpu_seconds": 9.0},
    ]
    for run in grid.runs:
        others = {"stages": two} if run.label == "universal" else {}
        record(grid, run, {"universal": 0.7}.get(run.label, 0.6), **others)
    costs = {
        "seconds": {"plain step": 2.0, "stage 2 step": 5.0},
        "parameters": {"plain": 100, "personalised": 110},
    }
    first, second, third = all_tables(read_results(grid, tmp_path), costs)["overview"]
    assert [row["method"] for row in (first, second, third)] == [
        "universal",
        "modality_dropout",
        "specialists",
    ]
    assert [row["dice"] for row in (first, second, third)] == pytest.approx([0.7, 0.6, 0.6])
    assert [row["seeds"] for row in (first, second, third)] == [2, 2, 1]
    assert [(row["steps"], row["work"]) for row in (first, second)] == [(60, 100), (30, 45)]
    assert (first["step"], second["step"], first["parameters"]) == (2.5, 1.0, 1.1)
    assert (third["step"], third["parameters"], first["inference"]) == (1.0, 15.0, None)


def by_count(subset, region, case):
    """Dice that two scans raise by 0.2."""
    return 0.5 + CASE[case] + 0.2 * ("+" in subset)


def test_dice_is_told_by_how_many_scans_are_given(grid, record, tmp_path):
    for run in grid.runs:
        record(grid, run, by_count)
    rows = all_tables(read_results(grid, tmp_path))["scans"]
    row = pick(rows, method="ours", ratio=0.5)
    # Two subsets of one scan, one of two.
    assert (row["given 1"], row["given 2"]) == pytest.approx((0.5, 0.7))
    assert (row["mean"], row["seeds"]) == (pytest.approx(1.7 / 3), 2)
    assert pick(rows, method="less", ratio=0.5)["given 1"] == pytest.approx(0.5)


def test_differences_to_the_baseline_are_told_by_how_many_scans_are_given(grid, record, tmp_path):
    for run in grid.runs:
        record(grid, run, by_count if run.label == "ours" else 0.5)
    rows = all_tables(read_results(grid, tmp_path))["scan_differences"]
    found = {
        row["given"]: row["difference"]
        for row in rows
        if row["method"] == "ours" and row["ratio"] == 0.5
    }
    assert found == pytest.approx({1: 0.0, 2: 0.2, "any": 0.2 / 3})
    assert {row["method"] for row in rows} == {"ours", "less"}


def test_a_curve_tells_what_each_doubling_brought(grid, plan_run, record, tmp_path):
    runs = tuple(plan_run("main", str(n), 0.5, seed) for seed in (0, 1) for n in (5, 10, 20))
    grid = RunGrid("lengths", "5", "5", runs)
    for run in runs[:5]:
        record(grid, run, {"5": 0.4, "10": 0.5, "20": 0.52}[run.label])
    rows = all_tables(read_results(grid, tmp_path))["curve"]
    assert [row["steps"] for row in rows] == [5, 10, 20]
    assert [row["seeds"] for row in rows] == [2, 2, 1]
    assert rows[0]["difference"] is None
    assert [row["difference"] for row in rows[1:]] == pytest.approx([0.1, 0.02])


def test_an_ablation_is_what_it_changes(tables):
    (row,) = tables()["ablation"]
    assert (row["change"], row["ratio"]) == ("less", 0.5)
    assert row["difference"] == pytest.approx(-0.05 + 0.01)


def test_subsets_come_with_the_specialists_where_nothing_is_missing(tables):
    rows = tables()["subsets"]
    assert pick(rows, ratio=0.0, subset="t1", method="specialists")["dice"] == pytest.approx(0.8)
    assert pick(rows, ratio=0.5, subset="t1", method="ours")["dice"] == pytest.approx(0.58)
    assert not [row for row in rows if row["ratio"] == 0.5 and row["method"] == "specialists"]


def test_costs_are_means_of_one_training(tables):
    row = pick(tables()["costs"], method="specialists")
    assert [row[k] for k in ("runs", "steps", "cpu_seconds", "cpu_ms_per_step")] == [3, 30, 6, 200]


def test_costs_of_two_devices_are_not_mixed(grid, record, tmp_path):
    on_gpu, *others = (run for run in grid.runs if run.label == "less")
    record(grid, on_gpu, device="GPU")
    for run in others:
        record(grid, run)
    rows = all_tables(read_results(grid, tmp_path))["costs"]
    found = [(row["device"], row["runs"]) for row in rows if row["method"] == "less"]
    assert found == [("GPU", 1), ("cpu", 1)]
    assert pick(rows, method="ours")["device"] == ""


def test_what_is_missing_is_none_and_costs_no_other_number(tables):
    found = tables("main-ours-0.5-0", "main-ours-0.5-1", "specialist-t1-0-0", "ablation-less-0.5-0")
    row = pick(found["methods"], method="ours", ratio=0.5)
    assert (row["dice"], row["worst_subset"], row["seeds"]) == (None, None, 0)
    assert pick(found["differences"], ratio=0.5, comparison="equal work")["difference"] is None
    assert pick(found["differences"], ratio=0.0, comparison="equal work")["difference"] is not None
    assert {row["closed"] for row in found["gaps"]} == {None}
    assert found["ablation"][0]["difference"] is None
    assert found["ablation"][0]["dice"] == pytest.approx(0.65 - 0.1 + 0.02)
    assert [r["state"] for r in found["runs"] if r["run"] == "main-ours-0.5-0"] == ["missing"]


def test_nothing_at_all_still_makes_tables(grid, tmp_path):
    found = all_tables(read_results(grid, tmp_path))
    assert all(row["dice"] is None for row in found["methods"])
    assert "subsets" not in found


def test_csv_files_hold_the_numbers_with_gaps_for_what_is_missing(tmp_path):
    write_csv([{"a": 1 / 3, "b": None, "c": "x,y"}, {"a": 2, "b": 0.5, "c": ""}], tmp_path / "t")
    with (tmp_path / "t").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"a": "0.333333", "b": "", "c": "x,y"}, {"a": "2", "b": "0.5", "c": ""}]
