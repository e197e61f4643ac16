"""Groups of files that may be read in two ways: each is named, with what to do, and left out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bundle.data.filenames import LABEL, Name, bare_key, case_key, fold
from bundle.data.versions import differing_words

# What tells a series, and no patient: AX_T1.nii.gz, 3D_AX_T1.nii.gz.
_SERIES = re.compile(
    r"ax(?:ial)?|sag(?:ittal)?|cor(?:onal)?|tra(?:ns(?:versal|verse)?)?|obl(?:ique)?|[23]d|mr"
    r"|[t]?se|fse|tse|spc|space|mp(?:rage|r)?|vibe|fs|fatsat|iso|blade|propeller|cube|bravo|spgr"
    r"|flash|gre|tir|ir|pre|post|native|series|scan|s?\d{1,4}|mm|t[12]|without|with|no",
    re.IGNORECASE,
)


class Case(Protocol):
    """What is asked of a group of files, see `bundle.data.survey.Group`."""

    home: Path
    case: str
    members: list[Name]

    @property
    def modalities(self) -> set[str]:
        """The modalities that it has."""

    @property
    def labels(self) -> list[Name]:
        """Its label files."""


@dataclass(frozen=True)
class Doubt:
    """One line about groups that are left out."""

    line: str
    groups: Sequence[Case]


def twins(groups: Iterable[Case]) -> list[Doubt]:
    """Find the cases that have two files for one modality, or two labels."""
    doubts = []
    for group in groups:
        files: dict[str, list[str]] = defaultdict(list)
        for name in group.members:
            files[str(name.role)].append(str(name.path))
        doubts += [
            Doubt(
                f"case {group.case}: expected one file for '{role}', got {len(paths)}: "
                f"{', '.join(paths)}. Move all but one elsewhere{_or_suffixes(group, role)}.",
                [group],
            )
            for role, paths in files.items()
            if len(paths) > 1
        ]
    return doubts


def shared_names(groups: Iterable[Case]) -> list[Doubt]:
    """Find the cases of one name in several folders."""
    doubts = []
    for case, same in _by(groups, lambda group: group.case).items():
        if len(same) > 1:
            folders = " and ".join(str(_first(group).parent) for group in same)
            line = f"case {case}: found in {folders}. Give each case a name of its own."
            doubts.append(Doubt(line, same))
    return doubts


def letter_case_twins(groups: Iterable[Case]) -> list[Doubt]:
    """Find the cases whose names differ in upper and lower case alone."""
    doubts = []
    for same in _by(groups, lambda group: fold(group.case)).values():
        names = sorted({group.case for group in same})
        if len(names) > 1:
            held = " and ".join(f"{g.case} ({', '.join(sorted(g.modalities))})" for g in same)
            line = (
                f"cases {held}: their names differ in upper and lower case alone. Spell them alike "
                "if this is one patient, and differently if these are two."
            )
            doubts.append(Doubt(line, same))
    return doubts


def differing_prefixes(groups: Iterable[Case]) -> list[Doubt]:
    """Find the cases whose scans differ in a word of preprocessing that may be part of a name."""
    doubts = []
    for group in groups:
        own = fold(group.case) in (fold(group.home.name), fold(bare_key(group.home.name)))
        pair = [] if own else differing_words(group.members, group.case)
        if pair:
            names = " and ".join(name.path.name for name in pair)
            line = (
                f"case {group.case}: the names of {names} differ before the ending in a word of "
                "preprocessing, which may be part of the case's name. Spell them alike if this is "
                "one patient, and give each patient a folder of its own if these are several."
            )
            doubts.append(Doubt(line, [group]))
    plain = {(group.home, fold(group.case)): group for group in groups}
    for group in groups:
        bare = fold(bare_key(group.case))
        other = plain.get((group.home, bare)) if bare != fold(group.case) else None
        if other and not group.modalities & other.modalities:
            line = (
                f"cases {other.case} and {group.case}: their names differ in a word of "
                "preprocessing alone, and they have no modality in common. Spell them alike if "
                "this is one patient, and give each a folder of its own if these are two."
            )
            doubts.append(Doubt(line, [other, group]))
    return doubts


def one_patient_questions(groups: Iterable[Case]) -> list[Doubt]:
    """Ask whether a folder of scans with different names, no modality twice, is one patient.

    So it looks where a scanner's series stand in the names: T1_AX_10_t1.nii, FLAIR_21_fla.nii. No
    question where two have a modality in common, or each its label: those are several patients.
    A case may have several scans where it has the folder's name, or where all names are words of
    series, such as AX and SAG.
    """
    doubts = []
    for home, here in _by(groups, lambda group: group.home).items():
        own = fold(case_key(home.name))
        single = all(len(g.modalities) == 1 or fold(case_key(g.case)) == own for g in here)
        if _apart(here) and (single or all(_is_series(g.case) for g in here)):
            files = ", ".join(_first(group).name for group in here[:4])
            scans = "one scan each, " if single else ""
            line = (
                f"folder {home}: {len(here)} names with {scans}no modality twice, such as "
                f"{files}. Is this one patient? Then name the scans alike, such as "
                f"{home.name}_t1.nii.gz and {home.name}_flair.nii.gz. If these are several "
                "patients, give each a folder of its own."
            )
            doubts.append(Doubt(line, here))
    return doubts


def one_patient_warnings(groups: Iterable[Case]) -> list[str]:
    """Name the folders that may be one patient's, and whose cases stay: names without digits."""
    lines = []
    for home, here in _by(groups, lambda group: group.home).items():
        own = fold(case_key(home.name))
        single = all(len(g.modalities) == 1 or fold(case_key(g.case)) == own for g in here)
        ids = any(map(str.isdigit, "".join(group.case for group in here)))
        if _apart(here) and not single and not ids and not all(_is_series(g.case) for g in here):
            cases = " and ".join(sorted(group.case for group in here)[:3])
            lines.append(
                f"folder {home}: the cases {cases} have no modality in common. If this is one "
                "patient, name the scans alike."
            )
    return lines


def _apart(here: Sequence[Case]) -> bool:
    """True = several names that have no modality in common, with one label at most."""
    held = [modality for group in here for modality in group.modalities]
    labels = sum(bool(group.labels) for group in here)
    names = {fold(group.case) for group in here}
    return len(names) > 1 and len(held) == len(set(held)) and labels < 2


def _is_series(case: str) -> bool:
    """True = a name that has words of scanners' series alone, and not a number alone."""
    words = [word for word in re.split(r"[\s_.+-]+", case) if word]
    return all(map(_SERIES.fullmatch, words)) and not all(map(str.isdigit, words))


def _or_suffixes(group: Case, role: str) -> str:
    """Name the way to leave a preprocessed file aside by its ending; '' = there is none."""
    for name in group.members:
        if name.role == role != LABEL and name.done:
            stem = re.sub(r"\.nii(\.gz)?$", "", name.path.name, flags=re.IGNORECASE)
            ending = stem[len(name.spelled) :].strip(" _.+-").lower()
            return f", or leave it aside by its ending, such as --suffixes other={ending}"
    return ""


def _first(group: Case) -> Path:
    return next(name.path for name in group.members)


def _by(groups: Iterable[Case], key) -> dict:
    found = defaultdict(list)
    for group in groups:
        found[key(group)].append(group)
    return found
