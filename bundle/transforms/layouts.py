"""How a predicted segmentation is named and numbered: our own way, or a challenge's.

- `patchwork`: `<case>_pred.nii.gz`, and the labels that `written_labels` says.
- `brats2026`: `<case>.nii.gz`, and the labels of BraTS 2026: 1 non-enhancing core (NETC), 2
  surrounding FLAIR hyperintensity (SNFH), 3 enhancing tissue (ET), 4 resection cavity (RC). The
  case's name is the challenge's id, such as BraTS-GLI-00000-000.
"""

from __future__ import annotations

from collections.abc import Mapping

from bundle.data.filenames import PREDICTION, file_endings, split_name
from bundle.regions import Regions, known_labels

# What comes between the case's name and the end of the file's.
LAYOUTS: Mapping[str, str] = {"patchwork": "pred", "brats2026": ""}
# Which of the regions TC, WT, ET and RC a voxel lies in, and its number in BraTS 2026.
_BRATS_2026 = {
    frozenset({"TC", "WT"}): 1,
    frozenset({"WT"}): 2,
    frozenset({"TC", "WT", "ET"}): 3,
    frozenset({"RC"}): 4,
}


def postfix_of(layout: str) -> str:
    """Return what the name of a predicted segmentation has after the case; may be empty.

    Raises:
        ValueError: no such layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"expected layout {' or '.join(LAYOUTS)}, got {layout!r}")
    return LAYOUTS[layout]


def labels_of(
    layout: str, regions: Regions, written_labels: Mapping[str | int, int] | None
) -> dict[str | int, int]:
    """Say which label values to write in place of those of the regions.

    Args:
        layout: one of `LAYOUTS`.
        regions: the region table.
        written_labels: what `patchwork` writes; `brats2026` does not ask.

    Returns:
        Own value -> written value.

    Raises:
        ValueError: no such layout, or regions that BraTS 2026 has no number for.
    """
    postfix_of(layout)
    if layout == "patchwork":
        return dict(written_labels or {})
    numbers = {}
    for label in known_labels(regions):
        inside = frozenset(name for name, values in regions.items() if label in map(int, values))
        if inside not in _BRATS_2026:
            raise ValueError(
                "layout brats2026: expected the regions TC, WT and ET, and RC if need be, of which "
                "each voxel lies in WT, in TC and WT, in all three, or in RC alone; got label "
                f"{label} in {sorted(inside)}. Use --layout patchwork, and written_labels."
            )
        numbers[label] = _BRATS_2026[inside]
    if len({*numbers.values()}) < len(numbers) or not {1, 2, 3} <= {*numbers.values()}:
        raise ValueError(
            "layout brats2026: expected one label for each of NETC (in TC and WT), SNFH (in WT) "
            f"and ET (in all three), got these numbers for the labels of the regions: {numbers}. "
            "Use --layout patchwork, and written_labels."
        )
    return numbers


def check_name(name: str, case: str, modalities: tuple[str, ...]) -> None:
    """Refuse a file name that would be read as a scan or a label the next time.

    Args:
        name: of the file that a case is going to get.
        case: for the message.
        modalities: the vocabulary.

    Raises:
        ValueError: it would.
    """
    role = split_name(name, file_endings(modalities))[1]
    if role not in (None, PREDICTION):
        raise ValueError(
            f"layout brats2026: the segmentation of case {case!r} would be called {name}, which "
            f"reads as a file of {role}. Rename the case in the datalist, or use --layout "
            "patchwork."
        )
