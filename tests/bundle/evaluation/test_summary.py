from __future__ import annotations

import math

import pytest

from bundle.evaluation.metrics import Score
from bundle.evaluation.summary import summarise
from bundle.modalities import BRATS_MODALITIES
from bundle.regions import BRATS_REGIONS

SMALL = ("ct", "pet")


def test_summary_averages_cases_within_a_subset_and_then_subsets(small_rows):
    summary = summarise(small_rows(), SMALL, ["tumour"])
    assert summary["cases"] == 2
    assert summary["subsets"]["ct"] == {
        "cases": 2,
        "dice": {"tumour": pytest.approx(0.6)},
        "hd95": {"tumour": 3.0},
        "nsd": {"tumour": None},
        "bias_ml": {"tumour": None},
        "lost": {"tumour": 0},
    }
    assert summary["subsets"]["pet"] == {
        "cases": 0,
        "dice": {"tumour": None},
        "hd95": {"tumour": None},
        "nsd": {"tumour": None},
        "bias_ml": {"tumour": None},
        "lost": {"tumour": 0},
    }
    assert summary["mean"]["dice"]["tumour"] == pytest.approx(0.75)
    assert summary["mean"]["hd95"]["tumour"] == 2.5
    assert summary["mean"]["dice_all"] == pytest.approx(0.75)
    assert summary["worst_subset"] == {"name": "ct", "dice": pytest.approx(0.6)}


def test_infinite_distances_are_counted_and_left_out_of_the_mean():
    rows = [
        Score("a", "ct", "tumour", 0.5, math.inf, 0.0, -2.0),
        Score("b", "ct", "tumour", 0.7, 4.0, 0.5, 1.0),
    ]
    entry = summarise(rows, SMALL, ["tumour"])["subsets"]["ct"]
    assert (entry["hd95"], entry["lost"]) == ({"tumour": 4.0}, {"tumour": 1})
    assert (entry["nsd"], entry["bias_ml"]) == ({"tumour": 0.25}, {"tumour": -0.5})


def test_brats_subsets_and_regions_stand_in_the_papers_order(brats_rows):
    summary = summarise(brats_rows, BRATS_MODALITIES, list(BRATS_REGIONS))
    names = list(summary["subsets"])
    assert (len(names), names[0], names[-1]) == (15, "t2", "t1+t1ce+t2+flair")
    assert summary["regions"] == ["WT", "TC", "ET"]
    assert summary["mean"]["dice_all"] == pytest.approx((4 * 1 + 6 * 2 + 4 * 3 + 4) / 4 / 15)


def test_rows_of_another_vocabulary_are_refused():
    with pytest.raises(ValueError, match="at least one score row, got none"):
        summarise([], SMALL, ["tumour"])
    with pytest.raises(
        ValueError, match=r"case a: expected a subset of 'ct[+]pet'.*got subset 'mr'"
    ):
        summarise([Score("a", "mr", "tumour", 1.0, 0.0)], SMALL, ["tumour"])
