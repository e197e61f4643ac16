from __future__ import annotations

import sys

import numpy as np
import pytest

from bundle.evaluation.heatmap import draw_heatmap
from bundle.evaluation.metrics import Score
from bundle.evaluation.summary import summarise
from bundle.modalities import BRATS_MODALITIES, all_subsets, subset_name

BRATS_REGIONS = ("TC", "WT", "ET")
SUBSETS = [subset_name(subset, BRATS_MODALITIES) for subset in all_subsets(BRATS_MODALITIES)]


def summary_without(*left_out: str) -> dict:
    rows = [
        Score("a", subset, region, 0.5 + 0.03 * i, 1.0)
        for i, subset in enumerate(SUBSETS)
        for region in BRATS_REGIONS
        if subset not in left_out
    ]
    return summarise(rows, BRATS_MODALITIES, BRATS_REGIONS)


def test_cells_are_per_cent_by_region_and_subset_with_their_means():
    cells, mean, *_ = draw_heatmap(summary_without()).axes
    values = cells.images[0].get_array()
    assert values.shape == (4, 15)
    assert values[0].tolist() == pytest.approx([50 + 3 * i for i in range(15)])
    assert values[3].tolist() == pytest.approx(values[:3].mean(0).tolist())
    assert mean.images[0].get_array()[:, 0].tolist() == pytest.approx([71.0] * 4)
    assert [label.get_text() for label in cells.get_yticklabels()] == ["WT", "TC", "ET", "mean"]
    assert [text.get_text() for text in cells.texts[:2]] == ["50.0", "53.0"]


def test_dots_mark_the_modalities_of_each_column():
    dots = draw_heatmap(summary_without()).axes[2]
    assert [label.get_text() for label in dots.get_yticklabels()] == ["flair", "t1", "t1ce", "t2"]
    marks = [scatter.get_offsets() for scatter in dots.collections[1::2]]
    assert marks[0].tolist() == [[0, 3]]
    assert sorted(np.asarray(marks[-1])[:, 1]) == [0, 1, 2, 3]
    assert sum(map(len, marks)) == 32


def test_a_subset_nobody_could_form_is_a_dash():
    figure = draw_heatmap(summary_without("t2"))
    column = [text.get_text() for text in figure.axes[0].texts if text.get_position()[0] == 0]
    assert column == ["\N{EN DASH}"] * 4
    assert "1 case for 14 subsets" in figure.get_suptitle()


def test_pyplot_is_left_alone():
    before = sys.modules.get("matplotlib.pyplot")
    figures = before.get_fignums() if before else None
    draw_heatmap(summary_without())
    after = sys.modules.get("matplotlib.pyplot")
    assert (after.get_fignums() if after else None) == figures
