"""Names of patients, and paths: what must not leave a site in the text of an error."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import PurePath
from typing import Any

from bundle.data.datalist import SECTIONS

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


def find_names(text: str, names: Collection[str] = ()) -> list[str]:
    """List the names and the absolute paths that a text holds.

    Args:
        text: what might leave the site.
        names: what to look for, see `identifiers`; any case of letters.
    """
    long = sorted((re.escape(name) for name in names if len(name) >= _SHORT), key=len)
    # Not inside a longer word or number: case 12 is not in 123; but in 12_flair.
    pattern = re.compile(rf"(?<![^\W_])(?:{'|'.join(long[::-1])})(?![^\W_])", re.IGNORECASE)
    found = [*(pattern.findall(text) if long else ()), *_ABSOLUTE_PATH.findall(text)]
    if text.strip().lower() in {name.lower() for name in names if 0 < len(name) < _SHORT}:
        found.append(text)
    return found


def presentable(error: BaseException, names: Collection[str] | None) -> str:
    """Say what went wrong without a patient's name or a path.

    Args:
        error: what went wrong.
        names: what must not be told; None = nobody knows, so only the kind of error is told.
    """
    text = f"{type(error).__name__}: {error}"
    if names is None or find_names(text, names):
        return f"{type(error).__name__}. The site's own log says more."
    return text
