"""Looking for what must not leave a site: names of patients, and paths."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

from bundle.data.datalist import SECTIONS
from federation.protocol.tensors import as_tensor

_ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/\\])/[\w.~+@-]+/[\w.~+@/-]+"  # /data/case, not the 1/2/3 of a text
    r"|(?<!\w)[A-Za-z]:[\\/][\w.$~-]"  # C:\data
    r"|\\\\[\w.-]+\\[\w.$-]+"  # \\server\share
    r"|\bfile://"
    r"|(?<![\w/])~[\w-]*/\w"
)
# Shorter names occur by chance within others: they count only where they stand alone.
_SHORT = 4


def identifiers(datalist: Mapping[str, Any]) -> set[str]:
    """Collect what a datalist calls its patients: cases, patients, files, folders of one case.

    Args:
        datalist: as `bundle.data.datalist.load_datalist` returns it; its sections alone are read.
    """
    found: set[str] = set()
    folders: Counter[str] = Counter()
    for item in (item for section in SECTIONS for item in datalist.get(section) or ()):
        image = item.get("image") or {}
        files = [*(image.values() if isinstance(image, Mapping) else [image]), item.get("label")]
        paths = [PurePath(name) for name in files if name]
        found.update(str(item[key]) for key in ("case", "patient") if item.get(key))
        found.update(path.name for path in paths)
        folders.update({path.parent.name for path in paths if path.parent.name})
    # A folder of several cases, such as imagesTr, tells nothing of any.
    return found | {folder for folder, cases in folders.items() if cases == 1}


def find_secrets(message: Any, names: Collection[str] = ()) -> list[str]:
    """Look through a message for names and absolute paths.

    Args:
        message: nested dicts (keys are looked at, too), lists, tuples, sets, texts, bytes, arrays
            and objects. Integer tensors of one byte each are read as text.
        names: what to look for, see `identifiers`; any case of letters.

    Returns:
        'place: what' for each finding, in the order of the message; [] = nothing was found.
    """
    long = sorted((re.escape(name) for name in names if len(name) >= _SHORT), key=len)
    # Not inside a longer word or number: case 12 is not in 123; but in 12_flair.
    pattern = re.compile(rf"(?<![^\W_])(?:{'|'.join(long[::-1])})(?![^\W_])", re.IGNORECASE)
    short = {name.lower() for name in names if 0 < len(name) < _SHORT}
    found = []
    for place, text in _texts(message, "message", set()):
        hits = [*(pattern.finditer(text) if long else ()), *_ABSOLUTE_PATH.finditer(text)]
        found += [f"{place}: {hit.group()!r}" for hit in hits]
        if text.strip().lower() in short:
            found.append(f"{place}: {text!r}")
    return found


def check_secrecy(message: Any, names: Collection[str] = ()) -> None:
    """Make sure that a message holds no names and no absolute paths; arguments as `find_secrets`.

    Raises:
        ValueError: with the places, but without what stands there: a log is read by others, too.
    """
    places = [line.split(": ", 1)[0] for line in find_secrets(message, names)]
    if places:
        raise ValueError(
            f"expected a message without names of patients and paths, found {len(places)}, the "
            f"first in {places[0]}. Nothing was sent."
        )


def _texts(value: Any, place: str, seen: set[int]) -> Iterator[tuple[str, str]]:
    """Yield every text with where it stands; every object once."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, bytes | bytearray):
        yield place, value.decode("utf-8", errors="replace")
    elif isinstance(value, PurePath):
        yield place, str(value)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "USO":
        yield from _all_texts(enumerate(value.ravel().tolist()), place, seen)
    elif (tensor := as_tensor(value)) is not None:
        if tensor.dtype in (torch.uint8, torch.int8):
            yield place, tensor.contiguous().numpy().tobytes().decode("utf-8", errors="replace")
    elif id(value) not in seen:
        seen.add(id(value))
        if isinstance(value, Mapping):
            for number, key in enumerate(value):
                yield from _texts(key, f"{place}, key {number}", seen)
            yield from _all_texts(enumerate(value.values()), place, seen)
        elif isinstance(value, list | tuple | set | frozenset):
            yield from _all_texts(enumerate(value), place, seen)
        elif hasattr(value, "__dict__") and not isinstance(value, type):
            yield from _texts(vars(value), place, seen)


def _all_texts(
    items: Iterable[tuple[int, Any]], place: str, seen: set[int]
) -> Iterator[tuple[str, str]]:
    for number, item in items:
        yield from _texts(item, f"{place}[{number}]", seen)
