"""Groups of files that may be read in two ways: each is named, with what to do, and left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bundle.data.filenames import Name, case_key


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
                f"{', '.join(paths)}. Move all but one elsewhere.",
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
    for same in _by(groups, lambda group: group.case.casefold()).values():
        names = sorted({group.case for group in same})
        if len(names) > 1:
            held = " and ".join(f"{g.case} ({', '.join(sorted(g.modalities))})" for g in same)
            line = (
                f"cases {held}: their names differ in upper and lower case alone. Spell them alike "
                "if this is one patient, and differently if these are two."
            )
            doubts.append(Doubt(line, same))
    return doubts


def one_patient_questions(groups: Iterable[Case]) -> list[Doubt]:
    """Ask whether a folder of scans with different names, one of each modality, is one patient.

    So it looks where a scanner's series stand in the names: T1_AX_10_t1.nii, FLAIR_21_fla.nii. No
    question where two have a modality in common, or each its label: those are several patients.
    Where the folder has the name of one of them, that one may have several scans.
    """
    doubts = []
    for home, here in _by(groups, lambda group: group.home).items():
        held = [modality for group in here for modality in group.modalities]
        own = case_key(home.name).lower()
        single = all(len(g.modalities) == 1 or case_key(g.case).lower() == own for g in here)
        labels = sum(bool(group.labels) for group in here)
        names = {group.case.casefold() for group in here}
        if len(names) > 1 and single and len(held) == len(set(held)) and labels < 2:
            files = ", ".join(_first(group).name for group in here[:4])
            line = (
                f"folder {home}: {len(here)} names with one scan each, no modality twice, such as "
                f"{files}. Is this one patient? Then name the scans alike, such as "
                f"{home.name}_t1.nii.gz and {home.name}_flair.nii.gz. If these are several "
                "patients, give each a folder of its own."
            )
            doubts.append(Doubt(line, here))
    return doubts


def _first(group: Case) -> Path:
    return next(name.path for name in group.members)


def _by(groups: Iterable[Case], key) -> dict:
    found = defaultdict(list)
    for group in groups:
        found[key(group)].append(group)
    return found
