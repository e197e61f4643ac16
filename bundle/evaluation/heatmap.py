"""The heat map of an evaluation: Dice of every region and subset, the subsets as dots below."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from bundle.modalities import parse_subset, table_rows

INK, FAINT = "#222222", "#d9d9d9"
# Beyond five modalities (31 subsets) numbers would overlap at any width that fits a page.
_MOST_NUMBERED_SUBSETS = 31
_WIDE_INCHES, _NARROW_INCHES = 0.56, 0.16
_CELL_INCHES, _DOT_INCHES = 0.46, 0.24


def draw_heatmap(summary: Mapping[str, Any]) -> Figure:
    """Draw mean Dice as a heat map, one column per subset and one for their mean.

    Args:
        summary: what `bundle.evaluation.summary.summarise` returns.

    Returns:
        A figure of its own, not known to pyplot. Colours run from 0 to 100 per cent in every
        figure, so that two can be compared; a subset that no case could form is white, with a dash.
    """
    subsets, modalities = list(summary["subsets"]), summary["modalities"]
    rows = [*summary["regions"], "mean"] if len(summary["regions"]) > 1 else summary["regions"]
    numbered = len(subsets) <= _MOST_NUMBERED_SUBSETS
    cell = _WIDE_INCHES if numbered else _NARROW_INCHES
    figure, grid = _grid(
        widths=[len(subsets) * cell, _WIDE_INCHES],
        heights=[len(rows) * _CELL_INCHES, len(modalities) * _DOT_INCHES],
    )
    columns = [summary["subsets"][name]["dice"] for name in subsets]
    image = _cells(grid[0, 0], [_with_mean(dice) for dice in columns], numbered)
    grid[0, 0].set_yticks(range(len(rows)), rows)
    _cells(grid[0, 1], [_with_mean(summary["mean"]["dice"])], numbered=True)
    grid[0, 1].set_title("mean", fontsize=9, color=INK)
    _dots(grid[1, 0], subsets, modalities)
    grid[1, 1].set_axis_off()
    bar = figure.colorbar(image, ax=grid[0, :], fraction=0.03, pad=0.01, ticks=[0, 25, 50, 75, 100])
    bar.set_label("Dice (%)", color=INK)
    bar.outline.set_visible(False)
    figure.suptitle(_title(summary), fontsize=11, color=INK)
    return figure


def _grid(widths: Sequence[float], heights: Sequence[float]) -> tuple[Figure, np.ndarray]:
    """Make 2 x 2 axes of these sizes in inches, with room for names and a colour bar."""
    figure = Figure(figsize=(sum(widths) + 2.4, sum(heights) + 1.3), layout="constrained")
    FigureCanvasAgg(figure)
    ratios = {"width_ratios": widths, "height_ratios": heights}
    return figure, figure.subplots(2, 2, gridspec_kw=ratios)


def _title(summary: Mapping[str, Any]) -> str:
    formed = sum(entry["cases"] > 0 for entry in summary["subsets"].values())
    cases = summary["cases"]
    return (
        f"Dice of {cases} {'case' if cases == 1 else 'cases'} for {formed} "
        f"{'subset' if formed == 1 else 'subsets'} of the modalities"
    )


def _with_mean(dice: Mapping[str, float | None]) -> list[float]:
    values = [math.nan if value is None else 100 * value for value in dice.values()]
    return [*values, sum(values) / len(values)] if len(values) > 1 else values


def _cells(axes: Axes, columns: Sequence[Sequence[float]], numbered: bool) -> AxesImage:
    values = np.array(columns).T
    image = axes.imshow(values, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    for edge in range(1, values.shape[1]):
        axes.axvline(edge - 0.5, color="white", linewidth=1)
    for edge in range(1, values.shape[0]):
        axes.axhline(edge - 0.5, color="white", linewidth=4 if edge == len(values) - 1 else 1)
    if numbered:
        for (row, column), value in np.ndenumerate(values):
            _number(axes, column, row, value)
    return image


def _number(axes: Axes, x: int, y: int, value: float) -> None:
    missing = math.isnan(value)
    colour = INK if missing or value > 50 else "white"
    text = "\N{EN DASH}" if missing else f"{value:.1f}"
    axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=9)


def _dots(axes: Axes, subsets: Sequence[str], modalities: Sequence[str]) -> None:
    rows = table_rows(modalities)
    for x, name in enumerate(subsets):
        present = [rows.index(modality) for modality in parse_subset(name, modalities)]
        axes.scatter([x] * len(rows), range(len(rows)), s=38, color=FAINT, linewidths=0)
        axes.plot([x, x], [min(present), max(present)], color=INK, linewidth=1.6)
        axes.scatter([x] * len(present), present, s=38, color=INK, linewidths=0, zorder=3)
    axes.set(xlim=(-0.5, len(subsets) - 0.5), ylim=(len(rows) - 0.5, -0.5), xticks=[])
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
