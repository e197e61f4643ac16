"""Patterns that a job brings: searched in every key, so none may take hours."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LONGEST = 200
_REPETITIONS = 2
# A repetition without an end; one that is escaped is none.
_ESCAPED, _UNBOUNDED = re.compile(r"\\."), re.compile(r"[*+]|\{\d*,\d*\}")


def check_patterns(patterns: Iterable[str], whose: str) -> None:
    """Refuse what is no regular expression, or one whose search may not end in time.

    A search takes exponentially long where a group that repeats repeats something, and a job's
    author may want that. Names of tensors need no groups.

    Args:
        patterns: of names of tensors.
        whose: what messages start with.

    Raises:
        ValueError: naming the pattern.
    """
    for pattern in patterns:
        if not isinstance(pattern, str) or len(pattern) > _LONGEST:
            raise ValueError(
                f"{whose}: expected texts of at most {_LONGEST} characters, got {pattern!r:.250}"
            )
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"{whose}: expected a regular expression, got {pattern!r} ({error}). Correct it in "
                "the job's configuration."
            ) from error
        plain = _ESCAPED.sub("", pattern)
        if "(" in plain or len(_UNBOUNDED.findall(plain)) > _REPETITIONS:
            raise ValueError(
                f"{whose}: expected a pattern without groups and with at most {_REPETITIONS} of "
                f"* and +, got {pattern!r}, whose search may take too long. Write several simpler "
                "patterns."
            )
