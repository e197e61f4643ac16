"""How far the server believes the sites: the arguments of a job, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from federation.server.averaging import NONE, ROBUST
from federation.server.counts import FACTOR


@dataclass(frozen=True)
class Trust:
    """How far the server believes the sites.

    Attributes:
        norm_bound: largest L2 norm of a contribution's parameters; None = any. Noise for privacy
            adds to it: choose it above.
        site_cases: {site: cases}, the coordinator's own list; a site that is not in it is refused.
            None = there is no list.
        case_factor: see `counts.believed`; None = what sites claim counts.
        robust: none; clipped = the norm of each update in a group of parameters is at most the
            median norm of this group; trimmed = `averaging.trimmed_mean`.

    Raises:
        ValueError: a number below its range, or another name.
    """

    norm_bound: float | None = None
    site_cases: Mapping[str, int] | None = None
    case_factor: float | None = FACTOR
    robust: str = NONE

    def __post_init__(self) -> None:
        if self.robust not in ROBUST:
            raise ValueError(f"robust: expected one of {list(ROBUST)}, got {self.robust!r}")
        if self.case_factor is not None and not self.case_factor >= 1:
            raise ValueError(f"case_factor: expected at least 1, got {self.case_factor!r}")
        listed = self.site_cases if self.site_cases is not None else {}
        wrong = [f"{s}: {n!r}" for s, n in listed.items() if type(n) is not int or n < 1]
        if wrong or (self.site_cases is not None and not listed):
            raise ValueError(
                f"site_cases: expected sites and their numbers of cases from 1, got {wrong}"
            )
