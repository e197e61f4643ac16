"""Finding the cases below a folder by the names of files and folders; nothing but names is read.

One folder a case, several cases in one folder, a folder for each modality (`p01/t1/`, BIDS's
`anat/`), labels in a folder of their own, and the layouts of `bundle.data.dataset_json` are
understood, at any depth (HGG/, LGG/). What may be read in two ways is named and left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.data.ambiguous_names import (
    differing_prefixes,
    letter_case_twins,
    one_patient_questions,
    one_patient_warnings,
    shared_names,
    twins,
)
from bundle.data.case_names import check_case_name
from bundle.data.dataset_json import DATASET_JSON, Layout, read_layout
from bundle.data.doubtful_names import settle_doubtful
from bundle.data.filenames import (
    LABEL,
    OTHER,
    PREDICTION,
    Name,
    Suffixes,
    bare_key,
    file_endings,
    fold,
    might_be_volume,
    read_name,
    readable_endings,
)
from bundle.data.folders import plain_path, walk
from bundle.data.groups import Group, group_names
from bundle.data.shared_files import shared_files
from bundle.data.versions import aside_line, plain_versions

_EXAMPLES = 3


@dataclass
class Survey:
    """What the names below a folder say.

    Attributes:
        items: datalist items with absolute paths, ordered by case, each with one modality or more.
        volumes_4d: items whose `image` is a file that holds all channels.
        problems: one line for each case that is ambiguous and left out, and for each label that
            joins no case.
        unread: one line if there are NIfTI files that are not understood.
        predictions: how many files are predictions of this bundle.
        channels: one line for each dataset.json with 4D files: how many, and their channels.
        notes: warnings about cases that stay.
    """

    items: list[dict[str, Any]] = field(default_factory=list)
    volumes_4d: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    predictions: int = 0
    channels: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def survey(root: str | Path, modalities: Sequence[str], suffixes: Suffixes = None) -> Survey:
    """Find the cases under a folder, each with at least one modality; nothing is opened.

    A case is named after its folder if its files are, else after the prefix that its files share.

    Args:
        root: the folder to search, all levels, see `bundle.data.folders.walk`.
        modalities: the vocabulary.
        suffixes: endings of file names besides the known ones, see `read_suffixes`.

    Raises:
        ValueError: no case at all, or `suffixes` out of form.
        FileNotFoundError: `root` is no folder.
    """
    root = plain_path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"expected a folder of cases, got {root}, which is no folder")
    endings = file_endings(modalities, suffixes)
    folders, problems = walk(root)
    found = Survey(problems=problems)
    names, files_4d = _read_names(root, folders, endings, found)
    found.predictions = sum(name.role == PREDICTION for name in names)
    understood = [name for name in names if name.role in (*modalities, LABEL)]
    groups, strange = group_names(root, understood, endings)
    found.unread = _unread_line([*(n for n in names if n.role is None), *strange], root)
    groups = _join_labels(groups, {path.name.split(".nii")[0] for path in files_4d}, root, found)
    _settle(groups, modalities, root, found)
    found.volumes_4d = [
        {"case": path.name.split(".nii")[0], "image": str(path)} for path in sorted(files_4d)
    ]
    if not (found.items or found.problems or found.volumes_4d):
        raise ValueError(_none_found(root, endings, modalities, found))
    return found


def _read_names(
    root: Path, folders: Mapping[Path, list[str]], endings: Mapping[str, str], found: Survey
) -> tuple[list[Name], list[Path]]:
    """Read every file name, by a dataset.json where one governs the folder."""
    volumes = [f / name for f, names in folders.items() for name in names if might_be_volume(name)]
    layouts = _find_layouts(root, folders, volumes, endings, found)
    names: list[Name] = []
    files_4d: dict[Path, list[Path]] = defaultdict(list)
    for path in volumes:
        name = read_name(path, endings)
        layout = next((layouts[p] for p in path.parents if p in layouts), None)
        by_layout = layout.read(path) if layout else None
        if by_layout and not (name.role == by_layout.role == LABEL):
            name = by_layout
        if layout and name.role is None and not by_layout and layout.is_4d(path):
            files_4d[layout.path].append(path)
        else:
            names.append(name)
    names = settle_doubtful(names)
    for layout in layouts.values():
        if layout.path in files_4d:
            order = ", ".join(layout.spelled.values())
            count = len(files_4d[layout.path])
            found.channels.append(
                f"{count} 4D file{'s' * (count > 1)} beside {layout.path}, channels {order}: "
                "inference takes them as they are. Training needs one file a modality: split them."
            )
    return names, [path for paths in files_4d.values() for path in paths]


def _find_layouts(
    root: Path,
    folders: Mapping[Path, list[str]],
    volumes: Iterable[Path],
    endings: Mapping[str, str],
    found: Survey,
) -> dict[Path, Layout]:
    places = [folder for folder, names in folders.items() if DATASET_JSON in names]
    # Who names imagesTs alone has the dataset.json beside it.
    if root.name.lower().startswith("images") and (root.parent / DATASET_JSON).is_file():
        places.append(root.parent)
    layouts: dict[Path, Layout] = {}
    for folder in places:
        try:
            inside = [path for path in volumes if folder in path.parents]
            layout = read_layout(folder / DATASET_JSON, endings, inside)
        except (ValueError, OSError) as error:
            found.problems.append(f"{error}.")
            continue
        if layout is not None:
            layouts[folder] = layout
            found.problems += layout.problems
    return layouts


def _join_labels(groups: list[Group], cases_4d: set[str], root: Path, found: Survey) -> list[Group]:
    """Give labels in folders of their own to the one case of their name."""
    cases = [group for group in groups if group.modalities]
    lost: list[str] = []
    for group in (group for group in groups if not group.modalities):
        owners = [c for c in cases if fold(c.case) == fold(group.case)] or [
            c for c in cases if fold(bare_key(c.case)) == fold(group.case)
        ]
        if len(owners) == 1:
            owners[0].members += group.members
        elif group.case not in cases_4d:
            lost += [str(name.path.relative_to(root)) for name in group.members]
    if lost:
        found.problems.append(
            f"{len(lost)} label{'s' * (len(lost) > 1)} join{'s' * (len(lost) == 1)} no case, such "
            f"as {', '.join(lost[:_EXAMPLES])}. Give a label the name of its case's scans, such as "
            "p01_seg.nii.gz beside p01_t1.nii.gz, or move it elsewhere."
        )
    return cases


def _settle(groups: Sequence[Group], modalities: Sequence[str], root: Path, found: Survey) -> None:
    """Turn groups into items, and name those that may be read in two ways."""
    pairs = []
    for group in groups:
        group.members, aside = plain_versions(group.members)
        taken = {name.role: name.path for name in group.members}
        pairs += [(name.path, taken[name.role]) for name in aside]
    found.notes += aside_line(pairs) + one_patient_warnings(groups)
    finders = (twins, shared_names, letter_case_twins, differing_prefixes, one_patient_questions)
    doubts = [line for find in finders for line in find(groups)]
    left_out = {id(group) for doubt in doubts for group in doubt.groups}
    found.problems += [doubt.line for doubt in doubts]
    clear = [group for group in groups if id(group) not in left_out]
    items = [_item(group, modalities) for group in sorted(clear, key=lambda group: group.case)]
    shared = shared_files({"folder": items})
    found.problems += shared
    twice = set().union(*shared.values()) if shared else set()
    found.items = [item for item in items if item["case"] not in twice]
    for item in list(found.items):
        try:
            check_case_name(item["case"], str(root))
        except ValueError as error:
            found.problems.append(str(error))
            found.items.remove(item)


def _item(group: Group, modalities: Sequence[str]) -> dict[str, Any]:
    paths = {name.role: str(name.path) for name in group.members}
    item = {"case": group.case, "image": {m: paths[m] for m in modalities if m in paths}}
    item |= {"label": paths[LABEL]} if LABEL in paths else {}
    return item | ({"patient": group.patient} if group.patient else {})


def _unread_line(names: Sequence[Name], root: Path) -> list[str]:
    if not names:
        return []
    few = ", ".join(f"{n.path.relative_to(root)} ({n.why})" for n in names[:_EXAMPLES])
    many = len(names) > 1
    return [
        f"{len(names)} NIfTI file{'s' * many} {'are' if many else 'is'} not understood, such as "
        f"{few}. Rename a scan, or give its ending, such as --suffixes flair=fla; "
        f"--suffixes {OTHER}=adc leaves files that end in adc aside."
    ]


def _none_found(
    root: Path, endings: Mapping[str, str], modalities: Sequence[str], found: Survey
) -> str:
    also = "".join(f" {line}" for line in found.unread)
    return (
        f"no case found under {root}. Expected NIfTI files (.nii, .nii.gz) whose names end in "
        f"{readable_endings(endings, [LABEL, *modalities], '')}, after '_', '-' or '.', such as "
        f"BraTS2021_00000_t1ce.nii.gz or BraTS-GLI-00000-000-t1c.nii.gz.{also}"
    )
