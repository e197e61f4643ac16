"""File names that only those beside them explain: is `p01_post_t1` after the agent, or later?"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bundle.data.filenames import (
    AGENT_OR_TIME,
    LABEL,
    OTHER,
    PREDICTION,
    Name,
    case_key,
    fold,
    read_name,
)
from bundle.data.telling_words import FLAIR
from bundle.modalities import FILE_SUFFIXES

_POST = re.compile(r"(^|[^a-z])post$", re.IGNORECASE)


def read_names(paths: Iterable[Path], endings: Mapping[str, str]) -> list[Name]:
    """Read the names of files that may belong together, such as those of one folder.

    `p01_post_t1` alone may be after the agent or after surgery. Beside `p01_post_flair` it is the
    T1 of `p01_post`.
    """
    return settle_doubtful([read_name(path, endings) for path in paths])


def settle_doubtful(names: Sequence[Name]) -> list[Name]:
    """Read the doubtful names anew whose prefix another scan in the same folder has, too.

    `p01_gd_t1` beside `p01_gd_flair` and `p01_flair` stays in doubt, and is not understood. So does
    `p01_post_t1` beside `p01_post_flair` alone: a FLAIR may be scanned after the agent, too.
    """
    sure: dict[tuple[Path, str], set[str]] = defaultdict(set)
    for name in names:
        if name.role not in (None, LABEL, PREDICTION, OTHER) and name.otherwise is None:
            sure[name.path.parent, fold(name.spelled)].add(str(name.role))
    return [_settle(name, sure) for name in names]


def _settle(name: Name, sure: Mapping[tuple[Path, str], set[str]]) -> Name:
    if name.otherwise is None:
        return name
    folder = name.path.parent
    beside = sure.get((folder, fold(name.other_spelled)), set())
    if _POST.search(name.other_spelled):
        beside = {role for role in beside if role.lower() not in (FLAIR, *FILE_SUFFIXES[FLAIR])}
    if not beside:
        return name
    if name.role is not None and (folder, fold(name.spelled)) in sure:
        return Name(name.path, name.other_spelled, None, AGENT_OR_TIME)
    case, spelled = case_key(name.other_spelled), name.other_spelled
    return replace(name, role=name.otherwise, why="", prefix=case, spelled=spelled)
