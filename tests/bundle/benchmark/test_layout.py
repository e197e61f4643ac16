from __future__ import annotations

import re

from bundle.benchmark.layout import (
    ablation_table,
    arms_table,
    differences_table,
    gains_table,
    gaps_table,
    interval,
    methods_table,
    overview_table,
    pivot,
    points,
    rebuilt_table,
    regions_table,
    sent_table,
    site_gains_table,
    subsets_table,
    worst_table,
)


def lines_of(text):
    """The lines of a table, without what aligns them in a terminal."""
    return re.sub(" +", " ", text).splitlines()


def method(name="ours", **others):
    row = {"comparison": "equal work", "method": name, "ratio": 0.5, "seeds": 3, "dice": 0.7123}
    row |= {"spread": 0.0123, "worst_subset": "t1", "worst_dice": 0.5, "not_possible": ""}
    return row | others


def difference(**others):
    row = {"comparison": "equal work", "other": "theirs", "ratio": 0.5, "difference": 0.0123}
    return row | {"low": -0.004, "high": 0.0205, "seeds": 3, "cases": 16} | others


def test_numbers_are_per_cent_with_spread():
    lines = lines_of(methods_table([method(), method(ratio=0.8, spread=None)]))
    assert lines[0] == "| Dice %, missing ratio | 0.5 | 0.8 |"
    assert lines[2] == "| ours | 71.2 \N{PLUS-MINUS SIGN} 1.2 | 71.2 |"
    assert lines_of(worst_table([method()]))[2] == "| ours | 50.0 (t1) |"


def test_what_is_missing_is_a_dash_and_what_was_not_possible_says_so():
    nothing = {"dice": None, "spread": None, "worst_subset": None, "worst_dice": None, "seeds": 0}
    rows = [method(**nothing), method("full", **nothing, not_possible="no case of 24 has t1")]
    assert lines_of(methods_table(rows))[2:] == [
        "| ours | \N{EN DASH} |",
        "| full | no complete case |",
    ]
    assert lines_of(worst_table(rows))[2:] == [
        "| ours | \N{EN DASH} |",
        "| full | no complete case |",
    ]


def test_cells_that_rest_on_fewer_seeds_say_so():
    line = lines_of(methods_table([method(), method(ratio=0.8, seeds=2)]))[2]
    number = "71.2 \N{PLUS-MINUS SIGN} 1.2"
    assert line == f"| ours | {number} | {number} (n = 2) |"


def test_differences_carry_a_sign_and_an_interval():
    assert points(-0.0123) == "\N{MINUS SIGN}1.23"
    assert interval(difference()) == "+1.23 [\N{MINUS SIGN}0.40, +2.05]"
    assert interval(difference(difference=None)) == "\N{EN DASH}"
    rows = [difference(), difference(ratio=0.8, seeds=1)]
    cells = lines_of(differences_table(rows))[2].split(" | ")
    assert cells[0] == "| theirs"
    assert cells[1] == interval(difference())
    assert cells[2] == f"{interval(difference())} (n = 1) |"


def test_the_share_of_a_gap_is_whole_per_cent():
    rows = [
        {"comparison": "equal work", "method": "ours", "ratio": r, "closed": c, "seeds": n}
        for r, c, n in ((0, 0.254, 3), (1, None, 0), (2, -0.5, 1))
    ]
    assert (
        lines_of(gaps_table(rows))[2]
        == "| ours | 25 % | \N{EN DASH} | \N{MINUS SIGN}50 % (n = 1) |"
    )


def test_gains_are_differences_of_the_method():
    assert lines_of(gains_table([difference(method="ours")]))[::2] == [
        "| method, missing ratio | 0.5 |",
        f"| ours | {interval(difference())} |",
    ]


def test_rates_by_modality_are_a_column_like_a_ratio():
    header = lines_of(methods_table([method(), method(ratio="0.2/0.8")]))[0]
    assert header == "| Dice %, missing ratio | 0.5 | 0.2/0.8 |"


def test_regions_share_a_cell():
    rows = [method(TC=0.5, WT=0.75), method("full", dice=None, not_possible="no case of 24")]
    assert lines_of(regions_table(rows, ["TC", "WT"]))[::2] == [
        "| TC / WT, Dice %, missing ratio | 0.5 |",
        "| ours | 50.0 / 75.0 |",
    ]
    assert lines_of(regions_table(rows, ["TC", "WT"]))[3] == "| full | no complete case |"


def test_the_overview_holds_dice_and_costs_in_one_line():
    costs = {"step": 2.0, "training_memory": 1.111, "parameters": None, "inference": 1.0}
    work = {"steps": 1234.4, "work": 3000.2}
    header, _, line = lines_of(overview_table([method(TC=0.25, **work, **costs)], ["TC"]))
    assert header == (
        "| method | Dice % | TC | worst subset | steps | work | training step | training memory "
        "| parameters | inference |"
    )
    assert line == (
        "| ours | 71.2 \N{PLUS-MINUS SIGN} 1.2 | 25.0 | 50.0 (t1) | 1234 | 3000 | 2.00 | 1.11 "
        "| \N{EN DASH} | 1.00 |"
    )


def test_subsets_of_one_region():
    rows = [{"subset": "t1", "method": "ours", "dice": 0.5, "TC": 0.25, "ratio": 0.0}]
    assert lines_of(subsets_table(rows))[::2] == ["| given, Dice % | ours |", "| t1 | 50.0 |"]
    assert lines_of(subsets_table(rows, "TC", "TC, given"))[::2] == [
        "| TC, given | ours |",
        "| t1 | 25.0 |",
    ]


def test_ablations_show_how_many_pairs_they_rest_on():
    rows = [
        difference(change="less", dice=0.65),
        difference(change="more", dice=None, difference=None, seeds=None),
    ]
    assert lines_of(ablation_table(rows))[2:] == [
        "| less | 65.0 | +1.23 [\N{MINUS SIGN}0.40, +2.05] | 3 x 16 |",
        "| more | \N{EN DASH} | \N{EN DASH} | \N{EN DASH} |",
    ]


def test_a_pivot_keeps_the_order_and_fills_its_holes():
    rows = [{"r": "b", "c": "y"}, {"r": "a", "c": "x"}, {"r": "b", "c": "x"}]
    text = pivot(rows, lambda row: row["r"], lambda row: row["c"], lambda row: "1", "k")
    assert lines_of(text) == [
        "| k | y | x |",
        "| :-- | --: | --: |",
        "| b | 1 | 1 |",
        "| a | \N{EN DASH} | 1 |",
    ]


def test_tables_are_aligned_in_a_terminal():
    lines = methods_table([method(), method("a name that is longer", ratio=0.5)]).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_an_arm_that_is_not_compared_with_the_reference_names_both():
    rows = [
        difference(arm="universal", other="alone"),
        difference(arm="fedprox", other="fedavg", seeds=1),
    ]
    assert lines_of(arms_table(rows, "universal"))[2:] == [
        f"| alone | {interval(difference())} |",
        f"| *fedprox* minus *fedavg* | {interval(difference())} (n = 1) |",
    ]


def test_gains_of_a_site_are_told_seed_by_seed():
    gains = {"seed 0": 0.014, "seed 2": -0.012}
    row = difference(site="b", modalities="t1, flair", **gains)
    minus = "\N{MINUS SIGN}"
    assert lines_of(site_gains_table([row]))[2] == (
        f"| b | t1, flair | {interval(row)} | +1.4, {minus}1.2 |"
    )


def test_what_was_rebuilt_has_mean_and_range_over_seeds():
    rows = [{"arm": "pooled", "psnr": psnr, "ssim": psnr / 20} for psnr in (10.0, 12.0)]
    assert lines_of(rebuilt_table(rows))[2] == (
        "| pooled | 11.00 (10.00 to 12.00) | 0.550 (0.500 to 0.600) |"
    )


def test_sites_send_mebibytes():
    rows = [
        {"arm": "fedavg", "site": site, "bytes": size}
        for site, size in (("a", 2**20), ("b", 2**18))
    ]
    assert lines_of(sent_table(rows))[2] == "| fedavg | 1.00 | 0.25 |"
