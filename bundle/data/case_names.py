"""What a case may be called: files are written under its name."""

from __future__ import annotations

import os
import re
import unicodedata
from typing import Any

# What is written beside a case's name, such as _probabilities.nii.gz, has its place in the 255
# bytes that a file's name may have.
_LONGEST = 200
# Control characters, those that turn the direction of writing, and ends of lines. A name whose
# bytes are not in UTF-8 has surrogates, which are none of these.
_UNSEEN = ("Cc", "Cf", "Zl", "Zp")


def is_name(value: Any) -> bool:
    """True = a text that is not blank, or a whole number, 0 included."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (isinstance(value, str) and bool(value.strip()))


def check_case_name(case: str, where: str) -> None:
    """Refuse a name by which a file would be written elsewhere, or not at all.

    Folders within a name are fine: site1/p01.

    Args:
        case: its name.
        where: what the message starts with.

    Raises:
        ValueError: '.' or '..' as a folder, an absolute path, control characters, or too long.
    """
    parts = re.split(r"[/\\]", case)
    if (
        _size(case) > _LONGEST
        or any(part.strip() in ("", ".", "..") for part in parts)
        or re.fullmatch(r"[A-Za-z]:", parts[0])
        or any(unicodedata.category(letter) in _UNSEEN for letter in case)
    ):
        raise ValueError(
            f"{where}: expected a case's name of at most {_LONGEST} bytes (up to four a letter) "
            "without control characters, without '.' or '..' as a folder and without '/' at its "
            "start or end, got "
            f"{case!r:.250}. Rename the case, such as site1/p01."
        )


def _size(case: str) -> int:
    """Return how many bytes a name has on disk; half of a character has no place there."""
    try:
        return len(os.fsencode(case))
    except UnicodeEncodeError:
        return _LONGEST + 1
