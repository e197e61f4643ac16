"""What a site may be called: NVFlare bears the name, and here it becomes the name of a file."""

from __future__ import annotations

import re
from collections.abc import Iterable

# NVFlare 2.9 takes letters, digits, '-' and '_' (`nvflare.apis.utils.format_check`, "client"); its
# own helpers begin with '-'. A certificate's common name has at most 64 characters (RFC 5280).
_SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
WHOLE = "datalist"
# The server's own name, and the file of all cases that lies beside the sites' files.
_TAKEN = ("server", WHOLE)


def check_site(name: str) -> str:
    """Return a site's name.

    Raises:
        ValueError: a name that NVFlare refuses, the server's, or that of the file of all cases.
    """
    if not _SITE_NAME.fullmatch(name) or name.lower() in _TAKEN:
        raise ValueError(
            f"site name {name!r}: expected at most 64 letters, digits, '_' and '-', a letter or "
            f"digit first, and not {' or '.join(map(repr, _TAKEN))}. Rename the site."
        )
    return name


def check_apart(names: Iterable[str], where: str) -> None:
    """Refuse names that differ in upper and lower case alone: they may be one file's.

    Raises:
        ValueError: naming both.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise ValueError(
                f"{where}: sites {other!r} and {name!r} differ in upper and lower case alone. "
                "Give each site a name of its own."
            )
