"""What a site tells of itself besides its tensors, as checked plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from federation.protocol.site_text import LONGEST_NAME, LONGEST_TEXT, one_line

# Entries of a mapping or a list.
_MOST = 32
# Far beyond what is measured (seconds, MiB, bytes, releases), and exact in a float.
LARGEST_FACT = 1e12
# Names of facts that have one type. Others may be a number, a bool, a text or a list of texts.
_TYPES: Mapping[str, str] = {
    "collected": "true or false",
    "seconds": "a number from 0",
    "peak_memory_mib": "a number from 0",
    "notes": "a list of texts",
}


def read_values(value: Any, what: str) -> dict[str, Any]:
    """Read names and plain values: `facts`, or what a site claims about its privacy.

    Args:
        value: what came; None = nothing.
        what: what it is, for the message.

    Returns:
        Numbers within `LARGEST_FACT`, bools, and texts made one short line; a new dictionary.

    Raises:
        ValueError: a value of another type, a number that is not finite or too large, or too many.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or len(value) > _MOST:
        raise ValueError(
            f"{what}: expected at most {_MOST} names and plain values, got {described(value)}"
        )
    read = {}
    for name, entry in value.items():
        if type(name) is not str or not name.isidentifier() or len(name) > LONGEST_NAME:
            raise ValueError(f"{what}: expected a short name, got {described(name)}")
        read[name] = _plain(entry, f"{what}: {name}", _TYPES.get(name))
    return read


def _plain(value: Any, whose: str, expected: str | None) -> Any:
    if not _fits(value, expected):
        raise ValueError(
            f"{whose}: expected {expected or 'a number, true or false, a text or a list of texts'}"
            f"{' within limits' if _is_number(value) else ''}, got {described(value)}"
        )
    if isinstance(value, list | tuple):
        return [one_line(text) for text in value]
    return one_line(value) if isinstance(value, str) else value


def _fits(value: Any, expected: str | None) -> bool:
    if expected == "true or false":
        return type(value) is bool
    if expected == "a number from 0":
        return _is_number(value) and 0 <= value <= LARGEST_FACT
    if expected == "a list of texts":
        return _are_texts(value)
    if _is_number(value):
        return abs(value) <= LARGEST_FACT
    return type(value) in (bool, str) or _are_texts(value)


def _is_number(value: Any) -> bool:
    # Not their subclasses, such as a bool or an enumeration.
    return type(value) in (int, float)


def _are_texts(value: Any) -> bool:
    if type(value) not in (list, tuple) or len(value) > _MOST:
        return False
    return all(type(text) is str for text in value)


def described(value: Any) -> str:
    """Show a number or a short text of a message, and of all else the type: it may be huge."""
    if type(value) is float and not math.isfinite(value):
        return str(value)
    if type(value) is int and abs(value) > LARGEST_FACT:
        return "an integer beyond its limits"
    if value is None or type(value) in (bool, int, float):
        return repr(value)
    if type(value) is str:
        return repr(one_line(value, LONGEST_TEXT // 3))
    size = f" of {len(value)}" if type(value) in (list, tuple, dict) else ""
    return f"a {type(value).__name__}{size}"
