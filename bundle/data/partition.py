"""Sharing out a datalist among the sites of a federation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from bundle.data.census import modality_counts, table
from bundle.data.datalist import (
    LABELLED_SECTIONS,
    load_datalist,
    write_datalist,
)
from bundle.data.partition_csv import Owners, read_owners
from bundle.data.patients import SECTIONS, patient_of
from bundle.data.site_names import WHOLE, check_apart, check_site
from bundle.modalities import BRATS_MODALITIES, Subset, check_modalities, parse_subset


def partition(
    datalist: str | Path,
    output_dir: str | Path,
    csv: str | Path | None = None,
    plan: str | None = None,
    seed: int = 0,
    modalities: Sequence[str] = BRATS_MODALITIES,
) -> dict[str, dict[str, Any]]:
    """Write one datalist a site, and `datalist.json` with all cases and their sites.

    Training and validation cases go to the sites; testing stays whole and is only in
    `datalist.json`. All scans of a patient go to one site under a plan.

    Args:
        datalist: the datalist to share out.
        output_dir: gets `<site>.json` for every site, and `datalist.json`.
        csv: a file in the form of the FeTS challenge, columns `Partition_ID` and `Subject_ID` (a
            case or a patient), and optionally `Modalities`, such as "t1+flair"; see
            `bundle.data.partition_csv.read_owners`.
        plan: or the sites' modalities, such as "a:t1+t1ce;b:t2+flair"; names may be left out
            (site-1, ...). The patients are shuffled and dealt out as evenly as possible.
        seed: of the shuffle.
        modalities: the vocabulary.

    Returns:
        Site -> its datalist as written, and "datalist" -> the whole.

    Raises:
        ValueError: both or neither of `csv` and `plan`; a plan or CSV that cannot be read; a site
            without any case; an output that would overwrite `datalist`.
    """
    check_modalities(modalities)
    if (csv is None) == (plan is None):
        raise ValueError(f"give either csv or plan, got csv={csv} and plan={plan}")
    source = load_datalist(datalist, modalities)
    if plan is not None:
        sites = parse_plan(plan, modalities)
        owners, note = deal(source, sites, seed), {"plan": str(plan), "seed": seed}
    else:
        owners, note = read_owners(csv, modalities), {"csv": Path(csv).name}
        sites = dict.fromkeys(sorted({site for site, _ in owners.values()}, key=_natural))
    parts, left_out = _share_out(source, owners, sites)
    left_out += _unknown_subjects(source, owners)
    for site in sites:
        if not any(parts[site][section] for section in LABELLED_SECTIONS):
            raise ValueError(_empty_site(site, left_out))
    paths = {name: Path(output_dir) / f"{name}.json" for name in parts}
    _check_apart(paths.values(), datalist)
    for name, part in parts.items():
        write_datalist(part | {"partitioned": note}, paths[name])
    print(_report(parts, sites, modalities, left_out))
    return parts


def parse_plan(plan: str, modalities: Sequence[str]) -> dict[str, Subset]:
    """Read "a:t1+t1ce;t2" as {'a': ('t1', 't1ce'), 'site-2': ('t2',)}.

    Raises:
        ValueError: no site, an unknown modality, a name twice, or one that NVFlare refuses.
    """
    sites: dict[str, Subset] = {}
    entries = [entry.strip() for entry in str(plan).split(";") if entry.strip()]
    for number, entry in enumerate(entries, start=1):
        name, colon, subset = entry.rpartition(":")
        name = check_site(name.strip() if colon else f"site-{number}")
        if name in sites:
            raise ValueError(
                f"plan: site {name!r} is named twice in {plan!r}. Give each site a name of its own."
            )
        sites[name] = parse_subset(subset, modalities)
    check_apart(sites, f"plan {plan!r}")
    if not sites:
        raise ValueError(f"plan: expected sites such as 'a:t1+t1ce;b:t2+flair', got {plan!r}")
    return sites


def deal(datalist: Mapping[str, Any], sites: Mapping[str, Subset], seed: int) -> Owners:
    """Deal shuffled patients to the sites in turn, section by section.

    The second section goes on where the first ended, so that no site gets the extra case of both.

    Returns:
        Case -> (site, the site's modalities).
    """
    rng, turns, owners = np.random.default_rng(seed), cycle(sites.items()), {}
    for section in LABELLED_SECTIONS:
        patients = sorted({patient_of(item) for item in datalist[section]})
        rng.shuffle(patients)
        owner = dict(zip(patients, turns, strict=False))
        owners |= {item["case"]: owner[patient_of(item)] for item in datalist[section]}
    return owners


def _share_out(
    source: Mapping[str, Any], owners: Owners, sites: Iterable[str]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    notes = {key: value for key, value in source.items() if key not in SECTIONS}
    parts = {name: {s: [] for s in LABELLED_SECTIONS} | notes for name in (*sites, WHOLE)}
    parts[WHOLE]["testing"] = source["testing"]
    left_out = []
    for section in LABELLED_SECTIONS:
        for item in source[section]:
            owner = owners.get(item["case"]) or owners.get(patient_of(item))
            if owner is None:
                left_out.append(f"case {item['case']} ({section}): in no partition")
                continue
            site, subset = owner
            image = {name: file for name, file in item["image"].items() if name in subset}
            if not image:
                left_out.append(f"case {item['case']} ({section}): has nothing that {site} scans")
                continue
            for name in (site, WHOLE):
                parts[name][section].append({**item, "image": image, "site": site})
    return parts, left_out


def _unknown_subjects(source: Mapping[str, Any], owners: Owners) -> list[str]:
    items = [item for section in SECTIONS for item in source[section]]
    known = {item["case"] for item in items} | {patient_of(item) for item in items}
    return [f"subject {name}: not in the datalist" for name in owners if name not in known]


def _check_apart(paths: Iterable[Path], source: str | Path) -> None:
    for path in paths:
        if path.resolve() == Path(source).resolve():
            raise ValueError(f"{path} is the datalist to share out. Choose another output folder.")


def _natural(name: str) -> list[Any]:
    """Sort key that puts site-2 before site-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _empty_site(site: str, left_out: Sequence[str]) -> str:
    reasons = "".join(f"\n  {line}" for line in left_out[:10])
    return (
        f"site {site}: no case is left for it. Use fewer sites or more cases, "
        f"and the names of the datalist.{reasons}"
    )


def _report(
    parts: Mapping[str, Mapping[str, Any]],
    sites: Iterable[str],
    modalities: Sequence[str],
    left_out: Sequence[str],
) -> str:
    rows = [("site", *LABELLED_SECTIONS, *modalities)]
    for site in sites:
        cases = [parts[site][section] for section in LABELLED_SECTIONS]
        counts = modality_counts([item for items in cases for item in items], modalities)
        rows.append((site, *(str(len(c)) for c in cases), *(str(counts[m]) for m in modalities)))
    lines = [table(rows), f"testing, whole: {len(parts[WHOLE]['testing'])} cases"]
    return "\n".join(lines + [f"left out: {line}" for line in left_out])
