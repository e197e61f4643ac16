"""Describing a folder of BraTS cases: what it holds, every problem, and a datalist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bundle.data.case_rules import Finding
from bundle.data.census import combination_counts, count_table, modality_counts
from bundle.data.check_cases import CheckMemo, Checks, all_suspicions, check_cases
from bundle.data.datalist import labelled, write_datalist
from bundle.data.filenames import Suffixes
from bundle.data.labels import BRATS_ALIASES
from bundle.data.patients import SECTIONS, largest_patient, name_patients, patient_of
from bundle.data.plausibility.judge import Suspicion, count_by_rule
from bundle.data.survey import survey
from bundle.data.volumes import Grid
from bundle.modalities import BRATS_MODALITIES, check_modalities
from bundle.regions import BRATS_REGIONS, Regions, check_regions, known_labels


def scan(
    root: str | Path,
    output: str | Path | None = None,
    modalities: Sequence[str] = BRATS_MODALITIES,
    regions: Regions = BRATS_REGIONS,
    aliases: Mapping[int, int] | None = BRATS_ALIASES,
    split: Sequence[float] | None = None,
    seed: int = 0,
    check: Literal["voxels", "headers", "none"] = "voxels",
    suffixes: Suffixes = None,
    patient: str | None = None,
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
        check: "voxels" = read every file, about two seconds a case; "headers" = voxel grids only;
            "none" = names only.
        suffixes: endings of file names besides the known ones, such as 'flair=fla,fla_bet'; see
            `bundle.data.filenames.read_suffixes`.
        patient: a regular expression for the start of a case's name, whose group 1 is the patient;
            None = the names of known data sets, see `bundle.data.patients`.

    Returns:
        The problems, one line each. The cases they name are left out of the datalist, but for those
        that look odd: they stay, and so do cases that share a scan.

    Raises:
        ValueError: no case found, or a parameter out of range.
        FileNotFoundError: `root` is no folder.
    """
    check_modalities(modalities)
    check_regions(regions)
    if check not in ("voxels", "headers", "none"):
        raise ValueError(
            f"check: expected 'voxels', 'headers' or 'none', got {check!r}. "
            "Give one of these words."
        )
    shares = None if split is None else check_split(split)
    found = survey(root, modalities, suffixes)
    problems = found.problems + found.unread + found.channels
    problems += name_patients(found.items, patient)
    checks = Checks(
        tuple(modalities), tuple(known_labels(regions)), dict(aliases or {}), check, dict(regions)
    )
    findings, bad = check_cases(found.items, checks, CheckMemo(None, checks), "reading")
    items = [finding.usable for finding in findings]
    datalist, parted = _sections(items, shares, seed)
    suspicions = all_suspicions(_findings_by_section(findings, datalist))
    odd = [str(suspicion) for suspicion in suspicions if suspicion.refused != "never"]
    problems += bad + parted + odd
    print(_census(root, items, findings, modalities, suspicions))
    if patients := largest_patient(items):
        print(f"\n{patients}")
    if found.predictions:
        print(f"\npredictions of this bundle, left aside: {found.predictions} files")
    notes = found.notes + _empty_sections(datalist, shares)
    print(_notes(findings, suspicions, aliases, problems, notes))
    if odd:
        print("the cases that look odd, or share a scan, stay in the datalist")
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
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Share out the patients; a case without label is left out if its patient is not in testing."""
    patients = sorted({patient_of(item) for item in labelled(items)})
    np.random.default_rng(seed).shuffle(patients)
    ends = np.rint(np.cumsum(shares or (1.0, 0.0, 0.0)) * len(patients)).astype(int)
    section_of = {patient: SECTIONS[int((ends <= i).sum())] for i, patient in enumerate(patients)}
    sections: dict[str, list[dict[str, Any]]] = {section: [] for section in SECTIONS}
    parted = []
    for item in items:
        section = section_of.get(patient_of(item), "testing")
        if item.get("label") or section == "testing":
            sections[section].append(item)
            continue
        parted.append(
            f"case {item['case']}: no label, and its patient {patient_of(item)} is in "
            f"'{section}'. It is left out, for in 'testing' it would make scores too good. "
            "Add its label, or take the patient's other scans away."
        )
    return sections, parted


def _empty_sections(
    datalist: Mapping[str, Sequence[Mapping[str, Any]]], shares: Sequence[float] | None
) -> list[str]:
    """Name the sections that got nothing although their share is above 0."""
    labels = labelled([item for section in SECTIONS for item in datalist[section]])
    count = len({patient_of(item) for item in labels})
    return [
        f"split: {section} is empty although its share is {share:g}, for there are only {count} "
        "patients with a label. Give it a larger share, or check how many patients there are: the "
        "key 'patient' names them, or --patient."
        for section, share in zip(SECTIONS, shares or (), strict=False)
        if share > 0 and not datalist[section]
    ]


def _findings_by_section(
    findings: Sequence[Finding], datalist: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, list[Finding]]:
    section_of = {str(item["case"]): name for name in SECTIONS for item in datalist[name]}
    found: dict[str, list[Finding]] = {section: [] for section in SECTIONS}
    for finding in findings:
        # A case that is in no section was left out, and is a problem already.
        if section := section_of.get(str(finding.item["case"])):
            found[section].append(finding)
    return found


def _grid_text(grid: Grid | None) -> str:
    if grid is None:
        return "not read"
    size_mm = " x ".join(f"{size:.3g}" for size in grid.spacing_mm)
    return f"{' x '.join(map(str, grid.shape))} voxels of {size_mm} mm"


def _census(
    root: str | Path,
    items: Sequence[Mapping[str, Any]],
    findings: Sequence[Finding],
    modalities: Sequence[str],
    suspicions: Sequence[Suspicion],
) -> str:
    labels = Counter(_label_text(f.labels) for f in findings if f.labels is not None)
    grids = Counter(_grid_text(f.grid) for f in findings)
    parts = [
        f"{len(items)} usable cases under {root}, {len(labelled(items))} with a label",
        count_table("modality", modality_counts(items, modalities)),
        count_table("combination", combination_counts(items, modalities)),
        count_table("voxel grid", dict(grids.most_common())),
    ]
    if labels:
        parts.append(count_table("label values", dict(labels.most_common())))
    flagged = count_by_rule(suspicions)
    if flagged:
        parts.append(count_table("odd by rule", flagged))
    return "\n\n".join(parts)


def _label_text(labels: Sequence[int]) -> str:
    return ", ".join(map(str, labels)) or "none (no tumour)"


def _notes(
    findings: Sequence[Finding],
    suspicions: Sequence[Suspicion],
    aliases: Mapping[int, int] | None,
    problems: Sequence[str],
    notes: Sequence[str],
) -> str:
    warnings = [*notes]
    warnings += [line for finding in findings for line in finding.blank_warnings]
    warnings += [str(found) for found in suspicions if found.refused == "never"]
    warnings += _mixed_conventions(findings, aliases or {})
    count = len(problems)
    head = f"{count or 'no'} problem{'' if count == 1 else 's'}"
    return "\n".join(
        ["", *(f"warning: {line}" for line in warnings), head, *(f"  {line}" for line in problems)]
    )


def _mixed_conventions(findings: Iterable[Finding], aliases: Mapping[int, int]) -> list[str]:
    labels = [finding.labels or () for finding in findings]
    return [
        f"some label files hold {source}, which is read as {target}, and others {target} itself: "
        f"make sure that {target} means the same in both (in BraTS 2024 4 is the resection cavity)"
        for source, target in aliases.items()
        if any(source in values for values in labels) and any(target in values for values in labels)
    ]
