"""Which files make up one case, in whatever form a host names them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.data.doubtful_names import read_names
from bundle.data.filenames import (
    Suffixes,
    file_endings,
    fold,
    is_volume,
    might_be_volume,
    readable_endings,
    split_name,
)
from bundle.data.folders import plain_path
from bundle.data.versions import aside_line, differing_words, plain_versions
from bundle.data.volumes import CaseError, count_volumes
from bundle.modalities import check_known

logger = logging.getLogger(__name__)

Files = dict[str, Path]


def spell_out(
    item: Mapping[str, Any], modalities: Sequence[str], suffixes: Suffixes = None
) -> dict[str, Any]:
    """Return an item that names its case and the file of each modality, as a datalist does.

    Args:
        item: its `image` is any source that `find_files` takes, or a 4D file, which stays one.
        modalities: the vocabulary.
        suffixes: endings of file names besides the known ones, see `read_suffixes`.

    Raises:
        CaseError: a missing file, two files of one modality, no modality recognisable.
    """
    source = item["image"]
    endings = file_endings(modalities, suffixes)
    named = item.get("case")
    case = name_case(source, endings) if named in (None, "") else str(named)
    if not is_4d(source, case):
        files = find_files(source, modalities, case, endings)
        source = {name: str(path) for name, path in files.items()}
    return {**item, "case": case, "image": source}


def find_files(
    source: Any,
    modalities: Sequence[str],
    case: str,
    endings: Mapping[str, str] | None = None,
) -> Files:
    """Map modalities to the files of one case.

    Args:
        source: a dict modality -> path, a list of paths, a folder of one case, or one 3D file whose
            siblings belong to the case; see `bundle.transforms.load.LoadModalitiesd`.
        modalities: the vocabulary.
        case: the case's name, for the messages.
        endings: from `file_endings`; None = the known ones.

    Returns:
        Modality -> path, in vocabulary order.

    Raises:
        CaseError: a single file that does not exist, a name that tells no modality, two files of
            one modality, no modality recognisable.
        ValueError: a dict that names an unknown modality.
    """
    endings = file_endings(modalities) if endings is None else endings
    if isinstance(source, Mapping):
        check_known(source, modalities, f"case {case}")
        files = {name: Path(source[name]) for name in modalities if source.get(name)}
    elif isinstance(source, (list, tuple)):
        paths = [Path(path) for path in source if path]
        files = _recognise(paths, modalities, endings, case)
    elif Path(source).is_dir():
        _warn_of_unread(Path(source).iterdir(), endings, case)
        files = _recognise(_volumes_in(Path(source)), modalities, endings, case, strict=False)
    else:
        files = _siblings(Path(source), modalities, endings, case)
    if not files:
        raise CaseError(
            f"case {case}: no modality is recognisable in {source}. Expected files whose names "
            f"end in one of {readable_endings(endings, modalities)}, such as "
            f"{case}_{modalities[0]}.nii.gz."
        )
    return files


def name_case(source: Any, endings: Mapping[str, str]) -> str:
    """Name a case after its folder, or after what stands before the modality in a file's name.

    Args:
        source: as in `find_files`.
        endings: from `file_endings`.
    """
    if isinstance(source, Mapping):
        source = [path for path in source.values() if path]
    if isinstance(source, (list, tuple)):
        source = next((path for path in source if path), "unnamed")
    path = plain_path(source)
    if path.is_dir():
        return path.name
    # The names beside it may be needed to read one.
    beside = _volumes_in(path.parent) if path.is_file() else []
    read = next((n for n in read_names(beside, endings) if n.path == path), None)
    prefix = read.prefix if read else split_name(path, endings)[0]
    return prefix or path.parent.name or "unnamed"


def is_4d(source: Any, case: str) -> bool:
    """True = the source is one NIfTI file that holds more than one volume.

    Raises:
        CaseError: the file is no NIfTI file.
    """
    is_file = isinstance(source, (str, Path)) and Path(source).is_file()
    return is_file and count_volumes(source, case) > 1


def _recognise(
    paths: Sequence[Path],
    modalities: Sequence[str],
    endings: Mapping[str, str],
    case: str,
    strict: bool = True,
) -> Files:
    """Sort files by the modality in their names; strict = refuse a name that tells none."""
    files: Files = {}
    names = read_names(paths, endings)
    if not strict:
        known, aside = plain_versions([name for name in names if name.role in modalities])
        taken = {name.role: name.path for name in known}
        for line in aside_line((name.path, taken[name.role]) for name in aside):
            logger.warning("case %s: %s", case, line)
        names = known
    for path, role in ((name.path, name.role) for name in names):
        if role not in modalities:
            if strict:
                raise CaseError(
                    f"case {case}: the name of {path} tells no modality. Expected it to end in "
                    f"one of {readable_endings(endings, modalities)}. Rename it, or pass a dict of "
                    "modality and path (for a single file also by `modality`): lists are never "
                    "read by position."
                )
            continue
        if role in files:
            raise CaseError(
                f"case {case}: two files for '{role}', {files[role].name} and {path.name}. "
                "Expected one. Remove one of them."
            )
        files[role] = path
    return {name: files[name] for name in modalities if name in files}


def _siblings(
    path: Path, modalities: Sequence[str], endings: Mapping[str, str], case: str
) -> Files:
    if not path.is_file():
        raise CaseError(f"case {case}: file {path} does not exist. Correct the path.")
    names = read_names(_volumes_in(path.parent), endings)
    own = next((name for name in names if name.path == path), None)
    if own is None or own.role not in modalities:
        return _recognise([path], modalities, endings, case)
    prefix = own.prefix
    starts = tuple(fold(f"{prefix}{separator}") for separator in "_-. (+")
    _warn_of_unread(
        (other for other in path.parent.iterdir() if fold(other.name).startswith(starts)),
        endings,
        case,
    )
    same = [name.path for name in names if name.prefix == prefix and name.role in modalities]
    pair = differing_words([name for name in names if name.path in same], prefix)
    if pair and fold(prefix) != fold(path.parent.name):
        raise CaseError(
            f"case {case}: the names of {pair[0].path.name} and {pair[1].path.name} differ before "
            "the ending in a word of preprocessing, which may be part of the case's name. Spell "
            "them alike if this is one patient, or pass a dict of modality and path."
        )
    return _recognise(same, modalities, endings, case, strict=False)


def _volumes_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and is_volume(path.name))


def _warn_of_unread(paths: Iterable[Path], endings: Mapping[str, str], case: str) -> None:
    """Log the NIfTI files that might be scans of the case, but are not understood."""
    names = read_names(sorted(p for p in paths if might_be_volume(p.name)), endings)
    for name in (name for name in names if name.role is None):
        logger.warning(
            "case %s: %s is left out, its name is not understood (%s). Rename it, or give its "
            "ending under 'suffixes'.",
            *(case, name.path.name, name.why),
        )
