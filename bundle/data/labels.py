"""Reading the label file of one case, and reporting what is wrong with it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nibabel.spatialimages import SpatialImage

from bundle.data.marks import description_of, is_marked
from bundle.data.volumes import CaseError, Grid, read_volume

# BraTS wrote the enhancing tumour as 4 until 2021 and as 3 from 2023 on.
BRATS_ALIASES: Mapping[int, int] = {3: 4}

# Labels 0 to 4 scaled into 255 steps, as some converters do, come back up to 0.0079 off (1.00392).
LABEL_TOLERANCE = 0.01


class LabelMap(NamedTuple):
    """What one label file holds.

    Attributes:
        labels: (D, H, W) uint8, 0 = background, in the convention that was asked for.
        grid: where the voxels lie.
        counts: voxels of every label value as the file has it, the background left out.
    """

    labels: np.ndarray
    grid: Grid
    counts: dict[int, int]


def read_labels(
    path: str | Path, case: str, known: Sequence[int], aliases: Mapping[int, int] | None = None
) -> LabelMap:
    """Read a label map in the convention of `known`; the file is read once, to its end.

    Args:
        path: a NIfTI file; float values within 0.01 of a whole number are rounded.
        case: the case the file belongs to, for the message.
        known: the label values above the background that the regions mention.
        aliases: value in the file -> value in `known`, e.g. {3: 4}; None = none. Keys may be
            strings, as JSON writes them.

    Raises:
        CaseError: as `read_volume`; a file that inference wrote; values that are no whole numbers,
            or neither background, known nor aliased; an alias and its target in one file.
    """
    path = Path(path)
    volume = read_volume(path, case, lambda image: _check_mark(image, path, case))
    integers = _whole_numbers(volume.voxels, path, case)
    renamed = {int(source): int(target) for source, target in (aliases or {}).items()}
    counts = count_labels(integers)
    _check_aliases(counts, renamed, path, case)
    _check_values(counts, known, renamed, path, case)
    labels = integers.astype(np.uint8)
    for source, target in renamed.items():
        labels[integers == source] = target
    return LabelMap(labels, volume.grid, counts)


def count_labels(integers: np.ndarray) -> dict[int, int]:
    """Count the voxels (D, H, W) of every label value, the background 0 left out."""
    # bincount is some twenty times faster than unique, which has to sort a whole volume.
    if integers.min() >= 0 and integers.max() < 4096:
        counts = np.bincount(integers.ravel())
        values = np.flatnonzero(counts)
        pairs: Iterable[tuple[int, int]] = zip(values, counts[values], strict=True)
    else:
        pairs = zip(*np.unique(integers, return_counts=True), strict=True)
    return {int(value): int(count) for value, count in pairs if value != 0}


def _check_mark(image: SpatialImage, path: Path, case: str) -> None:
    description = description_of(image)
    if is_marked(description):
        raise CaseError(
            f"case {case}: {path.name} is no ground truth, its header says {description!r}. "
            "Give the expert's file. If an expert has corrected this one, say so once: "
            f"python -m bundle accept {shlex.quote(str(path))}"
        )


def _whole_numbers(voxels: np.ndarray, path: Path, case: str) -> np.ndarray:
    integers = np.rint(voxels)
    off = np.abs(voxels - integers) > LABEL_TOLERANCE
    if off.any():
        raise CaseError(
            f"case {case}: {path.name} must hold whole label values, "
            f"got {int(off.sum())} voxels such as {float(voxels[off][0]):.4g}. "
            "Resample labels with nearest-neighbour interpolation."
        )
    return integers.astype(np.int32)


def _check_aliases(
    counts: Mapping[int, int], aliases: Mapping[int, int], path: Path, case: str
) -> None:
    for source, target in aliases.items():
        if source != target and source in counts and target in counts:
            raise CaseError(
                f"case {case}: {path.name} holds label {source} ({counts[source]} voxels), read as "
                f"{target}, and label {target} ({counts[target]} voxels) as well. "
                "BraTS 2024 post-treatment cases use 4 for the resection cavity: "
                f"rewrite one of the two values, or remove {source} from the label aliases."
            )


def _check_values(
    counts: Mapping[int, int],
    known: Sequence[int],
    aliases: Mapping[int, int],
    path: Path,
    case: str,
) -> None:
    strange = {v: n for v, n in counts.items() if aliases.get(v, v) not in (0, *known)}
    if strange:
        listed = ", ".join(f"{value} ({count} voxels)" for value, count in strange.items())
        raise CaseError(
            f"case {case}: {path.name} holds unknown label values: {listed}. "
            f"Expected 0 and {list(known)}"
            + (f", read with the aliases {dict(aliases)}" if aliases else "")
            + ". Correct the file, or the regions and label aliases in the config."
        )
