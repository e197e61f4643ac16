"""The check of one case, which reports all its problems together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.data.labels import LabelMap, read_labels
from bundle.data.plausibility.judge import Suspicion, judge
from bundle.data.plausibility.measure import CaseMeter, header_numbers
from bundle.data.plausibility.measured import Measured
from bundle.data.volumes import (
    CaseError,
    Grid,
    blank_warning,
    check_grids,
    read_case,
    read_grid,
)
from bundle.regions import Regions

# In an item: True = its files were checked as somebody asked, and need not be measured again.
CHECKED = "checked"


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
    def refused_if_strict(self) -> list[str]:
        """One line for each suspicion with which no result can be right."""
        return [str(found) for found in self.suspicions if found.refused != "never"]

    @property
    def blank_warnings(self) -> list[str]:
        """One line for each blank modality."""
        case, image = str(self.item["case"]), self.item["image"]
        return [blank_warning(case, name, image[name]) for name in self.blank]

    @property
    def warnings(self) -> list[str]:
        """One line for each blank modality, and one for each suspicion."""
        return self.blank_warnings + [str(suspicion) for suspicion in self.suspicions]


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
        grid, forms_mm = _check_headers(image | _label_path(item), case)
        return Finding(item, grid=grid, measured=Measured(header_numbers(grid, forms_mm)))
    problems: list[str] = []
    label: LabelMap | None = None
    for path in _label_path(item).values():
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
    forms_mm = volumes.forms_mm | ({"label": label.grid.forms_mm} if label else {})
    measured = meter.measure(volumes.grid, forms_mm)
    if lines := impossible(case, measured, image):
        raise CaseError("\n".join(lines))
    return Finding(item, tuple(volumes.blank), volumes.grid, values, measured)


def impossible(case: str, measured: Measured, files: Mapping[str, str | Path]) -> list[str]:
    """Say what cannot be true of a case, so that it is refused always: one line each.

    Args:
        case: the case's name.
        measured: from its files.
        files: modality -> path, for the message.
    """
    found = [found for found in judge(case, measured.numbers) if found.refused == "always"]
    lines = []
    for suspicion in found:
        paths = dict.fromkeys(str(files[n]) for n in suspicion.where.split(" and ") if n in files)
        lines.append(f"{suspicion} Read from {' and '.join(paths)}.")
    return lines


def _label_path(item: Mapping[str, Any]) -> dict[str, str]:
    return {"label": item["label"]} if item.get("label") else {}


def _check_headers(files: Mapping[str, str], case: str) -> tuple[Grid, dict[str, float]]:
    """Return the grid that all files share, and by file how far apart qform and sform are."""
    grids: dict[Path, Grid] = {}
    forms_mm: dict[str, float] = {}
    problems = []
    for name, path in files.items():
        try:
            grids[Path(path)] = grid = read_grid(path, case)
            forms_mm[name] = grid.forms_mm
        except CaseError as error:
            problems.append(str(error))
    try:
        check_grids(grids, case)
    except CaseError as error:
        problems.append(str(error))
    if problems:
        raise CaseError("\n".join(problems))
    return next(iter(grids.values())), forms_mm


def _nothing_present(case: str, blank: Sequence[str]) -> str:
    why = f"the volumes of {', '.join(blank)} are constant" if blank else "no modality is named"
    return f"case {case}: nothing is present, {why}. Take the case out of the datalist."
