"""The pictures of the reports: Dice by missing ratio, cost, changed part and site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bundle.atomic import written_atomically
from bundle.benchmark.plan import Missing
from bundle.benchmark.results import Row
from bundle.benchmark.sites import CLIENT_MEAN
from bundle.evaluation.heatmap import FAINT, INK

# Okabe and Ito's colours, which people who do not tell red from green can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080")
# How far right of the largest ratio what is not one number has its place.
_ASIDE = 0.2


# Dice of each seed, by arm, then by site or what is over all of them.
Dots = Mapping[str, Mapping[str, Sequence[float]]]


def write_picture(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG picture of some tens of kilobytes."""
    with written_atomically(path) as file:
        figure.savefig(file, format="png", dpi=110)


def draw_methods(rows: Sequence[Row], ceiling: float | None) -> Figure:
    """Draw Dice against the missing ratio, one line a method, with the spread over seeds.

    Args:
        rows: of `bundle.benchmark.tables.method_rows`; rates by modality stand to the right of the
            ratios, not joined to them.
        ceiling: Dice of the specialists, drawn as a level; None = they are not there.
    """
    kinds = list(dict.fromkeys((row["method"], row["comparison"]) for row in rows))
    figure, axes = _figure(7, 4 + 0.1 * len(kinds))
    places = _places(rows)
    methods = list(dict.fromkeys(method for method, _ in kinds))
    for place, kind in enumerate(kinds):
        here = [r for r in rows if (r["method"], r["comparison"]) == kind and r["dice"] is not None]
        if here:
            # Aside of one another, so that error bars stay visible.
            shift = 0.006 * (place - (len(kinds) - 1) / 2)
            colour = _COLOURS[methods.index(kind[0]) % len(_COLOURS)]
            _line(axes, here, kind, colour, {key: x + shift for key, x in places.items()})
    if ceiling is not None:
        axes.axhline(100 * ceiling, color=INK, linestyle=":", linewidth=1, label="specialists")
    axes.set(xlabel="missing ratio of the training cases", ylabel="Dice (%)")
    axes.set_xticks(list(places.values()), [str(missing) for missing in places])
    axes.set_title("Mean Dice over all subsets and regions", fontsize=11, color=INK)
    axes.grid(color=FAINT, linewidth=0.6)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _places(rows: Sequence[Row]) -> dict[Missing, float]:
    """Give every missing ratio its place on the axis, and what is not a number one further on."""
    found = {row["ratio"] for row in rows}
    ratios = sorted(missing for missing in found if not isinstance(missing, str))
    others = sorted(missing for missing in found if isinstance(missing, str))
    last = max(ratios, default=0.0)
    aside = {missing: last + _ASIDE * count for count, missing in enumerate(others, 1)}
    return {**{ratio: ratio for ratio in ratios}, **aside}


def _line(
    axes: Axes,
    rows: Sequence[Row],
    kind: tuple[str, str],
    colour: str,
    places: Mapping[Missing, float],
) -> None:
    label: str | None = kind[0]
    for joined in (True, False):
        part = [row for row in rows if isinstance(row["ratio"], str) != joined]
        if part:
            axes.errorbar(
                [places[row["ratio"]] for row in part],
                [100 * row["dice"] for row in part],
                yerr=[100 * (row["spread"] or 0) for row in part],
                color=colour,
                linestyle="-" if joined else "none",
                marker="o",
                markersize=4,
                capsize=3,
                label=label,
            )
            # One line of the legend for both parts.
            label = None


def draw_overview(rows: Sequence[Row]) -> Figure:
    """Draw each method's Dice against the work of a window: what is gained, and what use costs.

    Args:
        rows: of `bundle.benchmark.tables.overview_rows`; what has no Dice or cost is left out.
    """
    figure, axes = _figure(7, 4 + 0.1 * len(rows))
    for place, row in enumerate(rows):
        if row["dice"] is not None and row["inference"] is not None:
            colour = _COLOURS[place % len(_COLOURS)]
            spread = 100 * (row["spread"] or 0)
            axes.errorbar(
                row["inference"],
                100 * row["dice"],
                yerr=spread,
                fmt="o",
                color=colour,
                capsize=3,
                label=row["method"],
            )
    axes.set(xlabel="time of a window (plain U-Net = 1)", ylabel="Dice (%)")
    axes.set_title("Dice after equal work, and what a window costs", fontsize=11, color=INK)
    axes.grid(color=FAINT, linewidth=0.6)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def draw_curve(rows: Sequence[Row]) -> Figure:
    """Draw Dice against the length of the training, in all and by how many scans are given.

    Args:
        rows: of `bundle.benchmark.tables.curve_rows`.
    """
    figure, axes = _figure(7, 4.2)
    across = [row["steps"] for row in rows]
    lines = {"mean": INK}
    given = [name for name in rows[0] if name.startswith("given ")]
    lines |= dict(zip(given, _COLOURS, strict=False))
    for name, colour in lines.items():
        axes.plot(
            across,
            [100 * row[name] for row in rows],
            "o-",
            color=colour,
            markersize=4,
            linewidth=2 if name == "mean" else 1,
            label=name,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(across, [str(steps) for steps in across])
    axes.minorticks_off()
    axes.set(xlabel="optimiser steps of the baseline", ylabel="Dice (%)")
    axes.grid(color=FAINT, linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return figure


def draw_ablation(rows: Sequence[Row]) -> Figure:
    """Draw the difference that each change makes, with its interval; left of 0 = it costs Dice.

    Args:
        rows: of `bundle.benchmark.tables.ablation_rows`; those without a difference keep a line.
    """
    figure, axes = _figure(7, 1.4 + 0.32 * len(rows))
    axes.axvline(0, color=INK, linewidth=1)
    for y, row in enumerate(rows):
        if row["difference"] is not None:
            low, high = 100 * row["low"], 100 * row["high"]
            axes.plot([low, high], [y, y], color=_COLOURS[0], linewidth=2)
            axes.plot(100 * row["difference"], y, "o", color=_COLOURS[0], markersize=6)
    axes.set_yticks(range(len(rows)), [row["change"] for row in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="change of Dice (percentage points)")
    axes.set_title("What changes when a part is changed", fontsize=11, color=INK)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    return figure


def draw_sites(rows: Sequence[Row], sites: Mapping[str, Sequence[str]], dots: Dots) -> Figure:
    """Draw Dice at each site and its mean over the sites: a bar an arm, a dot a seed.

    Args:
        rows: of `bundle.benchmark.sites.site_rows`.
        sites: the modalities of each, by name.
        dots: Dice of each seed, by arm and place, as `bundle.benchmark.sites.seed_dice` gives it.
    """
    figure, axes = _figure(9, 4.6)
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    places = [*sites, CLIENT_MEAN]
    means = {(row["arm"], row["at"]): row["dice"] for row in rows}
    width = 0.8 / len(arms)
    colours = colormaps["tab10"].colors
    for number, arm in enumerate(arms):
        colour = colours[number % len(colours)]
        shift = (number - (len(arms) - 1) / 2) * width
        for place, at in enumerate(places):
            label = arm if place == 0 else None
            height = 100 * means[arm, at]
            axes.bar(place + shift, height, 0.9 * width, color=colour, alpha=0.75, label=label)
            for dice in dots[arm][at]:
                axes.plot(place + shift, 100 * dice, "o", color=colour, markersize=2.5)
    names = [f"{site}\n{', '.join(own)}" for site, own in sites.items()]
    axes.set_xticks(range(len(places)), [*names, "mean of the sites"])
    axes.set_ylabel("Dice on test cases, own subsets, %")
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)
    return figure, axes
