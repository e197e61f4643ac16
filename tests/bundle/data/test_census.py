from __future__ import annotations

from bundle.data.census import (
    combination_counts,
    count_table,
    far_off,
    modality_counts,
    quartile_table,
    quartiles,
)

ITEMS = [{"image": {"t1": "x"}}, {"image": {"flair": "x", "t1": "x"}}, {"image": {"t1": "x"}}]


def test_modalities_are_counted_in_vocabulary_order_with_zeros():
    counts = modality_counts(ITEMS, ["flair", "t1", "t2"])
    assert list(counts.items()) == [("flair", 1), ("t1", 3), ("t2", 0)]


def test_the_most_frequent_combination_comes_first():
    counts = combination_counts(ITEMS, ["t1", "flair"])
    assert list(counts.items()) == [("t1", 2), ("t1+flair", 1)]


def test_columns_are_aligned():
    assert count_table("m", {"flair": 12}) == "m      cases\nflair     12"


def test_quartiles_are_a_mean_of_all_cases():
    found = quartiles([1.0, 2.0, 3.0, 4.0, 50.0])
    assert list(found) == ["p25", "p50", "p75"]
    assert not set(found.values()) & {1.0, 2.0, 3.0, 4.0, 50.0}
    assert quartiles([2.0] * 5) == {"p25": 2.0, "p50": 2.0, "p75": 2.0}
    assert quartiles([1234.5] * 5)["p50"] == 1230.0


def between(middle: float, spread: float = 2.0) -> dict[str, float]:
    return {"p25": middle - spread / 2, "p50": middle, "p75": middle + spread / 2}


def test_a_site_is_far_off_beyond_twice_the_usual_distance_between_quartiles():
    near = {"a": between(10), "b": between(11), "c": between(14.9)}
    assert far_off(near) == set()
    assert far_off({**near, "c": between(15.1)}) == {"c"}


def test_equal_cases_leave_a_fifth_of_the_value_as_room():
    same = {"a": between(100, 0), "b": between(100, 0)}
    assert far_off({**same, "c": between(119, 0)}) == set()
    assert far_off({**same, "c": between(121, 0)}) == {"c"}


def test_two_sites_do_not_say_which_of_them_is_the_other():
    assert far_off({"a": between(1), "b": between(100)}) == set()


def test_the_quartile_table_has_a_dash_for_what_a_site_has_not_told():
    found = {"t1": {"a": between(10)}, "WT ml": {"b": between(20)}}
    assert quartile_table(found).splitlines() == [
        "site            t1          WT ml",
        "a     10 (9 to 11)              -",
        "b                -  20 (19 to 21)",
    ]
