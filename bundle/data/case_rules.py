"""The check of one case, which reports all its problems together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.data.labels import read_labels
from bundle.data.volumes import (
    CaseError,
    Grid,
    blank_warning,
    check_grids,
    read_case,
    read_grid,
)


@dataclass(frozen=True)
class Finding:
    """What a check has found out about a good case.

    Attributes:
        item: the datalist item, as it was given.
        blank: the modalities whose volume is constant, so that they count as absent.
        grid: the voxel grid of the files; None = not read.
        labels: the label values as the file has them, 0 left out; None = no label, or not read.
    """

    item: Mapping[str, Any]
    blank: tuple[str, ...] = ()
    grid: Grid | None = None
    labels: tuple[int, ...] | None = None

    @property
    def usable(self) -> dict[str, Any]:
        """The item without its blank modalities."""
        image = {n: file for n, file in self.item["image"].items() if n not in self.blank}
        return {**self.item, "image": image}

    @property
    def warnings(self) -> list[str]:
        """One line for each blank modality."""
        case, image = str(self.item["case"]), self.item["image"]
        return [blank_warning(case, name, image[name]) for name in self.blank]


def check_case(
    item: Mapping[str, Any],
    modalities: Sequence[str],
    known_labels: Sequence[int],
    aliases: Mapping[int, int] | None = None,
    voxels: bool = True,
) -> Finding:
    """Check every file of one datalist item; each is read once.

    Args:
        item: `case`, `image` {modality: absolute path} and, optionally, `label`.
        modalities: the vocabulary.
        known_labels: the label values that the regions mention.
        aliases: as in `read_labels`.
        voxels: True = read all voxels; False = headers only, some milliseconds a case.

    Raises:
        CaseError: one line for each problem of the case.
    """
    case, image = str(item["case"]), {m: item["image"][m] for m in modalities if m in item["image"]}
    if not image:
        raise CaseError(_nothing_present(case, ()))
    if not voxels:
        return Finding(item, grid=_check_headers([*image.values(), *_label_paths(item)], case))
    problems: list[str] = []
    labels, others = None, {}
    for path in _label_paths(item):
        try:
            label = read_labels(path, case, known_labels, aliases)
            labels, others = tuple(label.counts), {Path(path): label.grid}
        except CaseError as error:
            problems.append(str(error))
    try:
        volumes = read_case(image, case, others, keep=False)
        if len(volumes.blank) == len(image) and not problems:
            problems = [_nothing_present(case, volumes.blank)]
    except CaseError as error:
        problems.insert(0, str(error))
    if problems:
        raise CaseError("\n".join(problems))
    return Finding(item, tuple(volumes.blank), volumes.grid, labels)


def _label_paths(item: Mapping[str, Any]) -> list[str]:
    return [item["label"]] if item.get("label") else []


def _check_headers(paths: Iterable[str], case: str) -> Grid:
    grids: dict[Path, Grid] = {}
    problems = []
    for path in paths:
        try:
            grids[Path(path)] = read_grid(path, case)
        except CaseError as error:
            problems.append(str(error))
    try:
        check_grids(grids, case)
    except CaseError as error:
        problems.append(str(error))
    if problems:
        raise CaseError("\n".join(problems))
    return next(iter(grids.values()))


def _nothing_present(case: str, blank: Sequence[str]) -> str:
    why = f"the volumes of {', '.join(blank)} are constant" if blank else "no modality is named"
    return f"case {case}: nothing is present, {why}. Take the case out of the datalist."
