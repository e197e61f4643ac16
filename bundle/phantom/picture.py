"""A picture of cases side by side: a column each, rows for the scans, and the labels on FLAIR.

python -m bundle.phantom.picture DATALIST PICTURE [SECTION] draws all cases of a section.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure

# Necrosis, oedema, rim; 3 is the rim of newer releases. Okabe and Ito's colours.
_COLOURS = {1: "#56B4E9", 2: "#F0E442", 3: "#D55E00", 4: "#D55E00"}
_OPACITY = 0.6
_PANEL_INCHES = 1.5


def draw_cases(root: Path, cases: Sequence[Mapping[str, Any]], modalities: Sequence[str]) -> Figure:
    """Draw the axial slice of each case that has the most tumour, its core above all.

    Args:
        root: the folder that the cases' paths are relative to.
        cases: items of a datalist, with the keys 'image' and 'label'.
        modalities: the rows; the last one is shown again under the labels.
    """
    rows, columns = len(modalities) + 1, len(cases)
    figure = Figure((columns * _PANEL_INCHES, rows * 1.25 * _PANEL_INCHES), facecolor="black")
    axes = figure.subplots(rows, columns, squeeze=False)
    for column, case in enumerate(cases):
        labels = _upright(root / case["label"])
        images = {name: _upright(root / case["image"][name]) for name in modalities}
        index = int(
            np.argmax((labels > 0).sum((0, 1)) + 4 * np.isin(labels, (1, 3, 4)).sum((0, 1)))
        )
        for row, name in enumerate((*modalities, modalities[-1])):
            panel = axes[row, column]
            panel.imshow(_grey(images[name])[:, :, index].T, cmap="gray", vmin=0, vmax=1)
            panel.set_axis_off()
            if column == 0:
                word = "labels" if row == rows - 1 else name
                panel.text(0.02, 0.97, word, color="w", va="top", transform=panel.transAxes)
        for value, colour in _COLOURS.items():
            where = (labels[:, :, index] == value).T
            layer = np.zeros((*where.shape, 4))
            layer[where] = [*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), _OPACITY]
            axes[-1, column].imshow(layer)
    figure.subplots_adjust(0, 0, 1, 1, 0.01, 0.01)
    return figure


def _upright(file: Path) -> np.ndarray:
    """Read a volume whose axes then point left, back and up."""
    image = nib.as_closest_canonical(nib.load(file))
    return np.asarray(image.dataobj)[::-1, ::-1]


def _grey(volume: np.ndarray) -> np.ndarray:
    """Scale to 0..1 between the percentiles of the brain that a viewer would choose."""
    low, high = np.percentile(volume[volume > 0], (0.5, 99.7))
    return np.clip((volume - 0.6 * low) / max(high - 0.6 * low, 1), 0, 1)


def main(datalist: str, picture: str, section: str = "training") -> None:
    """Draw the cases of a section of a datalist into a file."""
    content = json.loads(Path(datalist).read_text())
    names = [n for n in ("t1", "t1ce", "t2", "flair") if n in content["modalities"]]
    figure = draw_cases(Path(datalist).parent, content[section], names)
    figure.savefig(picture, dpi=80, facecolor="black")


if __name__ == "__main__":
    main(*sys.argv[1:])
