"""The dataset.json of nnU-Net and of the Medical Segmentation Decathlon: which channel is what.

nnU-Net has one file a channel, `imagesTr/<case>_0000.nii.gz`, and `labelsTr/<case>.nii.gz`. The
Decathlon has one 4D file a case, `imagesTr/<case>.nii.gz`. The file is not trusted: what it says of
channels is looked up among the known endings, and no path is taken from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.data.filenames import LABEL, Name, ending_role

DATASET_JSON = "dataset.json"
_LARGEST_BYTES = 16 * 2**20
_MOST_CHANNELS = 64
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<index>\d{4})\.nii(?:\.gz)?", re.IGNORECASE)
_IMAGES = re.compile(r"images(tr|ts|val|va)?", re.IGNORECASE)
_LABELS = re.compile(r"labels(tr|ts|val|va)?", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """What a dataset.json says.

    Attributes:
        path: of the dataset.json.
        spelled: channel -> its name there.
        roles: channel -> modality, or 'other'; a channel that is not understood is missing.
        one_file_a_channel: True = nnU-Net's files, False = 4D files.
    """

    path: Path
    spelled: Mapping[int, str]
    roles: Mapping[int, str]
    one_file_a_channel: bool

    def read(self, file: Path) -> Name | None:
        """Read the name of a file by this layout; None = the layout says nothing about it."""
        case = re.sub(r"\.nii(\.gz)?$", "", file.name, flags=re.IGNORECASE)
        if _LABELS.fullmatch(file.parent.name):
            return Name(file, case, LABEL, spelled=case)
        found = _CHANNEL.fullmatch(file.name) if self.one_file_a_channel else None
        if found is None or int(found["index"]) not in self.spelled:
            return None
        channel, case = int(found["index"]), found["case"]
        role = self.roles.get(channel)
        why = "" if role else f"channel {channel} is {self.spelled[channel]!r} in dataset.json"
        return Name(file, case if role else file.name, role, why, case)

    def is_4d(self, file: Path) -> bool:
        """True = by its place and the dataset.json the file holds all channels of a case."""
        several = len(self.spelled) > 1 and not self.one_file_a_channel
        return several and bool(_IMAGES.fullmatch(file.parent.name))

    @property
    def problems(self) -> list[str]:
        """One line for each channel that is not understood or is there twice."""
        lines = [
            f"{self.path}: channel {channel} is called {name!r}, which is the name of no known "
            f"modality. Correct it, or give the name with --suffixes, such as t1={name}."
            for channel, name in self.spelled.items()
            if channel not in self.roles
        ]
        for role in sorted(set(self.roles.values()) - {"other"}):
            channels = [str(channel) for channel, other in self.roles.items() if other == role]
            if len(channels) > 1:
                lines.append(
                    f"{self.path}: channels {' and '.join(channels)} are both {role}. "
                    "Correct their names."
                )
        return lines


def read_layout(
    path: Path, endings: Mapping[str, str], files: Iterable[Path] = ()
) -> Layout | None:
    """Read a dataset.json; None = it names no channels, so it is another program's.

    Args:
        path: of the dataset.json.
        endings: from `file_endings`.
        files: the NIfTI files of the data set, whose names tell nnU-Net from the Decathlon.

    Raises:
        ValueError: it is too large, no JSON, or names channels in another way.
    """
    content = _read(path)
    channels = content.get("channel_names", content.get("modality"))
    if channels is None:
        return None
    if not isinstance(channels, Mapping) or len(channels) > _MOST_CHANNELS:
        raise ValueError(
            f"{path}: expected channels such as {{'0': 'T1', '1': 'FLAIR'}}, at most "
            f"{_MOST_CHANNELS}, got {channels!r:.120}"
        )
    spelled = {}
    for number, name in channels.items():
        if not re.fullmatch(r"\d{1,4}", str(number), re.ASCII) or not isinstance(name, str):
            raise ValueError(
                f"{path}: expected channels such as {{'0': 'T1'}}, got {number!r:.20}: {name!r:.60}"
            )
        spelled[int(number)] = name[:64]
    spelled = dict(sorted(spelled.items()))
    roles = {number: ending_role(name, endings) for number, name in spelled.items()}
    known = {number: role for number, role in roles.items() if role not in (None, LABEL)}
    return Layout(path, spelled, known, "channel_names" in content or _has_channels(files, spelled))


def _has_channels(files: Iterable[Path], spelled: Mapping[int, str]) -> bool:
    """True = all files in folders of images are numbered by channel, the first one included."""
    names = [file.name for file in files if _IMAGES.fullmatch(file.parent.name)]
    found = [_CHANNEL.fullmatch(name) for name in names]
    numbers = {int(match["index"]) for match in found if match}
    return bool(names) and all(found) and 0 in numbers and numbers <= set(spelled)


def _read(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size > _LARGEST_BYTES:
        raise ValueError(f"{path}: expected at most {_LARGEST_BYTES} bytes, got {size}")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error
    return content if isinstance(content, dict) else {}
