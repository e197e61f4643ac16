"""The datalist: which files make up each case, and in which section the case is.

JSON in MONAI's style, paths relative to the file:

    {"training": [{"case": "id", "image": {"t1": "...", "flair": "..."}, "label": "...",
                   "site": "...", "patient": "..."}], "validation": [...], "testing": [...]}

A missing or null modality was not scanned. `site` and `patient` are optional, and so is `label` in
the testing section. Further keys at the top level are notes; the commands carry them along.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from bundle import __version__
from bundle.atomic import write_text_atomically
from bundle.data.case_names import check_case_name, is_name
from bundle.data.case_rules import CHECKED, Finding
from bundle.data.check_cases import (
    CheckMemo,
    Checks,
    all_suspicions,
    check_cases,
    fingerprint,
    refuse_odd,
    repeats,
)
from bundle.data.filenames import Suffixes, file_endings, split_name
from bundle.data.folders import check_path, plain_path
from bundle.data.patients import SECTIONS, shared_patients
from bundle.data.plausibility.judge import count_by_rule
from bundle.data.shared_files import shared_files
from bundle.data.survey import survey
from bundle.data.volumes import CaseError, count_volumes
from bundle.modalities import check_known
from bundle.regions import Regions, known_labels

logger = logging.getLogger(__name__)

LABELLED_SECTIONS = ("training", "validation")

# What a transform may rely on; batches are collated by key, so notes of some cases stay behind.
_ITEM_KEYS = ("case", "image", "label", "site")

Item = dict[str, Any]


class CheckedDatalist(dict[str, list[Item]]):
    """The sections of a datalist, and how many of their cases look odd.

    Args:
        sections: {section: items}.
        flagged: rule -> number of cases that it warned of; no names, so a site may tell them.
    """

    def __init__(self, sections: Mapping[str, list[Item]], flagged: Mapping[str, int]) -> None:
        super().__init__(sections)
        self.flagged = dict(flagged)


def load_datalist(path: str | Path, modalities: Sequence[str]) -> dict[str, Any]:
    """Read a datalist as it stands; no file that it names is opened.

    Returns:
        All three sections, a missing one as [], with absolute paths in vocabulary order and nulls
        left out; every other top-level key and item key as it is.

    Raises:
        ValueError: not JSON, not of the form above, an unknown modality, no case at all, a case
            without modality, a case twice in a section, a name that leads out of a folder, or one
            file for two modalities, labels or cases; every problem is listed.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    datalist = _read_json(path)
    problems: list[str] = []
    for section in SECTIONS:
        entries = datalist.get(section) or []
        if not isinstance(entries, list):
            raise ValueError(f"{path}: '{section}' must be a list of cases, got {entries!r:.80}")
        items = []
        for index, entry in enumerate(entries):
            try:
                items.append(_resolve(entry, f"{path.name}, {section}[{index}]", path, modalities))
            except ValueError as error:
                problems.append(str(error))
        problems += _repeated(items, section)
        datalist[section] = items
    problems += shared_files({section: datalist[section] for section in SECTIONS})
    if not problems and not any(datalist[section] for section in SECTIONS):
        problems = [f"no case in it. Expected cases under {', '.join(map(repr, SECTIONS))}"]
    _raise_all(path, problems)
    return datalist


def read_datalist(
    path: str | Path,
    modalities: Sequence[str],
    regions: Regions,
    aliases: Mapping[int, int] | None = None,
    check: Literal["voxels", "headers", "none"] = "voxels",
    memo: str | Path | None = None,
    on_bad: Literal["raise", "drop"] = "raise",
    sections: Sequence[str] = SECTIONS,
) -> CheckedDatalist:
    """Read a datalist and check every case of it, so that training meets no bad one.

    Args:
        path: the datalist.
        modalities: the vocabulary.
        regions: the region table, whose label values are the known ones.
        aliases: other label values and how to read them, e.g. {3: 4}; None = none.
        check: "voxels" reads every file (about two seconds a case, remembered in `memo`),
            "headers" only compares the voxel grids, "none" only looks whether the files exist.
        memo: a JSON file that remembers good cases by path, size and modification time.
        on_bad: "raise" refuses the datalist; "drop" logs the bad cases and leaves them out.
        sections: the ones to check and return; the others' files are not looked at.

    Returns:
        {section: items} for the sections asked for. An item holds `case`, `image` {modality:
        absolute path} in vocabulary order without blank volumes, and `label` and `site` where
        given. What looks odd about a good case is logged as a warning, and counted by rule.

    Raises:
        ValueError: as `load_datalist`; a patient in two sections, or with check="voxels" the same
            scan; a training or validation case without label; with on_bad="raise" every problem of
            every case.
    """
    _check_choice("check", check, ("voxels", "headers", "none"))
    _check_choice("on_bad", on_bad, ("raise", "drop"))
    path = Path(path)
    datalist = load_datalist(path, modalities)
    _raise_all(path, shared_patients(datalist))
    checks = Checks(
        tuple(modalities),
        tuple(known_labels(regions)),
        {int(source): int(target) for source, target in (aliases or {}).items()},
        check,
        {name: tuple(values) for name, values in regions.items()},
    )
    remembered = CheckMemo(memo if check == "voxels" else None, checks)
    findings: dict[str, list[Finding]] = {}
    problems: list[str] = []
    for section in sections:
        _check_choice("sections", section, SECTIONS)
        items = [{k: v for k, v in item.items() if k in _ITEM_KEYS} for item in datalist[section]]
        if section in LABELLED_SECTIONS:
            problems += _unlabelled(items, section)
            items = labelled(items)
        good, bad = check_cases(items, checks, remembered, f"checking {section}")
        findings[section] = good
        problems += bad
    remembered.save()
    usable = {section: _usable(good) for section, good in findings.items()}
    repeated = repeats(findings)
    leaks = [str(found) for found in repeated if found.refused == "always"]
    _raise_all(path, leaks + problems if leaks else [])
    for suspicion in repeated:
        logger.warning("%s", suspicion)
    _settle(path, problems, on_bad, any(usable.values()))
    return CheckedDatalist(usable, count_by_rule(all_suspicions(findings)))


def write_datalist(datalist: Mapping[str, Any], path: str | Path) -> None:
    """Write a datalist with absolute paths; the file gets paths relative to its own folder.

    The sections come first and the notes after them, the same input giving the same bytes.
    A path on another drive stays absolute.
    """
    path = plain_path(path)
    written: dict[str, Any] = {
        section: [_relative(item, path.parent) for item in datalist.get(section, [])]
        for section in SECTIONS
    }
    written |= {key: value for key, value in datalist.items() if key not in SECTIONS}
    write_text_atomically(path, json.dumps(written, indent=2) + "\n")


def inference_cases(
    source: str | Path,
    modalities: Sequence[str],
    section: str = "testing",
    check: Literal["voxels", "headers", "none"] = "voxels",
    on_bad: Literal["raise", "drop"] = "drop",
    strict: bool = False,
    suffixes: Suffixes = None,
) -> list[Item]:
    """List the cases to segment. They are checked first, so a bad case does not stop the others.

    Args:
        source: a datalist (.json), a folder of cases or of one case, or one NIfTI file: a 4D volume
            or any one modality of a case.
        modalities: the vocabulary.
        section: which part of a datalist to take.
        check: as in `read_datalist`.
        on_bad: "drop" logs the bad cases and leaves them out, "raise" refuses to start.
        strict: True = a case with which no result can be right counts as bad; False = it is warned
            of, see `bundle.data.plausibility.rules`.
        suffixes: endings of file names besides the known ones, see
            `bundle.data.filenames.read_suffixes`.

    Returns:
        Datalist items with absolute paths, without labels, marked as `CHECKED`. For a single NIfTI
        file, and for a 4D file of a folder with a dataset.json, `image` is its path as a string,
        and the check is left to the transform that loads it.

    Raises:
        ValueError: the datalist or the folder cannot be used, or no usable case is left.
        FileNotFoundError: `source` does not exist.
    """
    _check_choice("check", check, ("voxels", "headers", "none"))
    _check_choice("on_bad", on_bad, ("raise", "drop"))
    source = plain_path(source)
    if source.name.lower().endswith((".nii", ".nii.gz")) and source.is_file():
        case, _ = split_name(source, file_endings(modalities, suffixes))
        return [{"case": case or source.parent.name, "image": str(source)}]
    found, whole, ambiguous = _find_items(source, modalities, section, suffixes)
    items = [{"case": item["case"], "image": item["image"]} for item in found]
    checks = Checks(tuple(modalities), (), {}, check)
    good, bad = check_cases(items, checks, CheckMemo(None, checks), "checking")
    good, odd = refuse_odd(good) if strict else (good, [])
    _settle(source, ambiguous + bad + odd, on_bad, bool(good or whole))
    return [item | {CHECKED: True} for item in _usable(good)] + whole


def _find_items(
    source: Path, modalities: Sequence[str], section: str, suffixes: Suffixes
) -> tuple[list[Item], list[Item], list[str]]:
    """Find items with a file a modality, those of 4D files, and problems."""
    if source.is_dir():
        found = survey(source, modalities, suffixes)
        for line in found.unread + found.notes:
            logger.warning("%s", line)
        whole, bad = _sound_4d(found.volumes_4d)
        return found.items, whole, found.problems + bad
    if not source.is_file():
        raise FileNotFoundError(
            f"{source} does not exist. Expected a datalist (.json), a folder of cases, "
            "or a NIfTI file (.nii, .nii.gz)."
        )
    _check_choice("section", section, SECTIONS)
    items = load_datalist(source, modalities)[section]
    if not items:
        raise ValueError(f"{source}: no case under '{section}'. Choose one of {list(SECTIONS)}.")
    return items, [], []


def _sound_4d(items: Iterable[Item]) -> tuple[list[Item], list[str]]:
    """Tell the items whose file really holds several volumes, by its header, from the others."""
    good, bad = [], []
    for item in items:
        try:
            if count_volumes(item["image"], item["case"]) > 1:
                good.append(item)
                continue
            bad.append(
                f"case {item['case']}: expected all channels in {item['image']}, got one volume. "
                "Name it by its modality."
            )
        except CaseError as error:
            bad.append(str(error))
    return good, bad


def hash_case(item: Mapping[str, Any]) -> bytes:
    """Hash an item, its files' state and the bundle's version: PersistentDataset's `hash_func`.

    A file that is written anew changes the hash, so its old cache is not used any more.

    Returns:
        64 hexadecimal digits.

    Raises:
        FileNotFoundError: a file of the item does not exist.
    """
    return fingerprint(item, __version__).encode()


def labelled(items: Iterable[Item]) -> list[Item]:
    """Return the items that name a label file, in order."""
    return [item for item in items if item.get("label")]


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"datalist {path} does not exist. Write one with `python -m bundle scan FOLDER "
            "--output FILE`."
        )
    try:
        # By its first bytes Python tells UTF-8 and UTF-16 apart, with the mark of Windows or not.
        datalist = json.loads(path.read_bytes())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a JSON file, {error}. Save it as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(datalist, dict):
        raise ValueError(f"{path}: expected an object with {list(SECTIONS)}, got {datalist!r:.80}")
    return datalist


def _resolve(entry: Any, where: str, path: Path, modalities: Sequence[str]) -> Item:
    if not isinstance(entry, dict) or not is_name(entry.get("case")):
        raise ValueError(
            f"{where}: expected an object with a 'case', a text or a whole number, got "
            f"{entry!r:.80}"
        )
    case, image = str(entry["case"]), entry.get("image")
    check_case_name(case, where)
    for key in ("patient", "site"):
        if entry.get(key) is not None and not is_name(entry[key]):
            raise ValueError(f"case {case}: '{key}' must be a name, got {entry[key]!r:.80}")
    if not isinstance(image, dict):
        raise ValueError(
            f"case {case}: 'image' must map modalities to files, "
            f"such as {{'{modalities[0]}': 'case_{modalities[0]}.nii.gz'}}, got {image!r:.80}"
        )
    given = {name: file for name, file in image.items() if file}
    check_known(image, modalities, f"case {case}")
    if not given:
        raise ValueError(f"case {case}: no modality is named. Take the case out of the datalist.")
    for name, file in {**given, "label": entry.get("label") or ""}.items():
        if not isinstance(file, str):
            raise ValueError(f"case {case}: '{name}' must be the path of a file, got {file!r:.80}")
    folder, where = plain_path(path).parent, f"case {case}"
    item = {key: value for key, value in entry.items() if value is not None} | {"case": case}
    item["image"] = {
        m: str(_join(folder, given[m], f"{where}, {m}")) for m in modalities if m in given
    }
    if item.get("label"):
        item["label"] = str(_join(folder, item["label"], f"{where}, label"))
    return item


def _join(folder: Path, file: str, where: str) -> Path:
    try:
        path = Path(file).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{where}: {file!r:.120} begins with ~ and the name of nobody on this machine. "
            "Write the whole path, or ./ before a folder of that name."
        ) from error
    # normpath rather than resolve: a link into a shared store must keep the name it has here.
    path = Path(os.path.normpath(folder / path))
    check_path(path, where)
    return path


def _relative(item: Mapping[str, Any], folder: Path) -> Item:
    image = {
        name: _relative_path(file, folder) if file else None for name, file in item["image"].items()
    }
    label = {"label": _relative_path(item["label"], folder)} if item.get("label") else {}
    return {**item, "image": image, **label}


def _relative_path(file: str, folder: Path) -> str:
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:  # another drive
        return str(file)


def _repeated(items: Iterable[Item], section: str) -> list[str]:
    counts = Counter(item["case"] for item in items)
    return [
        f"case {case}: {count} times in '{section}'. Name each case once."
        for case, count in counts.items()
        if count > 1
    ]


def _unlabelled(items: Iterable[Item], section: str) -> list[str]:
    """Report the items without a label in a section where every case needs one."""
    return [
        f"case {item['case']}: no label, but it is in '{section}'. "
        "Add its 'label', or move the case to 'testing'."
        for item in items
        if not item.get("label")
    ]


def _usable(findings: Iterable[Finding]) -> list[Item]:
    """Return the items without their blank modalities; these and all that is odd are logged."""
    findings = list(findings)
    for line in (line for finding in findings for line in finding.warnings):
        logger.warning("%s", line)
    return [finding.usable for finding in findings]


def _check_choice(parameter: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(
            f"{parameter}: expected one of {list(choices)}, got {value!r}. Give one of these words."
        )


def _settle(path: Path, problems: Sequence[str], on_bad: str, any_left: bool) -> None:
    """Raise the problems, or log them if bad cases are left out and good ones remain."""
    if on_bad == "raise" or not any_left:
        _raise_all(path, problems)
    for problem in problems:
        logger.warning("left out: %s", problem)


def _raise_all(path: Path, problems: Sequence[str]) -> None:
    if problems:
        head = f"{path}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ValueError("\n  ".join([head, *problems]))
