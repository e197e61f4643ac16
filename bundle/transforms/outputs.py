"""The names of the files that inference writes: one case, one name, and nothing is overwritten."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.transforms.layouts import check_name, postfix_of

# Bytes. With an ending, and as the hidden file that it is at first, a name must stay below the 255
# that file systems allow.
_LONGEST_CASE, _LONGEST_MODALITY = 120, 40
_RESERVED = frozenset('<>:"/\\|?*')
# Windows takes these for devices, whatever the ending.
_DEVICES = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", re.IGNORECASE)
_ENDING = ".nii.gz"


def safe_name(name: str, longest: int = _LONGEST_CASE) -> str:
    """Turn the name of a case into the beginning of a file name, without a folder.

    What is not printable, and what a system reserves (`/ \\ : * ? " < > |`, dots at the beginning),
    becomes `_`. A name that is too long is cut, and gets eight digits of its hash. Ordinary names
    stay as they are.

    Args:
        name: any text.
        longest: bytes, at least 20.

    Returns:
        At least one character.
    """
    whole = unicodedata.normalize("NFC", name)
    safe = "".join("_" if c in _RESERVED or not c.isprintable() else c for c in whole)
    safe = re.sub(r"^[. ]+", lambda found: "_" * len(found[0]), safe)
    safe = _DEVICES.sub(r"\1_", safe) or "_"
    if len(safe.encode()) > longest:
        digits = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        safe = f"{safe.encode()[: longest - 9].decode('utf-8', 'ignore')}-{digits}"
    return safe


def case_file_name(meta: Mapping[str, Any], saver: Any = None) -> dict[str, Any]:
    """Name a written file after its case and, if it shows a single one, its modality.

    The modality never comes last in the finished name, `<case>_t1_rebuilt.nii.gz`: a file that ends
    in `_t1.nii.gz` would be found as a scan the next time somebody reads its folder.

    Returns:
        What SaveImaged's `output_name_formatter` returns.
    """
    # The dot at the end stands for the one at which SaveImaged cuts the name off.
    return {
        "subject": f"{_stem(str(meta.get('case', 'case')), meta.get('modality'))}.",
        "idx": None,
    }


def _stem(case: str, modality: Any = None) -> str:
    extra = [] if modality is None else [safe_name(str(modality), _LONGEST_MODALITY)]
    return "_".join([safe_name(case), *extra])


def check_outputs(
    output_dir: str | Path,
    items: Iterable[Mapping[str, Any]],
    modalities: Sequence[str],
    probabilities: bool = False,
    rebuilt: bool = False,
    uncertainty: bool = False,
    overwrite: bool = False,
    layout: str = "patchwork",
) -> None:
    """Refuse a run that would write two cases into one file, or over a file, before it begins.

    Args:
        output_dir: the folder that the run writes into.
        items: the cases, as `bundle.data.datalist.inference_cases` lists them.
        modalities: the vocabulary.
        probabilities, rebuilt, uncertainty: True = the run writes these, too.
        overwrite: True = files that are there may be replaced, but never one that the run reads.
        layout: how the segmentation is named, see `bundle.transforms.layouts`.

    Raises:
        ValueError: two cases would share a file; both are named. Or a segmentation would be called
            as a scan is.
        FileExistsError: a file is there already; the first are named, and all are counted.
    """
    items = list(items)
    wanted = {postfix_of(layout): True, "probabilities": probabilities, "uncertainty": uncertainty}
    endings = [ending for ending, asked in wanted.items() if asked]
    owners: dict[str, int] = {}
    paths: list[Path] = []
    for place, item in enumerate(items):
        for name in _names(item, endings, modalities if rebuilt else ()):
            if not postfix_of(layout):
                check_name(name, str(item.get("case")), tuple(modalities))
            first = owners.setdefault(_folded(name), place)
            if first != place:
                raise ValueError(_shared(items[first], item, name))
            paths.append(Path(output_dir) / name)
    existing = [path for path in paths if os.path.lexists(path)]
    if overwrite:
        _refuse_own_inputs(existing, items)
    elif existing:
        raise FileExistsError(
            f"{output_dir}: {_listed(existing)} already there, and nothing is overwritten. Give "
            "another folder with --output_dir, or --overwrite true to replace what this run writes."
        )


def _names(
    item: Mapping[str, Any], endings: Sequence[str], modalities: Sequence[str]
) -> Iterator[str]:
    """List the files that a case may get: of a single file nobody knows yet what is absent."""
    case, image = str(item.get("case", "case")), item.get("image")
    given = set(image) if isinstance(image, Mapping) else set()
    yield from (f"{_stem(case)}{ending and '_'}{ending}{_ENDING}" for ending in endings)
    yield from (f"{_stem(case, m)}_rebuilt{_ENDING}" for m in modalities if m not in given)


def _folded(name: str) -> str:
    """Return what names share that some file system takes for one."""
    return unicodedata.normalize("NFC", name.casefold())


def _shared(first: Mapping[str, Any], second: Mapping[str, Any], name: str) -> str:
    return (
        f"cases {str(first.get('case'))!r} and {str(second.get('case'))!r} would both be written "
        f"into {name}: what no file name may hold becomes _, and some file systems do not tell "
        "letter cases apart. Rename one of them in the datalist, or segment them one after the "
        "other, each with an --output_dir of its own."
    )


def _listed(paths: Sequence[Path]) -> str:
    shown = ", ".join(path.name for path in paths[:3])
    if len(paths) == 1:
        return f"{shown} is"
    return f"{shown}{', ...' if len(paths) > 3 else ''} ({len(paths)} files) are"


def _refuse_own_inputs(paths: Iterable[Path], items: Iterable[Mapping[str, Any]]) -> None:
    read = {os.path.realpath(file) for item in items for file in _inputs(item)}
    own = [path for path in paths if os.path.realpath(path) in read]
    if own:
        raise FileExistsError(
            f"{own[0].parent}: {_listed(own)} read by this run, which would write there, too. "
            "Give another folder with --output_dir."
        )


def _inputs(item: Mapping[str, Any]) -> list[str]:
    image = item.get("image") or {}
    return [str(file) for file in (image.values() if isinstance(image, Mapping) else [image])]
