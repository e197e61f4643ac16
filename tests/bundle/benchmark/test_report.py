from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from bundle.benchmark.report import write_report
from bundle.benchmark.results import read_results


def squeezed(path):
    """A report without what aligns its tables in a terminal."""
    return re.sub(" +", " ", path.read_text(encoding="utf-8"))


@pytest.fixture
def report(grid, tmp_path):
    """Give report(): what the report on the records written so far says."""

    def read():
        return squeezed(write_report(read_results(grid, tmp_path), tmp_path))

    return read


def test_a_whole_grid_has_every_table_and_picture(grid, record, report, tmp_path):
    for run in grid.runs:
        record(grid, run, 0.6 + 0.1 * (run.label == "ours"))
    text = report()
    assert "**13 of 13 runs**." in text
    assert "| theirs | +10.00 [+10.00, +10.00] | +10.00 [+10.00, +10.00] |" in text
    for part in ("An abacus", "torch 9.9", "2031-02-03", "Seeds: 0, 1.", "A note.", "0.0 hours"):
        assert part in text
    assert "Everything at a glance" not in text
    regions = squeezed(tmp_path / "small" / "subsets.md")
    assert "## Missing ratio 0.5" in regions
    assert "| WT, given | ours | theirs |" in regions
    for name in ("dice.png", "ablation.png"):
        assert f"]({name})" in text
        assert (tmp_path / "small" / name).is_file()
    tables = {path.stem for path in (tmp_path / "small" / "tables").iterdir()}
    assert tables == {
        *("runs", "methods", "differences", "gains", "gaps", "ablation", "subsets", "costs"),
        *("scans", "scan_differences"),
    }
    assert text.endswith("|\n")


def test_a_grid_with_a_centre_starts_with_everything_at_a_glance(grid, record, tmp_path):
    central = replace(grid, centre=0.5)
    for run in grid.runs:
        record(grid, run, 0.6 + 0.1 * (run.label == "ours"))
    text = squeezed(write_report(read_results(central, tmp_path), tmp_path))
    spread = "\N{PLUS-MINUS SIGN} 0.0"
    unknown = " | \N{EN DASH}" * 4
    assert f"| ours | 70.0 {spread} | 70.0 | 70.0 | 70.0 (t1) | 30 | 45{unknown} |" in text
    assert f"| theirs | 60.0 {spread} | 60.0 | 60.0 | 60.0 (t1) | 30 | 45{unknown} |" in text
    assert "**The costs have not been measured in this folder yet.**" in text
    assert (tmp_path / "small" / "overview.png").is_file()
    assert (tmp_path / "small" / "tables" / "overview.csv").is_file()


def test_half_a_grid_says_how_much_is_there_and_shows_dashes(grid, record, report):
    record(grid, grid.runs[0])
    text = report()
    assert "**1 of 13 runs**." in text
    assert "| theirs | \N{EN DASH} | \N{EN DASH} |" in text
    assert "| less | \N{EN DASH} | \N{EN DASH} | \N{EN DASH} |" in text


def test_no_run_at_all_makes_a_report_too(report):
    text = report()
    assert "**0 of 13 runs**" in text
    assert "No run has finished yet." in text


def test_runs_that_were_not_possible_are_counted_and_named(grid, record, report):
    record(grid, grid.runs[1], not_possible="no case of 3 has t1")
    text = report()
    assert "**1 of 13 runs**, 1 of them not possible for want of complete cases." in text
    assert "| theirs | no complete case | \N{EN DASH} |" in text


def test_runs_of_different_configs_are_owned_up_to(grid, record, report):
    record(grid, grid.runs[0])
    assert "Not all runs had the same" not in report()
    record(grid, grid.runs[1], files={"configs/train.json": "bbbbbbbb"})
    assert "**Not all runs had the same configs/train.json.**" in report()


def test_runs_on_a_gpu_are_told_from_those_on_the_processor(grid, record, report):
    record(grid, grid.runs[0])
    assert "runs trained on" not in report()
    record(grid, grid.runs[1], device="A fast card")
    assert "- 1 of 2 runs trained on A fast card, which several runs shared" in report()


def test_making_the_report_again_changes_nothing(grid, record, report):
    for run in grid.runs[:5]:
        record(grid, run)
    assert report() == report()


def test_cost_and_rebuilding_stand_in_the_report_once_they_were_measured(report, tmp_path):
    assert "Cost beside" not in report()
    names = ("step of stage 1", "step of stage 2", "window", "window, not personalised")
    ratios = {**dict.fromkeys(names, 1.25), "memory of a window": 1.5}
    settings = {"repeats": 3, "crop": 8, "batch": 2, "window": 16}
    costs = {"ratios": ratios, "settings": settings, "date": "2031-02-03T04:05:06"}
    (tmp_path / "cost.json").write_text(json.dumps(costs))
    rebuilt = {"marginal, seed 0": {"psnr": [20.0], "ssim": [0.5]}}
    (tmp_path / "rebuilding.json").write_text(json.dumps(rebuilt))
    text = report()
    assert "`--grid cost`, 2031-02-03: medians of 3 turns" in text
    assert "| memory of a window | 1.50 | 1.15 |" in text
    assert "| marginal | 20.00 (20.00 to 20.00) | 0.500 (0.500 to 0.500) |" in text


def test_sections_are_parted_by_one_empty_line_and_lists_by_none(grid, record, report):
    for run in grid.runs:
        record(grid, run)
    lines = report().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("#"):
            assert lines[number + 1] == ""
            assert number == 0 or (lines[number - 1], lines[number - 2] != "") == ("", True)
    facts = [number for number, line in enumerate(lines) if line.startswith("- ")]
    assert facts == list(range(facts[0], facts[0] + 5))
