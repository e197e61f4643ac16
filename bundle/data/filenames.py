"""Finding BraTS cases by the names of their files.

Understood are `<case><separator><ending>.nii` and `.nii.gz` with `_`, `-` or `.` as separator, in
upper or lower case, one folder a case or several cases in one folder, at any depth (HGG/, LGG/).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.modalities import FILE_SUFFIXES, LABEL_SUFFIXES

_EXTENSIONS = (".nii.gz", ".nii")
_SEPARATORS = ("_", "-", ".")
_LABEL = "label"


@dataclass(frozen=True)
class _Name:
    """What one file name says: the case's prefix ('' = none) and a modality, or 'label'."""

    path: Path
    prefix: str
    role: str


def survey(
    root: str | Path,
    modalities: Sequence[str],
    suffixes: Mapping[str, Sequence[str]] = FILE_SUFFIXES,
    label_suffixes: Sequence[str] = LABEL_SUFFIXES,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Find the cases under a folder, each with at least one modality; nothing is opened.

    A case is named after its folder if its files are, else after the prefix that its files share.

    Args:
        root: the folder to search, all levels, symbolic links followed.
        modalities: the vocabulary.
        suffixes: modality -> endings of its file names; a modality's own name always counts.
        label_suffixes: endings of label files.

    Returns:
        Datalist items with absolute paths, ordered by case, and one line for each case that is
        ambiguous and left out: two files for one modality, or one case name in two folders.

    Raises:
        ValueError: no case at all.
        FileNotFoundError: `root` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"expected a folder of cases, got {root}, which is no folder")
    endings = file_endings(modalities, suffixes, label_suffixes)
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    problems: list[str] = []
    for folder, names in _read_names(root.absolute(), endings).items():
        for case, members in _group(folder, names).items():
            twins = _twins(case, members)
            problems += twins
            if not twins and any(name.role != _LABEL for name in members):
                found[case].append(_item(case, members, modalities))
    problems += [_shared_name(case, items) for case, items in found.items() if len(items) > 1]
    if not found and not problems:
        raise ValueError(_none_found(root, endings))
    return [items[0] for _, items in sorted(found.items()) if len(items) == 1], problems


def file_endings(
    modalities: Sequence[str],
    suffixes: Mapping[str, Sequence[str]] = FILE_SUFFIXES,
    label_suffixes: Sequence[str] = LABEL_SUFFIXES,
) -> dict[str, str]:
    """Map each understood ending, in lower case, to its modality, or to 'label'."""
    endings = {ending.lower(): _LABEL for ending in label_suffixes}
    for name in modalities:
        endings |= {ending.lower(): name for ending in (name, *suffixes.get(name, ()))}
    return endings


def split_name(path: str | Path, endings: Mapping[str, str]) -> tuple[str, str | None]:
    """Split a file name into the case's prefix and its modality (or 'label'; None = neither).

    Example: with the BraTS endings 'BraTS-GLI-00000-000-t1c.nii.gz' gives ('BraTS-GLI-00000-000',
    't1ce'), and 't1.nii' gives ('', 't1').
    """
    stem = Path(path).name
    for extension in _EXTENSIONS:
        if stem.lower().endswith(extension):
            stem = stem[: -len(extension)]
            break
    # The longest ending first: a modality may be called 'adc_map' beside another called 'map'.
    for ending in sorted(endings, key=len, reverse=True):
        if stem.lower() == ending:
            return "", endings[ending]
        if stem.lower().endswith(tuple(separator + ending for separator in _SEPARATORS)):
            return stem[: -len(ending) - 1], endings[ending]
    return stem, None


def _read_names(root: Path, endings: Mapping[str, str]) -> dict[Path, list[_Name]]:
    folders: dict[Path, list[_Name]] = {}
    # os.walk rather than Path.rglob: only it follows the links by which data sets get shared.
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders.sort()
        volumes = [Path(folder) / f for f in sorted(files) if is_volume(f)]
        names = [_Name(path, *split_name(path, endings)) for path in volumes]
        folders[Path(folder)] = [name for name in names if name.role is not None]
    return folders


def is_volume(file: str) -> bool:
    """True = the name is that of a NIfTI file; hidden files, such as those of macOS, are not."""
    return file.lower().endswith(_EXTENSIONS) and not file.startswith(".")


def _group(folder: Path, names: Sequence[_Name]) -> dict[str, list[_Name]]:
    own = ("", folder.name.lower())
    images = {name.prefix for name in names if name.role != _LABEL}
    is_case_folder = any(prefix.lower() in own for prefix in images)
    groups: dict[str, list[_Name]] = defaultdict(list)
    for name in names:
        # The label of BraTS20_Training_355 is called W39_1998.09.19_Segm.nii. Only a label may join
        # the folder's case in this way: another image could be another patient's.
        stray = is_case_folder and name.prefix not in images
        groups[folder.name if stray or name.prefix.lower() in own else name.prefix].append(name)
    return groups


def _twins(case: str, members: Iterable[_Name]) -> list[str]:
    files: dict[str, list[str]] = defaultdict(list)
    for name in members:
        files[name.role].append(str(name.path))
    return [
        f"case {case}: expected one file for '{role}', got {len(paths)}: {', '.join(paths)}. "
        "Move all but one elsewhere."
        for role, paths in files.items()
        if len(paths) > 1
    ]


def _item(case: str, members: Iterable[_Name], modalities: Sequence[str]) -> dict[str, Any]:
    paths = {name.role: str(name.path) for name in members}
    item = {"case": case, "image": {m: paths[m] for m in modalities if m in paths}}
    return item | ({"label": paths[_LABEL]} if _LABEL in paths else {})


def _shared_name(case: str, items: Sequence[Mapping[str, Any]]) -> str:
    folders = [str(Path(next(iter(item["image"].values()))).parent) for item in items]
    return f"case {case}: found in {' and '.join(folders)}. Give each case a name of its own."


def _none_found(root: Path, endings: Mapping[str, str]) -> str:
    understood = ", ".join(f"{ending} ({role})" for ending, role in endings.items())
    return (
        f"no case found under {root}. Expected NIfTI files (.nii, .nii.gz) whose names end in "
        f"{understood}, after '_', '-' or '.', such as BraTS2021_00000_t1ce.nii.gz "
        "or BraTS-GLI-00000-000-t1c.nii.gz."
    )
