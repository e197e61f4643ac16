"""The picture of a calibration: how often a voxel of some probability lies inside its region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, FAINT = "#222222", "#d9d9d9"
_COLOURS = {"before": "#b2182b", "after": "#2166ac"}
_INCHES = 3.2


def draw_reliability(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw one panel per region, before and after; on the diagonal probabilities are right.

    Args:
        rows: as in calibration.json under `errors`; those of any number of scans are drawn.

    Returns:
        A figure of its own, not known to pyplot. A bin without voxels has no dot.
    """
    whole = [row for row in rows if row["scans"] == 0]
    figure = Figure(figsize=(_INCHES * len(whole), _INCHES + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(whole), squeeze=False, sharey=True)[0]
    for axes, row in zip(panels, whole, strict=True):
        axes.plot([0, 100], [0, 100], color=FAINT, zorder=0)
        for kind, colour in _COLOURS.items():
            x, y = curve(row[kind]["reliability"])
            axes.plot(100 * x, 100 * y, "o-", color=colour, markersize=4, label=kind)
        axes.set_title(row["region"], fontsize=10, color=INK)
        axes.set_xlabel("probability (%)", color=INK)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_aspect("equal")
    panels[0].set_ylabel("inside the region (%)", color=INK)
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def curve(table: Mapping[str, Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean probability and share inside of the bins that hold voxels, both 0 to 1."""
    voxels = np.asarray(table["voxels"])
    filled = voxels > 0
    x, y = (np.asarray(table[name])[filled] / voxels[filled] for name in ("probability", "inside"))
    return x, y
