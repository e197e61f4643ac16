"""The verb `protocol`: a published protocol's datalist, from the user's scans and clones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle import __version__
from bundle.data.census import modality_counts, table
from bundle.data.datalist import write_datalist
from bundle.data.patients import SECTIONS
from bundle.data.survey import survey
from bundle.modalities import BRATS_MODALITIES
from bundle.protocols.clone import Found, check_clones, commit_of, find_list
from bundle.protocols.counts import check_counts
from bundle.protocols.form import Protocol
from bundle.protocols.lists import Row, read_list, sha256_of
from bundle.protocols.pairing import (
    Paired,
    check_release,
    move_validation,
    pair,
    refuse_missing,
    refuse_shared_patients,
)
from bundle.protocols.table import find_protocol, rows


def list_protocols() -> str:
    """Lay out the table of the protocols' names."""
    lines = rows()
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def write_protocol(
    name: str,
    root: str | Path,
    lists: Sequence[str],
    output: str | Path,
    fold: int | None = None,
    validation: float = 0.0,
    partial: bool = False,
) -> dict[str, Any]:
    """Write the datalist of a published protocol; of the scans, only their names are read.

    Args:
        name: of the protocol, see `list_protocols`.
        root: the folder of the release, as its owners ship it.
        lists: clones of the repositories that have the lists.
        output: the datalist to write.
        fold: which fold is tested, for a protocol with folds.
        validation: share of the training patients that becomes validation, 0 to 0.5, for a protocol
            that has no validation cases of its own.
        partial: True = go on although cases of the lists are not there; the datalist says which.

    Returns:
        What was written. A modality that the protocol withholds is null.

    Raises:
        ValueError: an unknown name, lists that are not those published, a folder of another release
            or without some of the cases, or an option that does not fit the protocol.
        FileNotFoundError: no list, or no folder.
    """
    protocol = find_protocol(name)
    _check_options(protocol, fold, validation)
    clones = check_clones(lists)
    read, provenance = _read_lists(protocol, clones)
    sections = _tested(read, fold)
    found = survey(root, BRATS_MODALITIES)
    check_release(sections, found.items, protocol, Path(root))
    paired = pair(sections, found.items)
    if not partial:
        refuse_missing(paired, protocol, Path(root), [*found.problems, *found.unread])
    refuse_shared_patients(paired, protocol)
    if validation:
        move_validation(paired, validation)
    note = _note(protocol, provenance, paired, fold, validation)
    datalist = {**paired.sections, "protocol": note}
    write_datalist(datalist, output)
    print(_report(protocol, paired, output, found.problems, found.unread))
    return datalist


def _check_options(protocol: Protocol, fold: int | None, validation: float) -> None:
    folds = len(protocol.folds)
    if folds and (fold is None or not 0 <= fold < folds):
        raise ValueError(f"fold: {protocol.name} needs --fold 0 to {folds - 1}, got {fold}.")
    if not folds and fold is not None:
        raise ValueError(f"fold: {protocol.name} has no folds, got {fold}. Leave --fold out.")
    if not 0 <= validation <= 0.5:
        raise ValueError(f"validation: expected a share from 0 to 0.5, got {validation}")
    if validation and protocol.counts[1]:
        raise ValueError(
            f"validation: {protocol.name} has {protocol.counts[1]} validation cases of its own. "
            "Leave --validation out."
        )


def _read_lists(
    protocol: Protocol, clones: Sequence[Path]
) -> tuple[dict[str, list[Row]], list[dict[str, Any]]]:
    """Read and check the lists; also say of each where it came from."""
    read: dict[str, list[Row]] = {section: [] for section in SECTIONS}
    provenance = []
    for section in (section for section in SECTIONS if section in protocol.lists):
        found = find_list(clones, protocol.lists[section], protocol)
        read[section] = read_list(found.path, protocol.lists[section], protocol)
        provenance.append(_origin(found, section, len(read[section])))
    check_counts(read, protocol)
    return read, provenance


def _origin(found: Found, section: str, count: int) -> dict[str, Any]:
    return {
        "section": section,
        "file": found.place,
        "commit": commit_of(found.clone),
        "sha256": sha256_of(found.path),
        "cases": count,
    }


def _tested(read: Mapping[str, list[Row]], fold: int | None) -> dict[str, list[Row]]:
    """Move the fold that is tested from training to testing."""
    if fold is None:
        return dict(read)
    cases = read["training"]
    return {
        "training": [row for row in cases if row.fold != fold],
        "validation": [],
        "testing": [row for row in cases if row.fold == fold],
    }


def _note(
    protocol: Protocol,
    provenance: list[dict[str, Any]],
    paired: Paired,
    fold: int | None,
    validation: float,
) -> dict[str, Any]:
    lacking = [*paired.unknown, *paired.incomplete]
    return {
        "name": protocol.name,
        "release": protocol.release,
        "repository": protocol.repository,
        "licence": protocol.licence,
        "lists": provenance,
        "order_of_masks": list(protocol.order),
        **({"fold": fold} if fold is not None else {}),
        **({"validation_share": validation} if validation else {}),
        **({"partial": {"missing": len(lacking), "cases": lacking}} if lacking else {}),
        "written_by": __version__,
    }


def _report(
    protocol: Protocol,
    paired: Paired,
    output: str | Path,
    problems: Sequence[str],
    unread: Sequence[str],
) -> str:
    head = ("section", "cases", "complete", *BRATS_MODALITIES, "sites")
    lines = [head]
    for section, items in paired.sections.items():
        given = [{"image": {m: f for m, f in i["image"].items() if f}} for i in items]
        counts = modality_counts(given, BRATS_MODALITIES)
        complete = sum(len(item["image"]) == len(BRATS_MODALITIES) for item in given)
        sites = len({item["site"] for item in items if item.get("site")})
        cells = (len(items), complete, *(counts[m] for m in BRATS_MODALITIES), sites)
        lines.append((section, *map(str, cells)))
    said = [f"{protocol.name}: {protocol.note}"] if protocol.note else []
    lacking = len(paired.unknown) + len(paired.incomplete)
    if lacking == 1:
        said.append("partial: 1 case of the lists is not in the datalist, which names it")
    elif lacking:
        said.append(
            f"partial: {lacking} cases of the lists are not in the datalist, which names them"
        )
    if paired.unused:
        said.append(f"cases of the folder that are in no list: {paired.unused}")
    if not paired.sections["validation"]:
        said.append(
            "no validation case: training with validation needs some, such as --validation 0.05"
        )
    said += [f"warning: {line}" for line in (*problems, *unread)]
    return "\n".join([table(lines), *said, f"wrote {output}"])
