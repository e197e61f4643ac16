"""Texts that come from a site: one line, short, and harmless wherever they are shown.

They end in logs, in Markdown, in JSON and, by way of these, in spreadsheets. Whoever reads them
must not be shown a second line that looks like the server's own, a link, or a formula that is run.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

# Characters. A reason may hold three pairs of hashes, see `identity.check_same`.
LONGEST_NAME, LONGEST_TEXT, LONGEST_REASON = 64, 300, 600
_CUT = "..."
# A spreadsheet takes a cell that begins with one of these for a formula.
_FORMULA = ("=", "+", "-", "@")
# Controls, invisible formats (which turn the direction of writing), halves of pairs, private and
# unassigned ones; line and paragraph separators.
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_ACTIVE = re.compile(
    r"[\\`*\[\]<>|~#$&@]"  # what Markdown, HTML in it, formulas and mentions are made of
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # emphasis; inside of a name it is none
    r"|:(?=//)|(?<=www)\."  # an address becomes a link by itself
)


def one_line(text: Any, longest: int = LONGEST_TEXT) -> str:
    """Make a text one short line that no spreadsheet runs.

    Args:
        text: what came; anything but a text is described by its type.
        longest: characters that are kept. A longer text ends in "...".

    Returns:
        A line without control characters and without blanks at its ends. One that a spreadsheet
        would take for a formula starts with an apostrophe.
    """
    if not isinstance(text, str):
        text = f"(a {type(text).__name__} instead of a text)"
    # A cut before the work: a site may send a text of any length.
    seen = text[: 4 * longest]
    seen = "".join(" " if unicodedata.category(c) in _INVISIBLE else c for c in seen)
    line = " ".join(seen.split())
    if line.startswith(_FORMULA):
        line = f"'{line}"
    if len(line) > longest or len(text) > 4 * longest:
        line = line[: longest - len(_CUT)] + _CUT
    return line


def in_markdown(text: Any, longest: int = LONGEST_TEXT) -> str:
    """Make a text one line as `one_line` does, and let Markdown show it as it is."""
    return _ACTIVE.sub(lambda found: f"\\{found[0]}", one_line(text, longest))


def in_cell(text: Any, longest: int = LONGEST_NAME) -> str:
    """Do as `in_markdown` for a cell of `bundle.evaluation.tables.markdown`, which escapes bars."""
    return in_markdown(text, longest).replace("\\|", "|")


def reason_of(error: Exception) -> str:
    """Say what went wrong with a message: our own text, or the kind of error with its text."""
    try:
        text = str(error)
    except Exception:
        # What a message holds may raise errors of its own, which have no text either.
        text = "without a text"
    return text if type(error) is ValueError else f"{type(error).__name__}: {text}"
