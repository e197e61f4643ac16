"""Dice over the rounds, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bundle.atomic import written_atomically
from federation.protocol.site_text import LONGEST_NAME, one_line

# A legend of more names than these covers the lines.
_MOST_NAMED = 8


def draw_rounds(validations: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draw the global model's scores at each site over the rounds.

    Args:
        validations: what `federation.server.round_log` noted, in the order of the rounds.
        path: the PNG file.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not validations:
        raise ValueError("expected at least one validation, got none. Set validate_interval.")
    rounds = [entry["rounds"] for entry in validations]
    sites = sorted({site for entry in validations for site in entry["sites"]})
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    lines = {site: [_percent(entry["sites"].get(site)) for entry in validations] for site in sites}
    if len(sites) <= _MOST_NAMED:
        for site, scores in lines.items():
            axes.plot(rounds, scores, label=_label(site))
    else:
        _draw_many(axes, rounds, lines, validations[-1].get("worst_site"))
    means = [_percent(entry["mean"]) for entry in validations]
    axes.plot(rounds, means, "k--", linewidth=2, label="mean of the sites")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("rounds")
    axes.set_ylabel("Dice on held-out cases, mean of subsets, %")
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", frameon=False)
    with written_atomically(path) as file:
        figure.savefig(file, format="png", dpi=150)


def _draw_many(
    axes: Axes, rounds: Sequence[int], lines: Mapping[str, Sequence[float]], worst: str | None
) -> None:
    """Draw many sites alike, and name the worst one of the last validation."""
    for number, scores in enumerate(lines.values()):
        label = None if number else f"each of {len(lines)} sites"
        axes.plot(rounds, scores, color="0.75", linewidth=1, label=label)
    if worst in lines:
        axes.plot(rounds, lines[worst], color="C3", label=f"worst in the end: {_label(worst)}")


def _label(site: str) -> str:
    # Matplotlib takes dollars for a formula, and leaves out a name that begins with a line.
    return one_line(site, LONGEST_NAME).replace("$", r"\$").lstrip("_")


def _percent(value: float | None) -> float:
    return float("nan") if value is None else 100 * value
