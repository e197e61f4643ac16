"""Grouping file names by case: files that share a home folder and a name are one case's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bundle.data.filenames import LABEL, Name, case_key, ending_role
from bundle.data.patients import patient_name

# Folders that hold scans or labels of the case or cases that the folder above them names.
_KINDS = {"anat", "image", "images", "imagestr", "imagests", "labelstr", "labelsts", "masks"}


@dataclass
class Group:
    """The files of what is probably one case: they share a home folder and a name.

    Attributes:
        home: the folder that names the case, or in which its name tells it from the others.
        case: its name.
        members: the names of its files, modalities and labels alone.
    """

    home: Path
    case: str
    members: list[Name] = field(default_factory=list)

    @property
    def modalities(self) -> set[str]:
        """The modalities that it has."""
        return {name.role for name in self.members if name.role not in (None, LABEL)}

    @property
    def labels(self) -> list[Name]:
        """Its label files."""
        return [name for name in self.members if name.role == LABEL]


def group_names(root: Path, names: Iterable[Name], endings: Mapping[str, str]) -> list[Group]:
    """Group file names by the case that they probably belong to.

    Args:
        root: the folder that is searched.
        names: modalities and labels alone.
        endings: from `file_endings`.
    """
    homes: dict[Path, list[Name]] = defaultdict(list)
    for name in names:
        homes[_home(name, root, endings)].append(name)
    groups: dict[tuple[Path, str], Group] = {}
    for home, members in homes.items():
        own = ("", home.name.lower(), case_key(home.name).lower())
        images = {name.prefix for name in members if name.role != LABEL}
        is_case_folder = any(prefix.lower() in own for prefix in images)
        for name in members:
            # The label of BraTS20_Training_355 is called W39_1998.09.19_Segm.nii. Only a label may
            # join the folder's case in this way: another image could be another patient's.
            stray = is_case_folder and name.prefix not in images
            of_folder = stray or name.prefix.lower() in own
            case = _folder_case(home, members, root) if of_folder else name.prefix
            groups.setdefault((home, case), Group(home, case)).members.append(name)
    return list(groups.values())


def _home(name: Name, root: Path, endings: Mapping[str, str]) -> Path:
    """Return the folder above those that stand for a modality or for a kind of file.

    It is the folder of the case's name, if there is one and no session or timepoint lies between.
    """
    home = name.path.parent
    while home != root and (home.name.lower() in _KINDS or ending_role(home.name, endings)):
        home = home.parent
    if name.prefix and home != root:
        for folder in (home, *home.parents):
            if case_key(folder.name).lower() == name.prefix.lower():
                return folder
            if folder == root or _is_time(folder.name):
                break
    return home


def _is_time(folder: str) -> bool:
    """True = the folder is called like a session or a timepoint, such as ses-02 or 2019-05-04."""
    return patient_name(f"p1_{folder}") == "p1"


def _folder_case(home: Path, members: Sequence[Name], root: Path) -> str:
    """Name the case of a folder, by the patient's folder too where the session alone is named."""
    if home != root and _is_time(home.name) and not any(name.prefix for name in members):
        return f"{home.parent.name}_{home.name}"
    spelled = {name.spelled.lower() for name in members}
    return home.name if spelled & {"", home.name.lower()} else case_key(home.name)
