"""Which modality each volume of a 4D file is, as the dataset.json beside it says.

MSD (the Decathlon) and nnU-Net store a case as one file, and the order of its volumes elsewhere:
`"modality": {"0": "FLAIR", "1": "T1w"}` or `"channel_names": {...}`. No order is ever guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.data.filenames import file_endings, split_name
from bundle.data.geometry import CaseError
from bundle.modalities import FILE_SUFFIXES, check_known

FILE = "dataset.json"
# Above these folders lies the file that describes what is in them.
_SUBFOLDERS = ("imagestr", "imagests", "imagesva", "imagesval")
_KEYS = ("channel_names", "modality")
# What those files say beside the endings of file names.
_SAID: Mapping[str, tuple[str, ...]] = {
    "t1": ("t1w",),
    "t1ce": ("t1gd", "t1wce", "t1ce", "t1c"),
    "t2": ("t2w",),
    "flair": ("flair", "t2flair", "t2-flair"),
}
# The Decathlon's own is 0.1 MB; a file that is much larger is something else.
_MOST_BYTES = 4_000_000
_MOST_VOLUMES = 64


def channel_order(
    path: str | Path, modalities: Sequence[str], endings: Mapping[str, str] | None = None
) -> tuple[str, ...] | None:
    """Read the modality of each volume of a 4D file off the dataset.json that belongs to it.

    Args:
        path: the 4D file. dataset.json lies beside it, or above imagesTr, imagesTs or imagesVal.
        modalities: the vocabulary.
        endings: of file names, by which channels are looked up, too; None = the known ones.

    Returns:
        Modalities in the file's order; None = no dataset.json, or one that tells no channels.

    Raises:
        CaseError: it cannot be read, or names a channel that is unknown or there twice.
    """
    note = _find_note(Path(path))
    if note is None:
        return None
    said = _read_channels(note)
    if said is None:
        return None
    endings = _said(modalities) | dict(endings or file_endings(modalities))
    found = [split_name(name.strip().replace(" ", "_"), endings) for name in said]
    order = [role if role in modalities else None for _, role in found]
    for name, role in zip(said, order, strict=True):
        if role is None:
            raise CaseError(
                f"{note} names a channel {name[:40]!r}, expected one of {list(modalities)}. "
                "Say the order by `channel_order`, with null for a volume to leave out."
            )
        if order.count(role) > 1:
            raise CaseError(
                f"{note} names {role} twice: {', '.join(said)[:200]}. Correct it, or say the "
                "order by `channel_order`, with null for a volume to leave out."
            )
    return tuple(str(role) for role in order)


def check_order(order: Any, modalities: Sequence[str], where: str) -> tuple[str | None, ...]:
    """Return an order that somebody has given, or say what is wrong with it.

    Args:
        order: modalities in the file's order; None or "" = a volume to leave out.
        modalities: the vocabulary.
        where: what the message starts with.

    Raises:
        ValueError: no list of names, an unknown name, one given twice, or none at all.
    """
    listed = isinstance(order, (list, tuple)) and 0 < len(order) <= _MOST_VOLUMES
    if not listed or not all(name is None or isinstance(name, str) for name in order):
        raise ValueError(
            f"{where}: channel_order must be a list of modalities in the file's order, such as "
            f"{list(modalities)}, with null for a volume to leave out; got {order!r:.100}"
        )
    names = [name for name in order if name]
    check_known(names, modalities, f"{where}: channel_order")
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"{where}: channel_order must name at least one modality, and each of them once, "
            f"got {list(order)}"
        )
    return tuple(name or None for name in order)


def unknown_order(path: str | Path, count: int, modalities: Sequence[str], case: str) -> CaseError:
    """Say that nothing tells which modality each volume is, and what to do."""
    example = json.dumps({"channel_names": {str(i): m for i, m in enumerate(modalities)}})
    return CaseError(
        f"case {case}: {Path(path).name} holds {count} volumes, and nothing says which modality "
        f"each of them is. Expected `channel_order`, such as {json.dumps(list(modalities))}, null "
        f"for a volume to leave out; or a {FILE} beside the file or above its imagesTr or "
        f"imagesTs, such as {example}. The order is never guessed."
    )


def _find_note(path: Path) -> Path | None:
    folder = path.absolute().parent
    places = [folder] + ([folder.parent] if folder.name.lower() in _SUBFOLDERS else [])
    return next((place / FILE for place in places if (place / FILE).is_file()), None)


def _read_channels(note: Path) -> list[str] | None:
    """Return the channels' names in order; None = the file tells none."""
    try:
        with note.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        content = json.loads(text.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise CaseError(
            f"{note} cannot be read ({type(error).__name__}: {error!s:.100}). "
            "Correct it, or say the order by `channel_order`."
        ) from error
    if not isinstance(content, dict):
        return None
    said = next((content[key] for key in _KEYS if content.get(key)), None)
    if said is None:
        return None
    if isinstance(said, list):
        said = {str(index): name for index, name in enumerate(said)}
    numbers = [str(index) for index in range(len(said))] if isinstance(said, dict) else []
    whole = 0 < len(numbers) <= _MOST_VOLUMES and set(said) == set(numbers)
    if not whole or not all(isinstance(name, str) for name in said.values()):
        raise CaseError(
            f"{note}: expected channels such as {{'0': 'FLAIR', '1': 'T1'}}, numbered from 0, got "
            f"{said!r:.100}. Correct it, or say the order by `channel_order`."
        )
    return [said[number] for number in numbers]


def _said(modalities: Sequence[str]) -> dict[str, str]:
    """Map what a channel may be called to its modality, whatever release named the vocabulary."""
    said = {}
    for name in modalities:
        standard = next((n for n, others in FILE_SUFFIXES.items() if name in others), name)
        said |= dict.fromkeys((*FILE_SUFFIXES.get(standard, ()), *_SAID.get(standard, ())), name)
    return said
