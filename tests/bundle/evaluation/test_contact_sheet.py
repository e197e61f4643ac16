from __future__ import annotations

import numpy as np
import pytest

from bundle.evaluation.contact_sheet import (
    AxialView,
    CaseSlices,
    choose_cases,
    draw_contact_sheet,
    label_names,
    window,
)
from bundle.evaluation.metrics import Score
from bundle.regions import BRATS_REGIONS

MODALITIES = ("t1", "flair")


def rows_of(**dice: float) -> list[Score]:
    return [Score(case, "t1", "WT", value, 1.0) for case, value in dice.items()]


def slices_of(case: str, modalities: tuple[str, ...] = MODALITIES) -> CaseSlices:
    image = np.zeros((12, 10))
    image[2:10, 2:8] = 0.5
    truth = np.zeros((12, 10), np.uint8)
    truth[4:8, 4:6] = 2
    subsets = [*modalities, "+".join(modalities)]
    return CaseSlices(
        case,
        {name: image for name in modalities},
        truth,
        {subset: truth * (subset != "flair") for subset in subsets},
    )


@pytest.mark.parametrize(
    ("dice", "expected"),
    [
        ({"a": 0.5}, [("only case", "a")]),
        ({"a": 0.5, "b": 0.7}, [("best", "b"), ("worst", "a")]),
        ({"a": 0.5, "b": 0.7, "c": 0.6}, [("best", "b"), ("median", "c"), ("worst", "a")]),
        (
            {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4},
            [("best", "d"), ("median", "c"), ("worst", "a")],
        ),
        ({"a": 0.5, "b": 0.5, "c": 0.5}, [("best", "a"), ("median", "b"), ("worst", "c")]),
    ],
)
def test_best_median_and_worst_case(dice, expected):
    chosen = choose_cases(rows_of(**dice))
    assert [(role, case) for role, case, _ in chosen] == expected
    assert [mean for _, _, mean in chosen] == [dice[case] for _, case in expected]


def test_a_case_is_ranked_by_the_mean_of_all_its_rows():
    rows = [*rows_of(a=1.0, b=0.6), Score("a", "flair", "WT", 0.0, 1.0)]
    assert choose_cases(rows) == [("best", "b", 0.6), ("worst", "a", 0.5)]


def test_the_cut_shows_the_patient_from_below_with_the_nose_up():
    in_ras = np.zeros((5, 6, 7))
    in_ras[0, 5, 3] = 1
    in_ras[4, 5, 3] = 2
    ras = np.diag([1.0, 2.0, 3.0, 1.0])
    view = AxialView.through_largest(in_ras > 0, ras)
    cut = view.cut(in_ras)
    assert (view.index, cut.shape, view.aspect) == (3, (6, 5), 2.0)
    assert cut[0, 4] == 1, "patient's left, anterior: upper right"
    assert cut[0, 0] == 2, "patient's right, anterior: upper left"


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (-1, -1, 1)])
def test_the_cut_does_not_depend_on_how_the_array_is_stored(axes, flips):
    in_ras = np.random.default_rng(0).random((5, 6, 7))
    spacing = np.array([1.0, 2.0, 3.0])
    expected = AxialView.through_largest(in_ras > 0.7, np.diag([*spacing, 1.0]))
    stored = in_ras.transpose(axes)[tuple(slice(None, None, sign) for sign in flips)]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (axis, sign) in enumerate(zip(axes, flips, strict=True)):
        affine[axis, column] = sign * spacing[axis]
    view = AxialView.through_largest(stored > 0.7, affine)
    assert view.aspect == expected.aspect
    assert np.array_equal(view.cut(stored), expected.cut(in_ras))


def test_without_a_tumour_the_middle_is_cut():
    assert AxialView.through_largest(np.zeros((4, 4, 9), bool), np.eye(4)).index == 4


def test_window_runs_from_background_to_the_brightest():
    image = np.arange(1001, dtype=float).reshape(7, 143)
    scaled = window(image)
    assert (scaled.min(), scaled.max(), scaled.dtype) == (0, 1, np.float16)
    assert not window(np.zeros((3, 3))).any()


def test_labels_are_named_by_what_is_left_of_their_region():
    assert label_names(BRATS_REGIONS) == {2: "WT outside TC", 1: "TC outside ET", 4: "ET"}
    assert label_names({"liver": (1,), "spleen": (2,)}) == {1: "liver", 2: "spleen"}


def test_a_strip_holds_images_truth_and_two_predictions():
    rows = [
        Score("a", subset, "WT", dice, 1.0)
        for subset, dice in {"t1": 0.8, "flair": 0.2, "t1+flair": 0.9}.items()
    ]
    figure = draw_contact_sheet([slices_of("a")], rows, MODALITIES, {2: "WT"})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["t1", "flair", "truth", "all scanned\n90.0 %", "worst: flair\n20.0 %"]
    painted = [int((axes.images[1].get_array()[..., 3] > 0).sum()) for axes in figure.axes[2:]]
    assert painted == [8, 8, 0]
    strip, foot = figure.subfigs
    assert strip.get_suptitle() == "Only case: a, mean Dice 63.3 %"
    assert [text.get_text() for text in foot.legends[0].get_texts()] == ["WT"]


def test_a_prediction_from_less_than_was_scanned_is_not_called_all_scanned():
    entry = slices_of("a")
    del entry.predictions["t1+flair"], entry.predictions["flair"]
    figure = draw_contact_sheet([entry], rows_of(a=0.5), MODALITIES, {2: "WT"})
    assert figure.axes[3].get_title() == "fullest: t1\n50.0 %"


def test_an_absent_modality_is_an_empty_frame_that_says_so():
    figure = draw_contact_sheet([slices_of("a", ("t1",))], rows_of(a=0.5), MODALITIES, {2: "WT"})
    says = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert says == [[], ["absent"], [], [], []]


def test_each_chosen_case_has_a_strip_of_its_own():
    rows = rows_of(a=0.1, b=0.2, c=0.3, d=0.4)
    slices = [slices_of(case, ("t1",)) for case in "abcd"]
    figure = draw_contact_sheet(slices, rows, MODALITIES, {2: "WT"})
    assert [strip.get_suptitle() for strip in figure.subfigs[:3]] == [
        "Best: d, mean Dice 40.0 %",
        "Median: c, mean Dice 30.0 %",
        "Worst: a, mean Dice 10.0 %",
    ]


def test_slices_without_scores_are_refused():
    with pytest.raises(ValueError, match=r"got slices of \['b'\] and scores of \['a'\]"):
        draw_contact_sheet([slices_of("b")], rows_of(a=0.5), MODALITIES, {2: "WT"})


@pytest.mark.parametrize("case", ["P\udce4t", "a$x^$", "$b_"])
def test_any_case_name_can_be_drawn(case, tmp_path):
    rows = [Score(case, subset, "WT", 0.5, 1.0) for subset in ("t1", "flair", "t1+flair")]
    sheet = draw_contact_sheet([slices_of(case)], rows, MODALITIES, BRATS_REGIONS)
    sheet.savefig(tmp_path / "sheet.png", dpi=20)
    (strip, _) = sheet.subfigs
    assert (
        strip.get_suptitle().replace("\\udce4", "\udce4") == f"Only case: {case}, mean Dice 50.0 %"
    )
