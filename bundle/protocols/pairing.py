"""Giving the cases of a list their files: what the user's folder has, by the names of the cases."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.data.patients import SECTIONS, patient_of, shared_patients
from bundle.modalities import BRATS_MODALITIES
from bundle.protocols.form import RELEASES, Protocol
from bundle.protocols.lists import Row

_EXAMPLES = 3
Sections = Mapping[str, Sequence[Row]]


@dataclass
class Paired:
    """A datalist, and what it lacks of the protocol.

    Attributes:
        sections: section -> datalist items with absolute paths; a modality that the protocol
            withholds is None.
        unknown: identifiers of the list that the folder has no case for.
        incomplete: one line for each case that lacks a file that the protocol gives it.
        unused: how many cases of the folder are in no list.
    """

    sections: dict[str, list[dict[str, Any]]]
    unknown: list[str] = field(default_factory=list)
    incomplete: dict[str, str] = field(default_factory=dict)
    unused: int = 0


def pair(rows: Sections, items: Iterable[Mapping[str, Any]]) -> Paired:
    """Pair the rows of the lists with the cases of a folder, by name.

    Args:
        rows: section -> rows.
        items: datalist items of the folder, from `bundle.data.survey.survey`.
    """
    by_name = {str(item["case"]): item for item in items}
    paired = Paired({section: [] for section in SECTIONS})
    for section in SECTIONS:
        for row in rows.get(section, ()):
            item = by_name.get(row.case)
            if item is None:
                paired.unknown.append(row.case)
                continue
            lacks = [name for name in row.kept if name not in item["image"]]
            lacks += [] if item.get("label") else ["label"]
            if lacks:
                paired.incomplete[row.case] = f"case {row.case}: no file of {', '.join(lacks)}"
                continue
            paired.sections[section].append(_item(item, row))
    named = {row.case for section in rows.values() for row in section}
    paired.unused = len(by_name.keys() - named)
    return paired


def _item(item: Mapping[str, Any], row: Row) -> dict[str, Any]:
    here = [name for name in BRATS_MODALITIES if name in item["image"]]
    image = {name: item["image"][name] if name in row.kept else None for name in here}
    return {**item, "image": image, **({"site": row.site} if row.site else {})}


def check_release(
    rows: Sections, items: Sequence[Mapping[str, Any]], protocol: Protocol, root: Path
) -> None:
    """Refuse a folder of another release, and lists of another one.

    Raises:
        ValueError: no identifier of the lists is a case of the folder, saying what both are.
    """
    listed = [row.case for section in rows.values() for row in section]
    cases = {str(item["case"]) for item in items}
    if cases & set(listed):
        return
    raise ValueError(
        f"{protocol.name}: none of its {len(listed)} cases is under {root}. The list is of "
        f"{release_of(listed)}, such as {listed[0]}; the folder holds {release_of(cases)}, such as "
        f"{min(cases)}. Give the folder of {protocol.release}."
    )


def release_of(cases: Iterable[str]) -> str:
    """Name the release whose identifiers most of the names are; 'no known release' = none."""
    counts = Counter(
        release
        for case in cases
        for release, pattern in RELEASES.items()
        if re.match(pattern, case.rpartition("/")[2])
    )
    return counts.most_common(1)[0][0] if counts else "no known release"


def refuse_missing(
    paired: Paired, protocol: Protocol, root: Path, problems: Sequence[str] = ()
) -> None:
    """Refuse a folder that lacks cases or files of the lists.

    Args:
        paired: what was paired.
        protocol: whose lists they are.
        root: the folder.
        problems: what else is wrong with the folder, which may be why a case is not found.

    Raises:
        ValueError: naming how many and the first.
    """
    lines = []
    if paired.unknown:
        few = ", ".join(paired.unknown[:_EXAMPLES])
        count = len(paired.unknown)
        lines.append(f"{count} case{'s' * (count > 1)} of the lists not in the folder, first {few}")
    if paired.incomplete:
        count = len(paired.incomplete)
        few = "; ".join(list(paired.incomplete.values())[:_EXAMPLES])
        lines.append(f"{count} case{'s' * (count > 1)} without all files, first: {few}")
    if lines:
        also = f" In the folder, {problems[0]}" if problems else ""
        raise ValueError(
            f"{protocol.name} and {root}: {'; '.join(lines)}.{also} Give the whole folder of "
            f"{protocol.release}, or go on with what is there: --partial true, which the datalist "
            "records."
        )


def move_validation(paired: Paired, share: float) -> None:
    """Take validation cases out of training, the same ones every time.

    The patients of each site are ordered by the SHA-256 of their names; a site with two patients or
    more gives one at least, and keeps one.

    Args:
        paired: changed in place.
        share: of each site's patients, 0 to 1, both left out.
    """
    sites: dict[str | None, dict[str, list[dict[str, Any]]]] = {}
    for item in paired.sections["training"]:
        patients = sites.setdefault(item.get("site"), {})
        patients.setdefault(patient_of(item), []).append(item)
    moved: set[str] = set()
    for patients in sites.values():
        order = sorted(patients, key=lambda name: hashlib.sha256(name.encode()).digest())
        count = min(max(round(share * len(order)), 1), len(order) - 1)
        moved |= {str(item["case"]) for name in order[:count] for item in patients[name]}
    training = paired.sections["training"]
    paired.sections["validation"] = [item for item in training if item["case"] in moved]
    paired.sections["training"] = [item for item in training if item["case"] not in moved]


def refuse_shared_patients(paired: Paired, protocol: Protocol) -> None:
    """Refuse lists that have a patient in two sections.

    Raises:
        ValueError: naming how many and the first.
    """
    if shared := shared_patients(paired.sections):
        count = len(shared)
        raise ValueError(
            f"{protocol.name}: {count} patient{'s' * (count > 1)} in two sections, first: "
            f"{shared[0]}"
        )
