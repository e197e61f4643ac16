"""Which modality each volume of a 4D file is, as the dataset.json beside it says.

MSD (the Decathlon) and nnU-Net store a case as one file, and the order of its volumes elsewhere:
`"modality": {"0": "FLAIR", "1": "T1w"}` or `"channel_names": {...}`. No order is ever guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.data.dataset_json import DATASET_JSON, channel_role, read_channels
from bundle.data.filenames import file_endings
from bundle.data.geometry import CaseError
from bundle.modalities import check_known

# Above these folders lies the file that describes what is in them.
_SUBFOLDERS = ("imagestr", "imagests", "imagesva", "imagesval")
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
    try:
        channels = read_channels(note)
    except ValueError as error:
        raise CaseError(f"{error}. Correct it, or say the order by `channel_order`.") from error
    if channels is None:
        return None
    said, endings = channels.names, endings or file_endings(modalities)
    found = [channel_role(name, endings) for name in said]
    order = [role if role in modalities else None for role in found]
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
        f"for a volume to leave out; or a {DATASET_JSON} beside the file or above its imagesTr or "
        f"imagesTs, such as {example}. The order is never guessed."
    )


def _find_note(path: Path) -> Path | None:
    folder = path.absolute().parent
    places = [folder] + ([folder.parent] if folder.name.lower() in _SUBFOLDERS else [])
    return next(
        (place / DATASET_JSON for place in places if (place / DATASET_JSON).is_file()), None
    )
