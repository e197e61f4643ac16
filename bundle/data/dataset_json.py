"""The dataset.json of nnU-Net and of the Medical Segmentation Decathlon: which channel is what.

nnU-Net has one file a channel, `imagesTr/<case>_0000.nii.gz`, and `labelsTr/<case>.nii.gz`. The
Decathlon has one 4D file a case, `imagesTr/<case>.nii.gz`. The file is not trusted: what it says of
channels is looked up among the known endings, and no path is taken from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bundle.data.filenames import LABEL, PREDICTION, Name, split_name

DATASET_JSON = "dataset.json"
_KEYS = ("channel_names", "modality")
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
        ValueError: as `read_channels`.
    """
    said = read_channels(path)
    if said is None:
        return None
    spelled = {number: name[:64] for number, name in enumerate(said.names)}
    roles = {number: channel_role(name, endings) for number, name in spelled.items()}
    known = {n: role for n, role in roles.items() if role not in (None, LABEL, PREDICTION)}
    one_file = said.key == "channel_names" or _has_channels(files, spelled)
    return Layout(path, spelled, known, one_file)


class Channels(NamedTuple):
    """The channels of a dataset.json: their names in order, and the key that has them."""

    names: tuple[str, ...]
    key: str


def read_channels(path: Path) -> Channels | None:
    """Read the names of the channels; None = the file tells none, so it is another program's.

    Raises:
        ValueError: no plain file, too large, no JSON, or channels that are not numbered from 0,
            each number once; the message starts with the path and has no full stop.
    """
    content = _read(path)
    key = next((key for key in _KEYS if content.get(key)), None)
    if key is None:
        return None
    channels = content[key]
    if isinstance(channels, list):
        channels = {str(number): name for number, name in enumerate(channels)}
    numbers = [str(n) for n in range(len(channels))] if isinstance(channels, dict) else []
    whole = 0 < len(numbers) <= _MOST_CHANNELS and set(channels) == set(numbers)
    if not whole or not all(isinstance(name, str) for name in channels.values()):
        raise ValueError(
            f"{path}: expected channels such as {{'0': 'FLAIR', '1': 'T1'}}, numbered from 0, got "
            f"{content[key]!r:.100}; each number once, and at most {_MOST_CHANNELS} of them"
        )
    return Channels(tuple(channels[number] for number in numbers), key)


def channel_role(name: str, endings: Mapping[str, str]) -> str | None:
    """Return what a channel is by the end of its name, as of a file's: 'T2w', 'MR T1', 'brain_t2f'.

    Args:
        name: no path, so a slash separates words as a blank does.
        endings: from `file_endings`.
    """
    return split_name(re.sub(r"[\s/\\]+", "_", name.strip()), endings)[1]


def _has_channels(files: Iterable[Path], spelled: Mapping[int, str]) -> bool:
    """True = all files in folders of images are numbered by channel, the first one included."""
    names = [file.name for file in files if _IMAGES.fullmatch(file.parent.name)]
    found = [_CHANNEL.fullmatch(name) for name in names]
    numbers = {int(match["index"]) for match in found if match}
    return bool(names) and all(found) and 0 in numbers and numbers <= set(spelled)


def _read(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            raise ValueError("it is no plain file")  # a pipe would be waited for
        size = path.stat().st_size
        if size > _LARGEST_BYTES:
            raise ValueError(f"expected at most {_LARGEST_BYTES} bytes, got {size}")
        content = json.loads(path.read_bytes(), object_pairs_hook=_numbered_once)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as a JSON file ({error!s:.100})") from error
    return content if isinstance(content, dict) else {}


def _numbered_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a number that is there twice, of which Python would take the last one."""
    found = dict(pairs)
    if len(found) < len(pairs) and all(key.isdecimal() for key in found):
        raise ValueError(f"a channel is there twice: {', '.join(key for key, _ in pairs)}")
    return found
