"""The published profile, and how like it another one is."""

import numpy as np
import pytest

from bundle.benchmark.realism import GAP, Swap, clear_orders, compare, published, scans_of
from bundle.modalities import BRATS_MODALITIES, all_subsets, subset_name


def changed(subset, **dice):
    """Return the published profile with other Dice for one subset."""
    values = published()
    values[subset] |= dice
    return values


def test_published_profile_has_the_45_values_of_the_study():
    profile = published()
    names = {subset_name(subset, BRATS_MODALITIES) for subset in all_subsets(BRATS_MODALITIES)}
    assert set(profile) == names
    means = {r: np.mean([of[r] for of in profile.values()]) for r in ("WT", "TC", "ET")}
    # The study's own means over its 15 subsets.
    assert means == pytest.approx({"WT": 0.890, "TC": 0.830, "ET": 0.725}, abs=0.0006)


def test_profile_is_like_itself_at_any_height():
    low = {s: {r: 0.2 + dice / 2 for r, dice in of.items()} for s, of in published().items()}
    realism = compare(low)
    assert realism.of_all == pytest.approx({"TC": 1, "WT": 1, "ET": 1})
    assert realism.of_pairs == pytest.approx({"TC": 1, "WT": 1, "ET": 1})
    assert realism.swaps == ()
    assert realism.is_kept


def test_number_of_scans_alone_is_not_enough():
    counted = {s: dict.fromkeys(of, scans_of(s) / 4) for s, of in published().items()}
    realism = compare(counted)
    assert realism.of_all == pytest.approx({"TC": 0.799, "WT": 0.780, "ET": 0.796}, abs=0.001)
    assert realism.of_pairs == {"TC": 0, "WT": 0, "ET": 0}
    assert not realism.is_kept


def test_only_gaps_above_a_hundredth_give_an_order():
    assert clear_orders(published(), "WT") == [
        ("flair", "t2"),
        ("flair", "t1ce"),
        ("flair", "t1"),
        ("t2", "t1ce"),
        ("t2", "t1"),
    ]
    # t1ce and t1 are 0.008 apart, which tells nothing.
    assert compare(changed("t1ce", WT=0.779)).swaps == ()


def test_gap_of_exactly_a_hundredth_gives_none():
    pair = {"t1": {"WT": 0.721}, "t2": {"WT": 0.721 + GAP}}
    assert clear_orders(pair, "WT") == []


def test_wrong_order_is_named():
    realism = compare(changed("t2", WT=0.913))
    assert realism.swaps == (Swap("WT", "flair", "t2"),)
    assert realism.orders == 5 + 5 + 5
    assert not realism.is_kept


def test_equal_dice_is_a_wrong_order():
    assert Swap("ET", "t2", "t1") in compare(changed("t2", ET=0.500)).swaps


def test_subset_without_dice_is_refused():
    values = published()
    del values["t1+t2"]
    with pytest.raises(ValueError, match=r"got none for TC of t1\+t2, WT of t1\+t2, ET of t1\+t2"):
        compare(values)


def test_region_without_dice_is_refused():
    values = {s: {"WT": of["WT"]} for s, of in published().items()}
    with pytest.raises(ValueError, match=r"TC of flair.* and others\. Evaluate every subset"):
        compare(values)
