"""The picture of a training's dominance: how large the gradients are and which ones conflict."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from bundle.atomic import written_atomically
from bundle.methods.gmd.dominance import Dominance
from bundle.modalities import all_subsets, presence, subset_code, subset_name, table_rows

_INK, _BAR = "#222222", "#31688e"
# Beyond five modalities (31 subsets) numbers and names would overlap at any width that fits a page.
_MOST_NAMED_SUBSETS = 31


def draw_dominance(dominance: Dominance) -> Figure:
    """Draw the modalities' shares, the subsets' gradient norms and the conflicts of each pair.

    Args:
        dominance: of a training of which at least one step was recorded.

    Returns:
        A figure of its own, not known to pyplot. On top a bar for each modality's share, with a
        line where all would be equal; below, a heat map of the pairs of subsets, in which two that
        never met stay white, with a dash; to its right the mean norm of each subset's gradient.
    """
    names, places = _drawn_subsets(dominance)
    named = len(names) <= _MOST_NAMED_SUBSETS
    side = max(2.0, (0.5 if named else 0.06) * len(names))
    rows = table_rows(dominance.modalities)
    figure = Figure(figsize=(side + 5.0, side + 0.3 * len(rows) + 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(
        2,
        2,
        gridspec_kw={"width_ratios": [side, 2.2], "height_ratios": [0.3 * len(rows) + 0.4, side]},
    )
    shares = dict(zip(dominance.modalities, dominance.shares().tolist(), strict=True))
    _bars(grid[0, 0], rows, [100 * shares[name] for name in rows], 100 / len(rows))
    grid[0, 0].set_xlabel("share in the gradients' norms (%); line: equal shares", color=_INK)
    grid[0, 1].set_axis_off()
    rates = 100 * dominance.conflict_rates().cpu()[places][:, places]
    _conflicts(grid[1, 0], names if named else [], rates.tolist())
    _bars(grid[1, 1], names, dominance.mean_norms().cpu()[places].tolist(), 1.0)
    grid[1, 1].set_yticks([])
    grid[1, 1].set_xlabel("gradient norm\n(1 = mean of its step)", color=_INK)
    bar = figure.colorbar(grid[1, 0].images[0], ax=grid[1, 0], location="left", shrink=0.6)
    bar.set_label("steps in conflict (%)", color=_INK)
    bar.outline.set_visible(False)
    figure.suptitle("Which modalities dominate the training", fontsize=11, color=_INK)
    return figure


def write_dominance(dominance: Dominance, path: str) -> None:
    """Write the picture as a PNG file, unless no step was recorded.

    Raises:
        OSError: as in `bundle.atomic.written_atomically`.
    """
    if bool(dominance.drawn.any()):
        with written_atomically(path) as file:
            draw_dominance(dominance).savefig(file, format="png", dpi=150)


def _drawn_subsets(dominance: Dominance) -> tuple[list[str], Tensor]:
    """List the subsets that were ever drawn, as names and as places in the statistics."""
    modalities = dominance.modalities
    subsets = all_subsets(modalities)
    places = subset_code(torch.stack([presence(subset, modalities) for subset in subsets])) - 1
    drawn = dominance.drawn.cpu()[places] > 0
    names = [subset_name(subset, modalities) for subset in subsets]
    return [name for name, was in zip(names, drawn.tolist(), strict=True) if was], places[drawn]


def _bars(axes: Axes, names: Sequence[str], lengths: Sequence[float], line: float) -> None:
    axes.barh(range(len(names)), lengths, color=_BAR)
    axes.axvline(line, color=_INK, linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(length=0, colors=_INK)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _conflicts(axes: Axes, names: Sequence[str], rates: Sequence[Sequence[float]]) -> None:
    axes.imshow(rates, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.tick_params(length=0, colors=_INK)
    axes.spines[:].set_visible(False)
    for row, _ in enumerate(names):
        for column, rate in enumerate(rates[row]):
            missing = math.isnan(rate)
            colour = _INK if missing or rate > 50 else "white"
            text = "\N{EN DASH}" if missing else f"{rate:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
