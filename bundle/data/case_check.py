"""Everything that can be wrong with one case, said at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.data.volumes import (
    CaseError,
    Grid,
    check_grids,
    check_integrity,
    is_blank,
    read_grid,
    read_labels,
    read_voxels,
)


def check_case(
    item: Mapping[str, Any],
    modalities: Sequence[str],
    known_labels: Sequence[int],
    aliases: Mapping[int, int] | None = None,
    voxels: bool = True,
) -> tuple[dict[str, Any], list[str]]:
    """Check every file of one datalist item.

    Args:
        item: `case`, `image` {modality: absolute path} and, optionally, `label`.
        modalities: the vocabulary.
        known_labels: the label values that the regions mention.
        aliases: as in `read_labels`.
        voxels: True = read all voxels; False = headers only, some milliseconds a case.

    Returns:
        The item without the modalities whose volumes are blank, and a warning for each of them.

    Raises:
        CaseError: one line for each problem of the case.
    """
    case, image = str(item["case"]), {m: item["image"][m] for m in modalities if m in item["image"]}
    problems = _check_headers([*image.values(), *_label_paths(item)], case)
    blank: list[str] = []
    warnings: list[str] = []
    if voxels and not problems:
        blank, problems = _check_images(image, case)
        warnings = [_blank_warning(case, image[name], name) for name in blank]
        problems += _check_label(item, case, known_labels, aliases)
    present = {name: path for name, path in image.items() if name not in blank}
    if not present and not problems:
        problems = [_nothing_present(case, blank)]
    if problems:
        raise CaseError("\n".join(problems))
    return {**item, "image": present}, warnings


def _label_paths(item: Mapping[str, Any]) -> list[str]:
    return [item["label"]] if item.get("label") else []


def _check_headers(paths: Iterable[str], case: str) -> list[str]:
    grids: dict[Path, Grid] = {}
    problems = []
    for path in paths:
        try:
            grids[Path(path)] = read_grid(path, case)
        except CaseError as error:
            problems.append(str(error))
    try:
        check_grids(grids, case)
    except CaseError as error:
        problems.append(str(error))
    return problems


def _check_images(image: Mapping[str, str], case: str) -> tuple[list[str], list[str]]:
    blank, problems = [], []
    for name, path in image.items():
        try:
            check_integrity(path, case)
            if is_blank(read_voxels(path, case)):
                blank.append(name)
        except CaseError as error:
            problems.append(str(error))
    return blank, problems


def _check_label(
    item: Mapping[str, Any], case: str, known: Sequence[int], aliases: Mapping[int, int] | None
) -> list[str]:
    try:
        for path in _label_paths(item):
            check_integrity(path, case)
            read_labels(path, case, known, aliases)
    except CaseError as error:
        return [str(error)]
    return []


def _blank_warning(case: str, path: str, name: str) -> str:
    return f"case {case}: {path} is constant everywhere, so '{name}' counts as absent"


def _nothing_present(case: str, blank: Sequence[str]) -> str:
    why = f"the volumes of {', '.join(blank)} are constant" if blank else "no modality is named"
    return f"case {case}: nothing is present, {why}. Take the case out of the datalist."
