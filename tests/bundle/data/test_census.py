from __future__ import annotations

from bundle.data.census import combination_counts, count_table, modality_counts

ITEMS = [{"image": {"t1": "x"}}, {"image": {"flair": "x", "t1": "x"}}, {"image": {"t1": "x"}}]


def test_modalities_are_counted_in_vocabulary_order_with_zeros():
    counts = modality_counts(ITEMS, ["flair", "t1", "t2"])
    assert list(counts.items()) == [("flair", 1), ("t1", 3), ("t2", 0)]


def test_the_most_frequent_combination_comes_first():
    counts = combination_counts(ITEMS, ["t1", "flair"])
    assert list(counts.items()) == [("t1", 2), ("t1+flair", 1)]


def test_columns_are_aligned():
    assert count_table("m", {"flair": 12}) == "m      cases\nflair     12"
