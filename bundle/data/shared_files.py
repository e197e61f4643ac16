"""Files that a datalist names twice: whatever the path, links followed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any


def shared_files(sections: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, set[str]]:
    """Say which files stand for two things: two modalities, a scan and a label, or two cases.

    Args:
        sections: section -> items with absolute paths; a file need not exist.

    Returns:
        One line for each case, or pair of cases, concerned, and the cases that it names.
    """
    first: dict[str, tuple[str, str]] = {}
    pairs: dict[tuple[tuple[str, str], tuple[str, str]], list[str]] = {}
    lines: dict[str, set[str]] = {}
    for section, items in sections.items():
        for item in items:
            place = (section, str(item["case"]))
            roles: dict[str, list[str]] = {}
            for role, path in _files(item).items():
                roles.setdefault(os.path.realpath(path), []).append(role)
            for path, names in roles.items():
                if len(names) > 1:
                    lines[_twice(place[1], names, path)] = {place[1]}
                if first.setdefault(path, place) != place:
                    pairs.setdefault((first[path], place), []).append(path)
    return lines | {_pair(*pair, paths): {pair[0][1], pair[1][1]} for pair, paths in pairs.items()}


def _files(item: Mapping[str, Any]) -> dict[str, str]:
    image = item["image"]
    images = dict(image) if isinstance(image, Mapping) else {"image": image}
    return {role: path for role, path in {**images, "label": item.get("label")}.items() if path}


def _twice(case: str, roles: Sequence[str], path: str) -> str:
    return (
        f"case {case}: {' and '.join(roles)} are one file, {path}. Correct the path of one, or "
        "take its key away: the case then counts as lacking it."
    )


def _pair(one: tuple[str, str], other: tuple[str, str], paths: Sequence[str]) -> str:
    leak = one[0] != other[0]
    where = [f"{case} in '{section}'" if leak else case for section, case in (one, other)]
    shared = "the file" if len(paths) == 1 else f"{len(paths)} files, such as"
    why = "Scores would be too good. " if leak else ""
    return (
        f"cases {where[0]} and {where[1]} share {shared} {paths[0]}. {why}"
        "Correct the paths, or keep one of the two cases."
    )
