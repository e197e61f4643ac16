from __future__ import annotations

import pytest
from monai.bundle import ConfigParser

from bundle.training.made_with import depends_on, describe, differences, same_setting


@pytest.mark.parametrize(
    ("name", "before", "now"),
    [
        ("filters", 2, 2.0),
        ("roi_size", [64, 64, 64], 64),
        ("roi_size", 64.0, (64, 64, 64)),
        ("spacing", [1.0, 1.0, 1.0], (1, 1, 1)),
        ("label_aliases", {"3": 4}, {3: 4.0}),
        ("label_aliases", {"3": 4, "5": 1}, {"5": 1, "3": 4}),
        ("regions#WT", [1, 2, 4], (4, 2, 1)),
        ("regions", {"WT": [1, 2], "TC": [1]}, {"WT": (2, 1), "TC": [1.0]}),
        ("method#reduction", None, None),
    ],
)
def test_values_that_mean_the_same_are_the_same(name, before, now):
    assert same_setting(name, before, now)
    assert same_setting(name, now, before)


@pytest.mark.parametrize(
    ("name", "before", "now"),
    [
        ("modalities", ["t1", "t2"], ["t2", "t1"]),
        ("blocks_down", [1, 1], 1),
        ("roi_size", [64, 64, 32], 64),
        ("roi_size", [1, 1, 1], True),
        ("regions", {"WT": [1, 2], "TC": [1]}, {"TC": [1], "WT": [1, 2]}),
        ("regions", {"WT": [1, 2]}, {"WT": [1, 4]}),
        ("regions#WT", [1, 2], [1, 2, 4]),
        ("label_aliases", {"3": 4}, {}),
        ("filters", "8", 8),
        ("reduction", None, "mean"),
    ],
)
def test_values_that_mean_something_else_differ(name, before, now):
    assert not same_setting(name, before, now)
    assert not same_setting(name, now, before)


CONFIG = {
    "filters": 8,
    "width": "$2 * @filters",
    "far": "@width",
    "alone": 3,
    "net": {
        "_target_": "builtins.dict",
        "_requires_": ["@alone"],
        "width": "@far",
        "size": (3, 3, 3),
        "dtype": "$torch.float32",
        "bias": None,
        "more": {"_target_": "torch.nn.Identity"},
    },
    "chain": [{"_target_": "Flipd", "keys": "image", "axis": "@alone"}, "@net#more"],
    "plain": [1, "two"],
    "nothing": None,
}


def test_parts_are_described_down_to_plain_values():
    parser = ConfigParser(dict(CONFIG))
    assert describe(parser, ["net", "chain", "plain", "nothing", "unheard_of"]) == {
        "net#_target_": "builtins.dict",
        "net#width": 16,
        "net#size": [3, 3, 3],
        "net#dtype": "$torch.float32",
        "net#bias": None,
        "net#more#_target_": "torch.nn.Identity",
        "chain#0#_target_": "Flipd",
        "chain#0#keys": "image",
        "chain#0#axis": 3,
        "chain#1": "@net::more",
        "plain": [1, "two"],
    }


@pytest.mark.parametrize(
    ("raw", "ids", "depends"),
    [
        ("@far", ["filters"], True),
        ("$[@far, 1]", ["filters"], True),
        ({"a": ["x", "@width"]}, ["filters"], True),
        ("@far", ["alone"], False),
        ("mail@filters", ["filters"], False),
        (3, ["filters"], False),
    ],
)
def test_what_a_value_depends_on_is_found_through_others(raw, ids, depends):
    assert depends_on(ConfigParser(dict(CONFIG)), raw, ids) is depends


def test_differences_name_both_sides_in_the_order_of_the_config():
    before = {"spacing": [1.0] * 3, "gone": 1, "filters": 8, "roi_size": 64}
    now = {"filters": 16, "roi_size": [64] * 3, "spacing": [2.0, 2.0, 2.0], "new": True}
    assert list(differences(before, now).values()) == [
        "filters: 8, now 16",
        "spacing: [1.0, 1.0, 1.0], now [2.0, 2.0, 2.0]",
        "new: not set, now True",
        "gone: 1, now not set",
    ]


def test_another_order_counts_for_regions_alone():
    before = {"regions#TC": [1], "regions#WT": [1, 2], "criteria#dice": 1, "criteria#ce": 2}
    now = dict(reversed(before.items()))
    assert differences(before, now) == {"regions": "order of regions: TC, WT, now WT, TC"}


def test_a_long_value_is_cut():
    (line,) = differences({"prompts": "x" * 1000}, {"prompts": "y"}).values()
    assert line.endswith("..., now y")
    assert len(line) < 330
