"""Folders that stand for a modality or a kind of file, and for no case: T1/, IXI-T1/, images/."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from bundle.data.filenames import LABEL, Name, ending_role, fold

# Folders that hold scans or labels of the case or cases that the folder above them names.
_KINDS = {"anat", "image", "images", "imagestr", "imagests", "imagesval", "labelstr", "labelsts"}
_KINDS |= {"labelsval", "masks", "nifti", "nii"}
_PART = re.compile(r"(?:images|labels)(tr|ts|val)")
_WORDS = re.compile(r"[^\s_.+-]+")
# Scans that a folder of the first kind may hold, too: T1/t1ce.nii.gz, T2/flair.nii.gz.
_WITHIN = {"t1": ("t1", "t1ce"), "t2": ("t2", "flair")}


class ModalityFolders:
    """Which folders are none of a case."""

    def __init__(self, root: Path, names: Iterable[Name], endings: Mapping[str, str]) -> None:
        """Look at the names of folders, and at what they hold.

        Args:
            root: the folder that is searched.
            names: all understood scans and labels below it.
            endings: from `file_endings`.
        """
        self._root, self._endings = root, endings
        self._roles: dict[Path, set[str]] = defaultdict(set)
        for name in names:
            for folder in name.path.parents:
                if folder == root or root not in folder.parents:
                    break
                if name.role not in (None, LABEL):
                    self._roles[folder].add(str(name.role))

    def home(self, name: Name) -> Path:
        """Return the first folder above a file that stands for no modality and no kind of file."""
        home = name.path.parent
        while home != self._root and (
            home.name.lower() in _KINDS or self._rest(home, name) is not None
        ):
            home = home.parent
        return home

    def part(self, name: Name) -> str:
        """Return what tells apart files of one home and name: imagesTr and imagesTs, IXI and other.

        Files of one case have the same part.
        """
        part, folder, home = [], name.path.parent, self.home(name)
        while folder != home:
            found = _PART.fullmatch(folder.name.lower())
            part.append(found[1] if found else self._rest(folder, name) or "")
            folder = folder.parent
        return "/".join(filter(None, part))

    def _rest(self, folder: Path, name: Name) -> str | None:
        """Return a modality's folder's name without the modality; None = it is none."""
        role, rest = self._read(folder.name)
        if role is None or (rest and not name.prefix):
            return None
        held = self._roles[folder]
        if role != LABEL and not held <= set(_WITHIN.get(role, (role,))):
            return None
        return rest

    def _read(self, folder: str) -> tuple[str | None, str]:
        """Return the modality in a folder's name, and the other words, numbers left out."""
        if role := ending_role(folder, self._endings):
            return role, ""
        words = list(_WORDS.finditer(folder))
        for at_end in (True, False):
            # The longest run of words at the end, or at the start, that is a modality.
            for k in range(min(len(words) - 1, 4), 0, -1):
                first, last = (len(words) - k, len(words)) if at_end else (0, k)
                text = folder[words[first].start() : words[last - 1].end()]
                role = ending_role(text, self._endings)
                if role not in (None, LABEL, "other", "prediction"):
                    rest = words[:first] if at_end else words[last:]
                    left = [word.group() for word in rest if not word.group().isdigit()]
                    return role, fold(" ".join(left))
        return None, ""
