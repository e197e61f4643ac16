"""The check of one case, which reports all its problems together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.data.labels import LabelMap, read_labels
from bundle.data.plausibility.judge import Suspicion, judge
from bundle.data.plausibility.measure import CaseMeter, Measured, voxel_numbers
from bundle.data.volumes import (
    CaseError,
    Grid,
    blank_warning,
    check_grids,
    read_case,
    read_grid,
)
from bundle.regions import Regions


@dataclass(frozen=True)
class Finding:
    """What a check has found out about a good case.

    Attributes:
        item: the datalist item, as it was given.
        blank: the modalities whose volume is constant, so that they count as absent.
        grid: the voxel grid of the files; None = not read.
        labels: the label values as the file has them, 0 left out; None = no label, or not read.
        measured: what the rules of `bundle.data.plausibility` judge by.
    """

    item: Mapping[str, Any]
    blank: tuple[str, ...] = ()
    grid: Grid | None = None
    labels: tuple[int, ...] | None = None
    measured: Measured = field(default_factory=Measured)

    @property
    def usable(self) -> dict[str, Any]:
        """The item without its blank modalities."""
        image = {n: file for n, file in self.item["image"].items() if n not in self.blank}
        return {**self.item, "image": image}

    @property
    def suspicions(self) -> list[Suspicion]:
        """What is odd about the case, which is used all the same."""
        return judge(str(self.item["case"]), self.measured.numbers)

    @property
    def warnings(self) -> list[str]:
        """One line for each blank modality, and one for each suspicion."""
        case, image = str(self.item["case"]), self.item["image"]
        blank = [blank_warning(case, name, image[name]) for name in self.blank]
        return blank + [str(suspicion) for suspicion in self.suspicions]


def check_case(
    item: Mapping[str, Any],
    modalities: Sequence[str],
    known_labels: Sequence[int],
    aliases: Mapping[int, int] | None = None,
    voxels: bool = True,
    regions: Regions | None = None,
) -> Finding:
    """Check every file of one datalist item; each is read once.

    Args:
        item: `case`, `image` {modality: absolute path} and, optionally, `label`.
        modalities: the vocabulary.
        known_labels: the label values that the regions mention.
        aliases: as in `read_labels`.
        voxels: True = read all voxels; False = headers only, some milliseconds a case.
        regions: the region table, for the rules about the label; None = they are left out.

    Raises:
        CaseError: one line for each problem of the case.
    """
    case, image = str(item["case"]), {m: item["image"][m] for m in modalities if m in item["image"]}
    if not image:
        raise CaseError(_nothing_present(case, ()))
    if not voxels:
        grid = _check_headers([*image.values(), *_label_paths(item)], case)
        return Finding(item, grid=grid, measured=Measured(voxel_numbers(grid)))
    problems: list[str] = []
    label: LabelMap | None = None
    for path in _label_paths(item):
        try:
            label = read_labels(path, case, known_labels, aliases)
        except CaseError as error:
            problems.append(str(error))
    others = {Path(item["label"]): label.grid} if label else {}
    meter = CaseMeter(regions or {}, label.labels if label else None)
    try:
        volumes = read_case(image, case, others, keep=False, look=meter.add)
        if len(volumes.blank) == len(image) and not problems:
            problems = [_nothing_present(case, volumes.blank)]
    except CaseError as error:
        problems.insert(0, str(error))
    if problems:
        raise CaseError("\n".join(problems))
    values = tuple(label.counts) if label else None
    measured = meter.measure(volumes.grid)
    return Finding(item, tuple(volumes.blank), volumes.grid, values, measured)


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
