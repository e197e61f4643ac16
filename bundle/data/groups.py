"""Grouping file names by case: files that share a home folder and a name are one case's."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bundle.data.filenames import (
    LABEL,
    Name,
    bare_key,
    case_key,
    fold,
)
from bundle.data.modality_folders import ModalityFolders
from bundle.data.patients import is_place, patient_name
from bundle.data.telling_words import is_tumour_word

# Folders that tell how scans were made, and not whose they are.
_GENERIC = re.compile(
    r"(raw|orig(inals?)?|native|prep|pre_?proc(essed)?|processed|proc|registered|stripped|skull_?"
    r"stripped|final|scans?|mri?|nifti|volumes?)([-_ ]?(data|scans?|images?|files?))?",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d{1,2}")


@dataclass
class Group:
    """The files of what is probably one case: they share a home folder and a name.

    Attributes:
        home: the folder that names the case, or in which its name tells it from the others.
        case: its name.
        members: the names of its files, modalities and labels alone.
        patient: whose it is, where the folders tell; '' = they do not.
    """

    home: Path
    case: str
    members: list[Name] = field(default_factory=list)
    patient: str = ""

    @property
    def modalities(self) -> set[str]:
        """The modalities that it has."""
        return {name.role for name in self.members if name.role not in (None, LABEL)}

    @property
    def labels(self) -> list[Name]:
        """Its label files."""
        return [name for name in self.members if name.role == LABEL]


def group_names(
    root: Path, names: Sequence[Name], endings: Mapping[str, str]
) -> tuple[list[Group], list[Name]]:
    """Group file names by the case that they probably belong to.

    Args:
        root: the folder that is searched.
        names: modalities and labels alone.
        endings: from `file_endings`.

    Returns:
        The groups; and labels in a case's folder that are of something else by their names.
    """
    folders = ModalityFolders(root, names, endings)
    homes: dict[Path, list[Name]] = defaultdict(list)
    for name in names:
        homes[_home(name, root, folders)].append(name)
    groups: dict[tuple[Path, str, str], Group] = {}
    strange: list[Name] = []
    for home, members in homes.items():
        own = ("", fold(home.name), fold(bare_key(home.name)))
        images = {name.prefix for name in members if name.role != LABEL}
        is_case_folder = any(_fits(prefix, own) for prefix in images)
        for name in members:
            # The label of BraTS20_Training_355 is called W39_1998.09.19_Segm.nii. Only a label may
            # join the folder's case in this way: another image could be another patient's.
            stray = is_case_folder and name.prefix not in images
            if stray and not _fits(name.prefix, own) and (word := _strange_word(name, images)):
                strange.append(replace(name, role=None, why=f"a label of {word}, by its name"))
                continue
            of_folder = stray or _fits(name.prefix, own)
            case, patient = name.prefix, ""
            if of_folder:
                case, patient = _folder_case(home, members, root)
            key = (home, case, folders.part(name))
            groups.setdefault(key, Group(home, case, patient=patient)).members.append(name)
    return list(groups.values()), strange


def _fits(prefix: str, own: Sequence[str]) -> bool:
    return fold(prefix) in own or fold(bare_key(prefix)) in own


def _strange_word(name: Name, images: Iterable[str]) -> str:
    """Return a word of a label's name that is no word of a tumour's label; '' = none."""
    # Words before a number are of a case's name: those of W39_1998.09.19 and BraTS20_Training_001.
    rest = re.split(r"\d(?!.*\d)", name.prefix)[-1]
    for prefix in sorted(images, key=len, reverse=True):
        if prefix and fold(name.prefix).startswith(tuple(fold(prefix) + mark for mark in " _.+-")):
            rest = name.prefix[len(prefix) :]
            break
    words = [word for word in re.split(r"[\s_.+-]+", rest) if word]
    return next((word for word in words if not is_tumour_word(word)), "")


def _home(name: Name, root: Path, folders: ModalityFolders) -> Path:
    """Return the folder above those that stand for a modality or for a kind of file.

    It is the folder of the case's name, if there is one and no session or timepoint lies between.
    """
    home = folders.home(name)
    if name.prefix and home != root:
        for folder in (home, *home.parents):
            if fold(name.prefix) in (fold(case_key(folder.name)), fold(folder.name)):
                return folder
            if folder == root or _is_time(folder.name):
                break
    return home


def _is_time(folder: str) -> bool:
    """True = the folder is called like a session or a timepoint, such as ses-02 or 2019-05-04."""
    return patient_name(f"p01_{folder}") == "p01"


def _folder_case(home: Path, members: Sequence[Name], root: Path) -> tuple[str, str]:
    """Name the case of a folder, by the patient's folder too where its own name is none.

    Returns:
        The case, and the patient; '' = as the case's name tells.
    """
    parent, bare = home.parent.name, not any(name.prefix for name in members)
    if home != root and bare:
        if _is_time(home.name):
            case = f"{parent}_{home.name}"
            return _plain(case), "" if patient_name(case) != case or is_place(parent) else parent
        inner = home.parent != root and not is_place(parent)
        numbered = _NUMBER.fullmatch(home.name) and any(map(str.isdigit, parent))
        if inner and (numbered or _GENERIC.fullmatch(home.name)):
            return _plain(f"{parent}_{home.name}"), _plain(parent)
    spelled = {fold(name.spelled) for name in members}
    return _plain(home.name if spelled & {"", fold(home.name)} else case_key(home.name)), ""


def _plain(case: str) -> str:
    return unicodedata.normalize("NFC", case)
