"""Taking stock of a folder of BraTS cases: a census, every problem, and a datalist."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from bundle.data.case_check import check_case
from bundle.data.census import combination_counts, count_table, modality_counts
from bundle.data.datalist import SECTIONS, patient_of, shared_patients, write_datalist
from bundle.data.filenames import find_cases, survey
from bundle.data.volumes import BRATS_ALIASES, CaseError, count_labels, read_grid
from bundle.modalities import BRATS_MODALITIES, check_modalities
from bundle.regions import BRATS_REGIONS, Regions, check_regions, known_labels

__all__ = ["find_cases", "scan"]

logger = logging.getLogger(__name__)


@dataclass
class _Finding:
    """What was found out about one case; `item` is None if the case cannot be used."""

    item: dict[str, Any] | None
    grid: str = "not read"
    labels: tuple[int, ...] | None = None
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def scan(
    root: str | Path,
    output: str | Path | None = None,
    modalities: Sequence[str] = BRATS_MODALITIES,
    regions: Regions = BRATS_REGIONS,
    aliases: Mapping[int, int] | None = BRATS_ALIASES,
    split: Sequence[float] | None = None,
    seed: int = 0,
    check: Literal["voxels", "headers", "none"] = "voxels",
) -> list[str]:
    """Print what a folder holds and what is wrong with it; write a datalist of the good cases.

    Args:
        root: a folder of cases in any BraTS naming.
        output: the datalist to write; None = none.
        modalities: the vocabulary.
        regions: the region table, whose label values are the known ones.
        aliases: other label values and how to read them; None = none.
        split: shares of the patients for training, validation and testing, with sum 1; two shares
            leave testing empty. None = everything into training. A case without label goes to
            testing in any case.
        seed: of the split.
        check: "voxels" = read every file, about half a second a case; "headers" = voxel grids only;
            "none" = names only.

    Returns:
        The problems, one line each; the cases they name are left out of the datalist.

    Raises:
        ValueError: no case found, or a parameter out of range.
        FileNotFoundError: `root` is no folder.
    """
    check_modalities(modalities)
    check_regions(regions)
    if check not in ("voxels", "headers", "none"):
        raise ValueError(f"check: expected 'voxels', 'headers' or 'none', got {check!r}")
    shares = None if split is None else check_split(split)
    found, problems = survey(root, modalities)
    findings = _examine(found, modalities, known_labels(regions), aliases, check)
    items = [finding.item for finding in findings if finding.item is not None]
    datalist = _sections(items, shares, seed)
    problems += [line for finding in findings for line in finding.problems]
    problems += shared_patients(datalist)
    print(_census(root, items, findings, modalities))
    print(_notes(findings, aliases, problems))
    if output is not None and not items:
        print(f"no usable case, {output} was not written")
    elif output is not None:
        write_datalist(datalist, output)
        sizes = ", ".join(f"{len(datalist[section])} {section}" for section in SECTIONS)
        print(f"wrote {output}: {sizes}")
    return problems


def check_split(split: Sequence[float]) -> tuple[float, ...]:
    """Return the shares of training, validation and testing, three of them.

    Raises:
        ValueError: not two or three shares, one below 0, or a sum other than 1.
    """
    shares = tuple(float(share) for share in split)
    if len(shares) not in (2, 3) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(
            f"split: expected two or three shares with sum 1, such as 0.7,0.1,0.2, got {shares}"
        )
    return (*shares, 0.0)[:3]


def _sections(
    items: Iterable[dict[str, Any]], shares: Sequence[float] | None, seed: int
) -> dict[str, list[dict[str, Any]]]:
    labelled = [item for item in items if item.get("label")]
    patients = sorted({patient_of(item) for item in labelled})
    np.random.default_rng(seed).shuffle(patients)
    ends = np.rint(np.cumsum(shares or (1.0, 0.0, 0.0)) * len(patients)).astype(int)
    place = {patient: int((ends <= i).sum()) for i, patient in enumerate(patients)}
    sections: dict[str, list[dict[str, Any]]] = {section: [] for section in SECTIONS}
    for item in items:
        section = SECTIONS[place[patient_of(item)]] if item.get("label") else "testing"
        sections[section].append(item)
    return sections


def _examine(
    items: Sequence[dict[str, Any]],
    modalities: Sequence[str],
    known: Sequence[int],
    aliases: Mapping[int, int] | None,
    check: str,
) -> list[_Finding]:
    def examine(item: dict[str, Any]) -> _Finding:
        if check == "none":
            return _Finding(item)
        try:
            voxels = check == "voxels"
            clean, warnings = check_case(item, modalities, known, aliases, voxels)
        except CaseError as error:
            return _Finding(None, problems=str(error).split("\n"))
        return _Finding(clean, _grid_of(clean), _labels_of(clean) if voxels else None, warnings)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        findings = pool.map(examine, items)
        return list(tqdm(findings, "reading", len(items), leave=False, disable=None))


def _grid_of(item: Mapping[str, Any]) -> str:
    grid = read_grid(next(iter(item["image"].values())), item["case"])
    size_mm = " x ".join(f"{size:.3g}" for size in grid.spacing_mm)
    return f"{' x '.join(map(str, grid.shape))} voxels of {size_mm} mm"


def _labels_of(item: Mapping[str, Any]) -> tuple[int, ...] | None:
    return tuple(count_labels(item["label"], item["case"])) if item.get("label") else None


def _census(
    root: str | Path,
    items: Sequence[Mapping[str, Any]],
    findings: Iterable[_Finding],
    modalities: Sequence[str],
) -> str:
    good = [finding for finding in findings if finding.item is not None]
    labels = Counter(_label_text(f.labels) for f in good if f.labels is not None)
    labelled = sum(bool(item.get("label")) for item in items)
    parts = [
        f"{len(items)} usable cases under {root}, {labelled} with a label",
        count_table("modality", modality_counts(items, modalities)),
        count_table("combination", combination_counts(items, modalities)),
        count_table("voxel grid", dict(Counter(f.grid for f in good).most_common())),
    ]
    if labels:
        parts.append(count_table("label values", dict(labels.most_common())))
    return "\n\n".join(parts)


def _label_text(labels: Sequence[int]) -> str:
    return ", ".join(map(str, labels)) or "none (no tumour)"


def _notes(
    findings: Iterable[_Finding], aliases: Mapping[int, int] | None, problems: Sequence[str]
) -> str:
    findings = list(findings)
    warnings = [line for finding in findings for line in finding.warnings]
    warnings += _mixed_conventions(findings, aliases or {})
    count = len(problems)
    head = f"{count or 'no'} problem{'' if count == 1 else 's'}"
    return "\n".join(
        ["", *(f"warning: {line}" for line in warnings), head, *(f"  {line}" for line in problems)]
    )


def _mixed_conventions(findings: Iterable[_Finding], aliases: Mapping[int, int]) -> list[str]:
    labels = [finding.labels or () for finding in findings]
    return [
        f"some label files hold {source}, which is read as {target}, and others {target} itself: "
        f"make sure that {target} means the same in both (in BraTS 2024 4 is the resection cavity)"
        for source, target in aliases.items()
        if any(source in values for values in labels) and any(target in values for values in labels)
    ]
