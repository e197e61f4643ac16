"""The contact sheet of an evaluation: the best, the median and the worst case, one strip each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch

from bundle.evaluation.metrics import Score
from bundle.modalities import table_rows
from bundle.regions import Regions, painting_order

# Okabe and Ito's colours that stand out on grey, told apart with any colour vision.
_COLOURS = ("#56B4E9", "#F0E442", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#0072B2")
_OPACITY = 0.7
_PANEL_INCHES = (1.5, 1.8)
_HEADING_INCHES = 0.6
_LEGEND_INCHES = 0.4
INK = "#222222"


@dataclass
class CaseSlices:
    """One axial slice of a case, upright, in radiological convention: the patient's left is right.

    Attributes:
        case: the case's name.
        images: modality name to (H, W) float, 0 = black, 1 = white; none for absent modalities.
        truth: (H, W) uint8 label values, 0 = background.
        predictions: subset name to (H, W) uint8 label values.
        aspect: height of a pixel divided by its width.
    """

    case: str
    images: dict[str, np.ndarray]
    truth: np.ndarray
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    aspect: float = 1.0


@dataclass(frozen=True)
class AxialView:
    """Where a volume is cut and how the cut is turned upright.

    Attributes:
        turn: (3, 2) nibabel orientation transform, from the array as stored to LPS.
        index: the slice, counted along the third axis of the turned volume.
        aspect: height of a pixel divided by its width.
    """

    turn: np.ndarray
    index: int
    aspect: float

    @classmethod
    def through_largest(cls, tumour: np.ndarray, affine: np.ndarray) -> AxialView:
        """Cut where the tumour's axial area is largest, or in the middle if there is none.

        Args:
            tumour: (D, H, W) bool, True = tumour.
            affine: (4, 4), from voxel to world (RAS, mm), as nibabel and MetaTensor keep it.
        """
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(affine), nib.orientations.axcodes2ornt("LPS")
        )
        areas = nib.orientations.apply_orientation(tumour, turn).sum(axis=(0, 1))
        index = int(areas.argmax()) if areas.any() else len(areas) // 2
        turned_mm = np.empty(3)
        turned_mm[turn[:, 0].astype(int)] = nib.affines.voxel_sizes(affine)
        return cls(turn, index, float(turned_mm[1] / turned_mm[0]))

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """Cut (D, H, W) to (H', W'): rows run to posterior, columns to the patient's left."""
        turned = nib.orientations.apply_orientation(volume, self.turn)
        return np.ascontiguousarray(turned[:, :, self.index].T)


def window(image: np.ndarray) -> np.ndarray:
    """Scale a slice (H, W) to float16: 0 = background, 1 = the 99.5th percentile and above."""
    inside = image[image > 0]
    if inside.size == 0:
        return np.zeros(image.shape, np.float16)
    return np.clip(image / np.percentile(inside, 99.5), 0, 1).astype(np.float16)


def label_names(regions: Regions) -> dict[int, str]:
    """Say in words what each label value stands for, such as {2: 'WT outside TC', 4: 'ET'}."""
    names = {}
    for region, value in painting_order(regions):
        nested = [other for other in regions if set(regions[other]) < set(regions[region])]
        outermost = [
            n for n in nested if not any(set(regions[n]) < set(regions[m]) for m in nested)
        ]
        names[value] = f"{region} outside {', '.join(outermost)}" if outermost else region
    return names


def choose_cases(rows: Sequence[Score]) -> list[tuple[str, str, float]]:
    """Choose the best, the median and the worst case by mean Dice over all their rows.

    Ties go by name; of an even number of cases the better middle one is the median.

    Returns:
        (role, case, mean Dice) from best to worst: three of them, fewer if there are fewer cases.
    """
    dice: dict[str, list[float]] = {}
    for row in rows:
        dice.setdefault(row.case, []).append(row.dice)
    mean = {case: float(np.mean(values)) for case, values in dice.items()}
    ranked = sorted(mean, key=lambda case: (-mean[case], case))
    roles = {1: ["only case"], 2: ["best", "worst"]}.get(len(ranked), ["best", "median", "worst"])
    places = {"best": 0, "only case": 0, "median": (len(ranked) - 1) // 2, "worst": -1}
    chosen = [(role, ranked[places[role]]) for role in roles] if ranked else []
    return [(role, case, mean[case]) for role, case in chosen]


def draw_contact_sheet(
    slices: Sequence[CaseSlices],
    rows: Sequence[Score],
    modalities: Sequence[str],
    names: Mapping[int, str],
) -> Figure:
    """Draw the best, the median and the worst case: images, truth and two predictions of each.

    Args:
        slices: one entry per case; cases without scores are left out.
        rows: all scores of the evaluation.
        modalities: the vocabulary.
        names: label value to its name in the legend (`label_names`).

    Returns:
        A figure of its own, not known to pyplot. The predictions of a strip are the one from every
        scanned modality (else the fullest subset tested) and the one from the subset
        with the case's lowest mean Dice.

    Raises:
        ValueError: no case has both slices and scores.
    """
    by_case = {entry.case: entry for entry in slices}
    scored = [row for row in rows if row.case in by_case]
    chosen = choose_cases(scored)
    if not chosen:
        raise ValueError(
            f"expected a case with both slices and scores, got slices of {sorted(by_case)} "
            f"and scores of {sorted({row.case for row in rows})}"
        )
    width, height = _PANEL_INCHES
    heights = [height + _HEADING_INCHES] * len(chosen) + [_LEGEND_INCHES]
    figure = Figure(figsize=(width * (len(modalities) + 3), sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    *strips, foot = figure.subfigures(len(heights), 1, height_ratios=heights)
    colours = _label_colours(names)
    for strip, (role, case, dice) in zip(strips, chosen, strict=True):
        _strip(strip, by_case[case], scored, modalities, colours)
        # A file name may hold a byte that no font has a letter for, and $, which starts a formula.
        shown = case.encode("utf-8", "backslashreplace").decode("utf-8")
        strip.suptitle(
            f"{role.capitalize()}: {shown}, mean Dice {100 * dice:.1f} %",
            x=0.005,
            ha="left",
            fontsize=11,
            fontweight="bold",
            color=INK,
            parse_math=False,
        )
    handles = [Patch(color=colour, label=names[value]) for value, colour in colours.items()]
    foot.legend(handles=handles, loc="center", ncols=len(handles), frameon=False, fontsize=10)
    return figure


def _label_colours(names: Mapping[int, str]) -> dict[int, str]:
    return dict(zip(names, cycle(_COLOURS), strict=False))


def _strip(
    strip: SubFigure,
    entry: CaseSlices,
    rows: Sequence[Score],
    modalities: Sequence[str],
    colours: Mapping[int, str],
) -> None:
    order = table_rows(modalities)
    box = _brain_box(entry)
    panels = list(strip.subplots(1, len(order) + 3))
    for axes, modality in zip(panels, order, strict=False):
        _caption(axes, modality)
        if modality in entry.images:
            _show(axes, entry.images[modality][box], entry.aspect)
        else:
            _absent(axes, entry.truth[box].shape, entry.aspect)
    underlay = next(
        (entry.images[m] for m in order if m in entry.images), np.zeros(entry.truth.shape)
    )
    for axes, (title, labels) in zip(panels[len(order) :], _maps(entry, rows), strict=True):
        _caption(axes, title)
        _show(axes, underlay[box], entry.aspect)
        axes.imshow(_paint(labels[box], colours), interpolation="nearest", aspect=entry.aspect)


def _maps(entry: CaseSlices, rows: Sequence[Score]) -> list[tuple[str, np.ndarray]]:
    own = [row for row in rows if row.case == entry.case]
    dice = {
        subset: np.mean([row.dice for row in own if row.subset == subset])
        for subset in entry.predictions
    }
    fullest = max(dice, key=lambda subset: subset.count("+"))
    worst = min(dice, key=lambda subset: dice[subset])
    everything = set(fullest.split("+")) == set(entry.images)
    given = "all scanned" if everything else f"fullest: {fullest}"
    return [
        ("truth", entry.truth),
        (f"{given}\n{100 * dice[fullest]:.1f} %", entry.predictions[fullest]),
        (f"worst: {worst}\n{100 * dice[worst]:.1f} %", entry.predictions[worst]),
    ]


def _brain_box(entry: CaseSlices, margin: int = 4) -> tuple[slice, slice]:
    inside = np.any([image > 0 for image in entry.images.values()] or [entry.truth > 0], axis=0)
    if not inside.any():
        return slice(None), slice(None)
    low, high = np.argwhere(inside).min(0), np.argwhere(inside).max(0)
    rows, columns = (
        slice(max(a - margin, 0), b + margin + 1) for a, b in zip(low, high, strict=True)
    )
    return rows, columns


def _show(axes: Axes, image: np.ndarray, aspect: float) -> None:
    axes.imshow(image.astype(np.float32), cmap="gray", vmin=0, vmax=1, aspect=aspect)
    axes.set_axis_off()


def _absent(axes: Axes, shape: tuple[int, ...], aspect: float) -> None:
    axes.imshow(np.ones(shape), cmap="gray", vmin=0, vmax=1, aspect=aspect)
    axes.text(
        0.5, 0.5, "absent", transform=axes.transAxes, ha="center", va="center", color="#777777"
    )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color="#bbbbbb", linestyle="--")


def _caption(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=8.5, color=INK)


def _paint(labels: np.ndarray, colours: Mapping[int, str]) -> np.ndarray:
    painted = np.zeros((*labels.shape, 4))
    for value, colour in colours.items():
        painted[labels == value] = to_rgba(colour, _OPACITY)
    return painted
