from __future__ import annotations

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
    }
    assert summary["subsets"]["pet"] == {
        "cases": 0,
        "dice": {"tumour": None},
        "hd95": {"tumour": None},
    }
    assert summary["mean"]["dice"]["tumour"] == pytest.approx(0.75)
    assert summary["mean"]["hd95"]["tumour"] == 2.5
    assert summary["mean"]["dice_all"] == pytest.approx(0.75)
    assert summary["worst_subset"] == {"name": "ct", "dice": pytest.approx(0.6)}


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
