"""What the report says about realism: a table, a sentence and a picture."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bundle.benchmark.realism import (
    LEAST_OF_ALL,
    LEAST_OF_PAIRS,
    Profile,
    Realism,
    published,
    scans_of,
)
from bundle.evaluation.heatmap import FAINT, INK
from bundle.evaluation.tables import markdown

# One, two, three and four scans given; Okabe and Ito's colours.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")


def realism_table(realism: Realism) -> str:
    """Write the rank correlations as a Markdown table, with what is promised in its last column."""
    regions = list(realism.of_all)
    rows = (
        ("all subsets", realism.of_all, LEAST_OF_ALL),
        ("subsets of two scans", realism.of_pairs, LEAST_OF_PAIRS),
    )
    body = [
        [name, *(f"{of[region]:.2f}" for region in regions), f"{least:g}"]
        for name, of, least in rows
    ]
    return markdown(["rank correlation", *regions, "promised"], body)


def realism_sentence(realism: Realism) -> str:
    """Say whether lone scans stand in the published order, and which do not."""
    if not realism.swaps:
        return f"All {realism.orders} clear orders of lone scans are as published."
    told = "; ".join(f"{s.region}: {s.better} should be ahead of {s.worse}" for s in realism.swaps)
    kept = realism.orders - len(realism.swaps)
    return f"{kept} of {realism.orders} clear orders of lone scans are as published ({told})."


def draw_realism(values: Profile) -> Figure:
    """Draw Dice on made-up cases against the published Dice: one part a region, a dot a subset."""
    reference = published()
    regions = list(next(iter(reference.values())))
    figure = Figure(figsize=(4 * len(regions), 4.3), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, region in zip(figure.subplots(1, len(regions)), regions, strict=True):
        for count, colour in enumerate(_COLOURS, 1):
            names = [subset for subset in reference if scans_of(subset) == count]
            across = [100 * reference[name][region] for name in names]
            up = [100 * values[name][region] for name in names]
            axes.plot(across, up, "o", color=colour, markersize=5, label=f"{count} given")
            for x, y, name in zip(across, up, names, strict=True):
                if count <= 2:
                    axes.annotate(
                        name, (x, y), fontsize=6, xytext=(3, 3), textcoords="offset points"
                    )
        axes.set(title=region, xlabel="published Dice, real cases (%)")
        axes.grid(color=FAINT, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK)
    figure.axes[0].set_ylabel("Dice, made-up cases (%)")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure
