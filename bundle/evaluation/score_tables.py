"""Reading tables of scores: Dice by case, subset and region.

A table is either a scores.csv of this bundle, or ReLiSS's per_case_metrics.csv, which has a row for
each case and mask, and names the modalities that were shown. Both give an empty region that was
predicted empty a Dice of 1, and a region that is empty on one side alone a Dice of 0. Tables are
untrusted: CSV of at most 64 MiB.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bundle.evaluation.metrics import Score
from bundle.modalities import FILE_SUFFIXES, parse_subset, subset_name

LARGEST_BYTES = 64 * 2**20
_OWN_COLUMNS = ("case", "subset", "region", "dice")
_RELISS_COLUMNS = ("Availability_Mask", "Available_Modalities", "Case")
# What stands where in ReLiSS's masks; its network's channels have another order.
_RELISS_ORDER = ("flair", "t1ce", "t1", "t2")


class Place(NamedTuple):
    """Which score of a table: the case, what the network was given, and the region."""

    case: str
    subset: str
    region: str


Dice = dict[Place, float]


def read_dice(path: str | Path, modalities: Sequence[str]) -> Dice:
    """Read the Dice of a table of either form; an empty cell or NaN is left out.

    Raises:
        ValueError: no file, larger than 64 MiB, not UTF-8, other columns, a Dice outside 0 to 1, a
            row twice, an unknown modality, or a mask that says something else than its names.
    """
    head, rows = _read_rows(Path(path))
    if set(_OWN_COLUMNS) <= set(head):
        found = _own_rows(rows, modalities)
    elif set(_RELISS_COLUMNS) <= set(head):
        found = _reliss_rows(head, rows, modalities)
    else:
        raise ValueError(
            f"{path}: expected the columns {', '.join(_OWN_COLUMNS)}, or ReLiSS's "
            f"{', '.join(_RELISS_COLUMNS)} and WT_Dice, got {', '.join(head)!r:.200}"
        )
    dice: Dice = {}
    for where, place, text in found:
        if place in dice:
            raise ValueError(f"{where}: {', '.join(place)} is there twice. Expected one row.")
        dice[place] = _dice(text, where)
    return {place: value for place, value in dice.items() if not math.isnan(value)}


def _read_rows(path: Path) -> tuple[list[str], Iterator[tuple[str, dict[str, str]]]]:
    """Return the head, and each line's place and values."""
    if not path.is_file():
        raise ValueError(f"{path} is no file. Expected a table of scores. Correct the path.")
    if (size := path.stat().st_size) > LARGEST_BYTES:
        raise ValueError(f"{path}: expected a table of at most {LARGEST_BYTES} bytes, got {size}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8, got {error}. Save it anew.") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))

    def rows() -> Iterator[tuple[str, dict[str, str]]]:
        try:
            for row in reader:
                yield f"{path}, line {reader.line_num}", {k: v or "" for k, v in row.items() if k}
        except csv.Error as error:
            raise ValueError(f"{path}: not a CSV file ({error})") from error

    return list(reader.fieldnames or []), rows()


def _own_rows(
    rows: Iterable[tuple[str, dict[str, str]]], modalities: Sequence[str]
) -> Iterator[tuple[str, Place, str]]:
    for where, row in rows:
        try:
            subset = subset_name(parse_subset(row["subset"], modalities), modalities)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        yield where, Place(row["case"], subset, row["region"]), row["dice"]


def _reliss_rows(
    head: Sequence[str], rows: Iterable[tuple[str, dict[str, str]]], modalities: Sequence[str]
) -> Iterator[tuple[str, Place, str]]:
    spelled = {ending: name for name, endings in FILE_SUFFIXES.items() for ending in endings}
    regions = [name.removesuffix("_Dice") for name in head if name.endswith("_Dice")]
    for where, row in rows:
        words = row["Available_Modalities"].split("+")
        named = {spelled.get(word.strip().lower(), word) for word in words}
        mask = row["Availability_Mask"]
        shown = {name for name, mark in zip(_RELISS_ORDER, mask, strict=False) if mark == "1"}
        if not re.fullmatch("[01]{4}", mask, re.ASCII) or shown != named:
            raise ValueError(
                f"{where}: expected a mask of {', '.join(_RELISS_ORDER)} that says "
                f"{row['Available_Modalities']!r:.60}, got {mask!r:.20}"
            )
        unknown = named - set(modalities)
        if unknown:
            raise ValueError(f"{where}: unknown modality {', '.join(sorted(unknown))}")
        for region in regions:
            place = Place(row["Case"], subset_name(named, modalities), region)
            yield where, place, row[f"{region}_Dice"]


def _dice(text: str, where: str) -> float:
    try:
        value = float(text) if text.strip() else math.nan
    except ValueError:
        value = math.inf
    if not (math.isnan(value) or 0 <= value <= 1):
        raise ValueError(f"{where}: expected a Dice from 0 to 1, got {text!r:.40}")
    return value


def dice_of(rows: Iterable[Score]) -> Dice:
    """Return the Dice of score rows."""
    return {Place(row.case, row.subset, row.region): row.dice for row in rows}
