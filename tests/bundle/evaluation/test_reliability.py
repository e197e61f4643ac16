from __future__ import annotations

import numpy as np

from bundle.evaluation.reliability import curve, draw_reliability


def row(region: str, scans: int = 0) -> dict:
    before = {"voxels": [4, 0, 10], "probability": [1, 0, 9], "inside": [2, 0, 5]}
    after = before | {"probability": [2, 0, 5]}
    return {
        "region": region,
        "scans": scans,
        "before": {"reliability": before},
        "after": {"reliability": after},
    }


def test_an_empty_bin_has_no_dot():
    x, y = curve(row("WT")["before"]["reliability"])
    np.testing.assert_allclose(x, [0.25, 0.9])
    np.testing.assert_allclose(y, [0.5, 0.5])


def test_each_region_has_a_panel_with_both_curves_in_per_cent():
    figure = draw_reliability([row("WT", 1), row("WT"), row("ET")])
    assert [axes.get_title() for axes in figure.axes] == ["WT", "ET"]
    for axes in figure.axes:
        diagonal, before, after = axes.get_lines()
        assert diagonal.get_xdata()[-1] == diagonal.get_ydata()[-1] == 100
        np.testing.assert_allclose(before.get_xdata(), [25, 90])
        np.testing.assert_allclose(after.get_xdata(), [50, 50])
        np.testing.assert_allclose(after.get_ydata(), [50, 50])
