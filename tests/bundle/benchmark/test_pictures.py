from __future__ import annotations

import pytest

from bundle.benchmark.pictures import (
    draw_ablation,
    draw_curve,
    draw_methods,
    draw_overview,
    write_picture,
)


def method(name, ratio, dice, comparison="equal work"):
    return {
        "method": name,
        "comparison": comparison,
        "ratio": ratio,
        "dice": dice,
        "spread": None if dice is None else 0.01,
    }


def change(name, value):
    ends = (None, None) if value is None else (value - 0.01, value + 0.02)
    return {"change": name, "difference": value, "low": ends[0], "high": ends[1]}


METHODS = [
    *(method("ours", ratio, 0.8 - ratio / 2) for ratio in (0.0, 0.5, 0.8)),
    *(method("theirs", ratio, None if ratio == 0.8 else 0.6) for ratio in (0.0, 0.5, 0.8)),
    method("nobody", 0.0, None),
]


def test_a_line_a_method_in_per_cent_and_a_level_for_the_specialists():
    figure = draw_methods(METHODS, ceiling=0.9)
    axes = figure.axes[0]
    labels = axes.get_legend_handles_labels()[1]
    assert sorted(labels) == ["ours", "specialists", "theirs"]
    lines = [container.lines[0] for container in axes.containers]
    assert lines[0].get_ydata().tolist() == pytest.approx([80, 55, 40])
    assert len(lines[1].get_xdata()) == 2
    assert lines[1].get_color() != lines[0].get_color()
    assert len(figure.legends) == 1
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.0", "0.5", "0.8"]


def test_a_grid_without_results_is_drawn_all_the_same():
    figure = draw_methods([method("ours", 0.0, None)], ceiling=None)
    assert figure.axes[0].containers == []
    assert figure.legends == []


def test_every_change_has_its_place_from_the_top_and_those_known_an_interval():
    axes = draw_ablation([change("less", -0.03), change("more", None)]).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["less", "more"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    _, bar, point = axes.lines
    assert list(bar.get_xdata()) == pytest.approx([-4, -1])
    assert point.get_xdata()[0] == pytest.approx(-3)


def test_rates_by_modality_stand_aside_and_are_not_joined_to_the_ratios():
    rows = [method("ours", missing, 0.5) for missing in (0.0, 0.8, "0.2/0.4/0.6/0.8")]
    axes = draw_methods(rows, ceiling=None).axes[0]
    joined, aside = (container.lines[0] for container in axes.containers)
    assert joined.get_xdata().tolist() == pytest.approx([0.0, 0.8])
    assert aside.get_xdata().tolist() == pytest.approx([1.0])
    assert joined.get_color() == aside.get_color()
    assert axes.get_legend_handles_labels()[1] == ["ours"]
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    assert ticks == ["0.0", "0.8", "0.2/0.4/0.6/0.8"]


def test_the_overview_has_a_dot_for_what_is_known():
    rows = [
        {"method": "ours", "dice": 0.6, "spread": 0.02, "inference": 2.5},
        {"method": "theirs", "dice": 0.5, "spread": None, "inference": 1.0},
        {"method": "no cost", "dice": 0.8, "spread": None, "inference": None},
        {"method": "no Dice", "dice": None, "spread": None, "inference": 1.0},
    ]
    (axes,) = draw_overview(rows).axes
    dots = [container.lines[0] for container in axes.containers]
    assert [dot.get_xdata()[0] for dot in dots] == [2.5, 1.0]
    assert [dot.get_ydata()[0] for dot in dots] == pytest.approx([60, 50])
    assert axes.get_legend_handles_labels()[1] == ["ours", "theirs"]


def test_a_curve_has_a_line_in_all_and_one_for_each_number_of_scans():
    rows = [
        {"steps": steps, "given 1": 0.1, "given 2": 0.2, "mean": mean}
        for steps, mean in ((625, 0.4), (1250, 0.5))
    ]
    (axes,) = draw_curve(rows).axes
    assert axes.get_legend_handles_labels()[1] == ["mean", "given 1", "given 2"]
    assert list(axes.lines[0].get_ydata()) == pytest.approx([40, 50])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["625", "1250"]


def test_pictures_are_small_png_files(tmp_path):
    write_picture(draw_methods(METHODS, 0.9), tmp_path / "dice.png")
    content = (tmp_path / "dice.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) < 150_000
