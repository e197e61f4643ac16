from __future__ import annotations

import pytest

from bundle.evaluation.tables import markdown


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
