"""Choosing between a plain scan and preprocessed versions of it, which published data sets have."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from bundle.data.filenames import LABEL, Name

# What changes the voxel grid.
_MOVED = re.compile(
    r"(?<![a-z])((co)?reg(istered)?|aligned|rigid|affine|warped|resampled|to|mni(152)?|sri(24)?"
    r"|iso(tropic)?)(?![a-z])",
    re.IGNORECASE,
)


def plain_versions(names: Sequence[Name]) -> tuple[list[Name], list[Name]]:
    """Leave aside preprocessed versions of the scans of one case, where each has a plain one.

    UCSF-PDGM has `_T1.nii.gz` beside `_T1_bias.nii.gz`. Nothing is left aside where another scan of
    the case is preprocessed alone, or where some were registered: the plain ones need not lie on
    the grid of the others.

    Args:
        names: of one case.

    Returns:
        The names to take, and those left aside.
    """
    by_role: dict[str, list[Name]] = defaultdict(list)
    for name in names:
        if name.role != LABEL:
            by_role[str(name.role)].append(name)
    aside: list[Name] = []
    moved = any(_MOVED.search(name.path.name) for name in names if name.role != LABEL)
    if moved and len({len(versions) > 1 for versions in by_role.values()}) > 1:
        return list(names), []
    for versions in by_role.values():
        plain = [name for name in versions if not name.done]
        if len(plain) != 1 and (len(versions) > 1 or not plain):
            return list(names), []
        aside += [name for name in versions if name.done]
    return [name for name in names if name not in aside], aside


def aside_line(pairs: Iterable[tuple[Path, Path]]) -> list[str]:
    """Say once how many versions were left aside, with an example: one line, or none.

    Args:
        pairs: of a file that was left aside, and the one that was taken.
    """
    pairs = list(pairs)
    if not pairs:
        return []
    (left, taken), many = pairs[0], len(pairs) > 1
    return [
        f"{len(pairs)} preprocessed scan{'s' * many} {'are' if many else 'is'} left aside, for "
        f"there is a plain file of the same scan, such as {taken.name} beside {left.name}. To "
        "take the other one, give its ending, for T1: --suffixes 'other=t1;t1=t1_bias'."
    ]


def differing_words(names: Sequence[Name], case: str) -> list[Name]:
    """Return two scans whose names differ before the ending in a word that may name another case.

    `site1_iso_t1` and `site1_norm_flair` may be two patients', or one that was preprocessed.

    Args:
        names: of one case.
        case: its name. With a digit it may stand without a word beside a name with one.
    """
    seen: dict[str, Name] = {}
    for name in names:
        bids = name.prefix[:4].lower() == "sub-"
        if name.role != LABEL and name.prefix and not bids:
            words = name.spelled[len(name.prefix) :]
            seen.setdefault(words.strip(" _.+-").casefold(), name)
    firm = any(map(str.isdigit, case))
    if len(seen) - (firm and "" in seen) < 2:
        return []
    return list(seen.values())[:2]
