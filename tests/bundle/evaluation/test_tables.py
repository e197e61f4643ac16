from __future__ import annotations

import json
import math
import re

import pytest

from bundle.evaluation.metrics import Score
from bundle.evaluation.summary import summarise
from bundle.evaluation.tables import (
    markdown,
    markdown_table,
    read_csv,
    rules_line,
    write_csv,
    write_json,
)
from bundle.modalities import BRATS_MODALITIES
from bundle.regions import BRATS_REGIONS

SMALL = ("ct", "pet")
GIVEN, WITHHELD, DASH = "\N{BLACK CIRCLE}", "\N{WHITE CIRCLE}", "\N{EN DASH}"


def test_table_of_a_small_vocabulary(small_rows):
    table = markdown_table(summarise(small_rows(), SMALL, ["tumour"]))
    expected = [
        "| ct             |    1 |   0 |    1 | mean |",
        "| :------------- | ---: | --: | ---: | ---: |",
        "| pet            |    0 |   1 |    1 |      |",
    ]
    marked = [line.replace("1", GIVEN).replace("0", WITHHELD) for line in expected]
    assert table.splitlines() == [
        *marked,
        f"| Dice tumour %  | 60.0 |   {DASH} | 90.0 | 75.0 |",
        f"| HD95 tumour mm |  3.0 |   {DASH} |  2.0 |  2.5 |",
    ]
    assert table.endswith("|\n")


def test_brats_table_is_aligned_and_fits_a_terminal(brats_rows):
    lines = markdown_table(
        summarise(brats_rows, BRATS_MODALITIES, list(BRATS_REGIONS))
    ).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= 130
    assert {line.count("|") for line in lines} == {18}
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [line[0] for line in cells[:5]] == ["flair", ":-----------", "t1", "t1ce", "t2"]
    first, last = ([line[i] for line in (cells[0], *cells[2:5])] for i in (1, 15))
    assert first == [WITHHELD] * 3 + [GIVEN]
    assert last == [GIVEN] * 4
    assert [line[0] for line in cells[5:9]] == [
        "Dice WT %",
        "Dice TC %",
        "Dice ET %",
        "Dice mean %",
    ]
    assert [cells[8][1], cells[8][15], cells[8][16]] == ["25.0", "100.0", "53.3"]


def test_table_leaves_out_distances_that_were_not_computed(small_rows):
    summary = summarise(small_rows(hd95=math.nan), SMALL, ["tumour"])
    assert summary["mean"]["hd95"] == {"tumour": None}
    assert "HD95" not in markdown_table(summary)


def test_csv_keeps_every_digit(tmp_path, small_rows):
    rows = [
        Score('c,"1"', "ct", "tumour", 2 / 3, 0.1, 1 / 7, -0.25),
        Score("ä", "ct+pet", "tumour", 1.0, math.inf, 1.0, 0.0),
    ]
    write_csv(rows, tmp_path / "deep" / "scores.csv")
    assert read_csv(tmp_path / "deep" / "scores.csv") == rows
    write_csv(small_rows(math.nan), tmp_path / "nan.csv")
    assert math.isnan(read_csv(tmp_path / "nan.csv")[0].hd95)


def test_a_table_of_an_earlier_version_has_no_nsd(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("case,subset,region,dice,hd95\na,ct,tumour,0.5,2.0\n")
    (row,) = read_csv(path)
    assert (row.dice, row.hd95) == (0.5, 2.0)
    assert math.isnan(row.nsd)
    assert math.isnan(row.bias_ml)


def test_table_shows_nsd_bias_and_how_many_distances_are_infinite():
    rows = [
        Score("a", "ct", "tumour", 0.5, math.inf, 0.0, -2.0),
        Score("b", "ct", "tumour", 0.7, 4.0, 0.5, 1.0),
    ]
    lines = re.sub(" +", " ", markdown_table(summarise(rows, SMALL, ["tumour"]))).splitlines()
    dash = "\N{EN DASH}"
    assert lines[-4:] == [
        f"| HD95 tumour mm | 4.0 | {dash} | {dash} | 4.0 |",
        "| HD95 tumour infinite | 1 | 0 | 0 | |",
        f"| NSD tumour % | 25.0 | {dash} | {dash} | 25.0 |",
        f"| bias tumour mL | -0.5 | {dash} | {dash} | -0.5 |",
    ]
    assert rules_line("inf", 1.0).startswith(
        "HD95 where exactly one of prediction and reference is empty: inf mm. NSD: within 1 mm."
    )


def test_json_is_strict_and_a_failure_leaves_the_old_file(tmp_path, small_rows):
    path = tmp_path / "summary.json"
    summary = summarise(small_rows(math.nan), SMALL, ["tumour"])
    write_json(summary, path)
    assert json.loads(path.read_text()) == summary
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json({"dice": math.nan}, path)
    assert json.loads(path.read_text()) == summary
    assert list(tmp_path.iterdir()) == [path]


def test_the_first_column_is_to_the_left_and_the_others_to_the_right():
    assert markdown(["", "Dice %"], [["universal", "7.5"], ["GMD", "12.25 (n = 1)"]]) == (
        "|           |        Dice % |\n"
        "| :-------- | ------------: |\n"
        "| universal |           7.5 |\n"
        "| GMD       | 12.25 (n = 1) |\n"
    )


def test_the_narrowest_column_is_one_that_github_takes_for_a_table():
    assert markdown(["", "a"], []).splitlines() == ["|     |   a |", "| :-- | --: |"]


def test_a_bar_in_a_cell_ends_no_column():
    line = markdown(["name", "b"], [["t1|t2", "1"]]).splitlines()[2]
    assert line == r"| t1\|t2 |   1 |"


@pytest.mark.parametrize("row", [["a"], ["a", "b", "c"]])
def test_a_row_of_another_length_is_named(row):
    with pytest.raises(ValueError, match=rf"expected 2 cells, .*\['', 'Dice'\], got {len(row)}"):
        markdown(["", "Dice"], [["x", "y"], row])


def test_columns_of_words_go_to_the_left():
    table = markdown(["id", "meaning", "n"], [["a", "what it is", "1"]], left=2)
    assert table.splitlines() == [
        "| id  | meaning    |   n |",
        "| :-- | :--------- | --: |",
        "| a   | what it is |   1 |",
    ]
