from __future__ import annotations

import pytest

from bundle.data.plausibility.judge import Suspicion, count_by_rule, judge
from bundle.data.plausibility.rules import RULES

# A number a little on the odd side of each limit, as `measure` names it.
ODD = {
    "voxel_small": {"voxel": 0.29},
    "voxel_large": {"voxel": 3.1},
    "head_small": {"extent": 39},
    "head_large": {"extent": 321},
    "background": {"zeros t1": 0.24},
    "corners": {"zeros t1": 0.6, "corners t1": 0.06},
    "border": {"zeros t1": 0.6, "border t1": 0.31},
    "scalp": {"ring t1": 0.1, "ring t2": 0.49},
    "dark_ring": {"ring t1ce": 0.49, "ring flair": 0.6},
    "few_voxels": {"filled t1": 0.004},
    "label_as_scan": {"values t1": 8},
    "two_forms": {"forms label": 0.6},
    "masks": {"overlap t1": 0.79},
    "mirrored": {"mirror t1": 0.03},
    "t1_order": {"shell t1ce": 0.6},
    "t2_order": {"shell t2": -0.6},
    "t2_flair": {"fluid t2": 0, "fluid flair": 0.6},
    "agent_in_rim": {"agent rim": -0.11, "agent tail": -9},
    "agent_in_brain": {"agent tail": -0.16},
    "agent_elsewhere": {"agent rim": 0.1, "agent necrosis": 0.21, "agent oedema": 0.0},
    "rim_dark": {"rim t1ce": 0.1, "oedema t1ce": 0.5},
    "necrosis_outside": {"open oedema": 0.2, "open necrosis": 0.6},
    "rim_outside": {"open oedema": 0.2, "open rim": 0.6},
    "one_label": {"label values": 1},
    "tumour_large": {"tumour share": 0.41},
    "label_outside": {"label outside": 0.03},
    "label_moved": {"label shift": 2, "label fit": 0.49},
    "oedema_dark": {"oedema flair": -0.1},
    "same_file": {"copy t1+t2": 0.9996},
}


def test_every_rule_about_one_case_has_a_number_here():
    assert {*ODD, "same_scan", "leak"} == set(RULES)


@pytest.mark.parametrize("rule", ODD)
def test_a_number_beyond_the_limit_is_found_by_its_rule_alone(rule):
    assert [suspicion.rule for suspicion in judge("A", ODD[rule])] == [rule]


def test_what_was_not_measured_is_not_judged():
    assert judge("A", {}) == []


def test_a_filled_volume_is_told_once_and_not_by_its_corners_or_border_again():
    found = judge("A", {"zeros t1": 0.0, "corners t1": 1.0, "border t1": 1.0})
    assert [suspicion.rule for suspicion in found] == ["background"]


def test_a_dark_rim_may_be_swapped_files_or_swapped_values_and_both_are_told():
    numbers = {"agent rim": -0.2, "agent necrosis": 0.3}
    assert [found.rule for found in judge("A", numbers)] == ["agent_in_rim", "agent_elsewhere"]


def test_a_label_that_is_one_voxel_off_passes():
    assert judge("A", {"label shift": 1.4, "label fit": 0.1}) == []


def test_a_suspicion_names_case_rule_number_limit_and_what_to_do():
    (found,) = judge("A", {"zeros flair": 0.0123})
    assert str(found) == (
        "case A: flair: hardly any voxel is 0 (background: share of 0 0.0123, expected at least "
        "0.25). Strip the skull, and set all that is not brain to exactly 0."
    )
    (found,) = judge("A", {"voxel": 10.0})
    assert str(found) == (
        "case A: the voxels are very large (voxel_large: shortest edge in mm 10, expected at most "
        "3). Correct the spacing in the header."
    )


def test_counts_hold_cases_and_no_names():
    found = [
        Suspicion("background", "A", 0.0, "t1"),
        Suspicion("background", "A", 0.0, "t2"),
        Suspicion("background", "B", 0.0, "t1"),
        Suspicion("voxel_large", "B", 10.0),
    ]
    assert count_by_rule(found) == {"voxel_large": 1, "background": 2}


def test_what_makes_a_result_wrong_is_refused_and_what_contrast_hints_at_is_not():
    refused = {rule: found.refused for rule in ODD for found in judge("A", ODD[rule])}
    assert {rule for rule, when in refused.items() if when == "always"} == {
        "same_file",
        "label_as_scan",
    }
    assert {rule for rule, when in refused.items() if when == "strict"} == {
        *("voxel_small", "voxel_large", "head_small", "head_large", "two_forms"),
        *("background", "corners", "border", "scalp", "few_voxels", "masks", "label_outside"),
    }


@pytest.mark.parametrize(
    ("rings", "where", "number"),
    [
        ({"t1": 0.45, "t1ce": 0.3, "t2": 1.0, "flair": 0.6}, "t1 and t1ce", 0.3),
        ({"t1n": 0.6, "t2w": 0.4}, "t2w", 0.4),
        ({"t1c": 0.2, "t2f": 0.4}, "t1c and t2f", 0.2),
    ],
    ids=["bright on T2", "not on T1", "no T2"],
)
def test_a_ring_that_may_be_fluid_below_the_dura_is_a_hint(rings, where, number):
    (found,) = judge("A", {f"ring {name}": n for name, n in rings.items()})
    assert (found.rule, found.refused, found.measured) == ("dark_ring", "never", number)
    assert str(found).startswith(f"case A: {where}: a dark ring lies below the surface, as the")


@pytest.mark.parametrize("rings", [{"t1": 0.1, "t2": 0.4}, {"t2f": 0.4, "t2w": 0.3}, {"t2": 0.4}])
def test_a_ring_on_every_modality_with_t2_among_them_is_bone(rings):
    (found,) = judge("A", {f"ring {name}": n for name, n in rings.items()})
    assert (found.rule, found.refused, found.measured) == ("scalp", "strict", 0.4)
    assert judge("A", {f"ring {name}": 0.51 for name in rings}) == []


def test_a_copy_names_both_scans():
    (found,) = judge("A", {"copy t1+t1ce": 1.0})
    assert str(found).startswith("case A: t1 and t1ce: they hold the same voxels, stored alike or")
