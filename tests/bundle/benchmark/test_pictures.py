from __future__ import annotations

import pytest

from bundle.benchmark.pictures import draw_ablation, draw_methods, draw_overview, write_picture


def method(name, ratio, dice, comparison="equal steps"):
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
    *(method("theirs", ratio, 0.65, "equal CPU time") for ratio in (0.0, 0.5, 0.8)),
    method("nobody", 0.0, None),
]


def test_a_line_a_method_in_per_cent_and_a_level_for_the_specialists():
    figure = draw_methods(METHODS, ceiling=0.9)
    axes = figure.axes[0]
    labels = axes.get_legend_handles_labels()[1]
    assert sorted(labels) == ["ours", "specialists", "theirs", "theirs (equal CPU time)"]
    lines = [container.lines[0] for container in axes.containers]
    assert lines[0].get_ydata().tolist() == pytest.approx([80, 55, 40])
    assert len(lines[1].get_xdata()) == 2
    assert lines[1].get_color() == lines[2].get_color() != lines[0].get_color()
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


def test_the_overview_has_a_dot_and_a_square_for_what_is_known():
    names = ("dice", "time", "dice_equal_time")
    rows = [
        {"method": name, **dict(zip(names, values, strict=True))}
        for name, values in (
            ("both", (0.5, 0.6, 0.7)),
            ("half", (0.4, None, 0.5)),
            ("none", (0.8, None, None)),
        )
    ]
    figure = draw_overview(rows)
    (axes,) = figure.axes
    points = [line for line in axes.lines if line.get_marker() != "None"]
    assert [line.get_marker() for line in points] == ["o", "s", "s"]
    assert [line.get_xdata()[0] for line in points] == [0.6, 1, 1]
    assert [line.get_ydata()[0] for line in points] == pytest.approx([50, 70, 50])
    assert axes.get_legend_handles_labels()[1] == ["both", "half"]


def test_pictures_are_small_png_files(tmp_path):
    write_picture(draw_methods(METHODS, 0.9), tmp_path / "dice.png")
    content = (tmp_path / "dice.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) < 150_000
