from __future__ import annotations

import math

import pytest
from federation.protocol.scoring import dice_sums, mean_dice, merge, read_sums, standing, table

from bundle.evaluation.metrics import Score

MODALITIES = ("t1", "t2")
ROWS = [
    Score("patient-7", "t1", "WT", 0.5, math.nan),
    Score("patient-8", "t1", "WT", 0.7, math.nan),
    Score("patient-7", "t1+t2", "WT", 0.9, math.nan),
]


def test_scores_travel_without_names():
    sums = dice_sums(ROWS)
    assert sums == {"t1": {"WT": [1.2, 2]}, "t1+t2": {"WT": [0.9, 1]}}
    assert "patient" not in repr(sums)


def test_the_mean_is_over_cases_then_subsets():
    assert mean_dice(dice_sums(ROWS)) == pytest.approx((0.6 + 0.9) / 2)
    assert mean_dice({}) is None


def test_every_case_counts_once():
    other = {"t1": {"WT": [0.3, 1]}, "t2": {"WT": [0.4, 2]}}
    assert merge([dice_sums(ROWS), other]) == {
        "t1": {"WT": [1.5, 3]},
        "t1+t2": {"WT": [0.9, 1]},
        "t2": {"WT": [0.4, 2]},
    }
    assert dice_sums(ROWS)["t1"]["WT"] == [1.2, 2]


def test_the_worst_site_is_named_and_empty_ones_do_not_count():
    found = standing({"b": {"t1": {"WT": [0.2, 1]}}, "a": dice_sums(ROWS), "c": {}})
    assert found["worst_site"] == "b"
    assert found["worst"] == pytest.approx(0.2)
    assert found["mean"] == pytest.approx((0.75 + 0.2) / 2)
    assert found["sites"]["c"] is None
    assert standing({"c": {}}) == {
        "mean": None,
        "worst": None,
        "worst_site": None,
        "sites": {"c": None},
    }


def test_the_table_has_the_means_and_a_dash_where_nobody_can():
    lines = table(dice_sums(ROWS), MODALITIES).splitlines()
    cells = [cell.strip() for cell in lines[-1].split("|")[2:-1]]
    assert sorted(cells) == sorted(["60.0", "–", "90.0", "75.0"])  # noqa: RUF001


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "^site A: expected scores by subset"),
        ({"t3": {}}, "expected scores by subset"),
        ({"t1": 3}, r"site A, subset t1: expected \[sum of Dice, number of cases\].*, got None"),
        ({"t1": {"WT": [0.1]}}, r"got \[0.1\]"),
        (
            {"t1": {"WT": [math.nan, 1]}},
            "site A, subset t1: expected a sum of Dice from 0 to the number of cases, 1, got",
        ),
        (
            {"t1": {"WT": [1.5, 1]}},
            "site A, subset t1: expected a sum of Dice from 0 to the number of cases, 1, got",
        ),
    ],
)
def test_what_are_no_scores_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        read_sums(value, MODALITIES, "A")


def test_scores_are_read_as_they_were_sent():
    assert read_sums(dice_sums(ROWS), MODALITIES, "A") == dice_sums(ROWS)
