"""One's own scores beside those of another table on the same cases, case by case.

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
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events

from bundle.atomic import write_text_atomically
from bundle.evaluation.bootstrap import bootstrap_interval
from bundle.evaluation.metrics import Score, SubsetScores
from bundle.evaluation.tables import markdown
from bundle.modalities import FILE_SUFFIXES, parse_subset, subset_name

LARGEST_BYTES = 64 * 2**20
REFERENCE_FILE = "reference.md"
_OWN_COLUMNS = ("case", "subset", "region", "dice")
_RELISS_COLUMNS = ("Availability_Mask", "Available_Modalities", "Case")
# What stands where in ReLiSS's masks; its network's channels have another order.
_RELISS_ORDER = ("flair", "t1ce", "t1", "t2")
_MEAN = "mean"


class Place(NamedTuple):
    """Which score of a table: the case, what the network was given, and the region."""

    case: str
    subset: str
    region: str


Dice = dict[Place, float]


@dataclass(frozen=True)
class Paired:
    """The paired difference of a region, for the subsets of a size.

    Attributes:
        region: its name; 'mean' = over the regions.
        scans: how many scans the network was given; 0 = any number.
        own, reference: mean Dice over cases, 0 to 1.
        low, high: ends of the 95 % interval of own - reference, cases resampled.
        cases: how many.
    """

    region: str
    scans: int
    own: float
    reference: float
    low: float
    high: float
    cases: int


def compare(
    scores: str | Path, reference: str | Path, modalities: Sequence[str], output: str | None = None
) -> str:
    """Pair two tables, and write what their difference is.

    Args:
        scores: a scores.csv of this bundle.
        reference: another table, see above.
        modalities: the vocabulary.
        output: a Markdown file that gets the text; None = none.

    Returns:
        The text.

    Raises:
        ValueError: as `read_dice`, `check_cases` and `pair`.
    """
    own, theirs = read_dice(scores, modalities), read_dice(reference, modalities)
    text = comparison(own, theirs, modalities, Path(reference).name)
    if output is not None:
        write_text_atomically(output, text)
    return text


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


def check_cases(cases: Iterable[str], reference: Mapping[Place, float], name: str) -> None:
    """Refuse cases that the reference has no scores of.

    Args:
        cases: one's own.
        reference: may have more cases than these.
        name: of the reference, for the message.

    Raises:
        ValueError: saying how many and which first.
    """
    cases, theirs = set(cases), {place.case for place in reference}
    unknown = sorted(cases - theirs)
    if unknown:
        raise ValueError(
            f"{name}: expected scores of the same cases, got none of {len(unknown)} of "
            f"{len(cases)} cases, first {unknown[0]}. The reference table has {len(theirs)} cases, "
            f"first {min(theirs, default='none')}. Compare a table of the same cases."
        )


def comparison(own: Dice, reference: Dice, modalities: Sequence[str], name: str) -> str:
    """Write the paired differences by region and number of scans, in points of Dice.

    Args:
        own: one's own Dice.
        reference: that of the same cases, and perhaps of more.
        modalities: the vocabulary.
        name: of the reference.

    Raises:
        ValueError: as `check_cases` and `pair`.
    """
    cases = {place.case for place in own}
    check_cases(cases, reference, name)
    both = own.keys() & reference.keys()
    rows = [
        (
            row.region,
            str(row.scans or f"1 to {len(modalities)}"),
            f"{100 * row.own:.1f}",
            f"{100 * row.reference:.1f}",
            f"{100 * (row.own - row.reference):+.1f}",
            f"{100 * row.low:+.1f} to {100 * row.high:+.1f}",
            str(row.cases),
        )
        for row in pair(own, reference)
    ]
    head = ("region", "scans", "Dice %", "reference", "difference", "95 % interval", "cases")
    theirs = len({place.case for place in reference})
    lines = [
        f"Paired with {name}: {len(cases)} of its {theirs} cases, {len(both)} scores.",
        f"Scores that only one of them has: {len(own) - len(both)} here, "
        f"{sum(place.case in cases for place in reference) - len(both)} there.",
        "The interval resamples cases, of one training each; another training would differ too.",
        "HD95 is not compared: tables differ in its rule for empty masks.",
    ]
    return f"{markdown(head, rows, left=1)}\n" + "\n".join(lines) + "\n"


def pair(own: Dice, reference: Dice) -> list[Paired]:
    """Compute the paired differences: by region and number of scans, then over all of them.

    A case's difference is the mean over the subsets of that size that both tables have of it. Mean
    over the regions are those subsets of which both have every region.

    Raises:
        ValueError: no score in common.
    """
    both = sorted(own.keys() & reference.keys())
    if not both:
        raise ValueError(
            "the tables have no score in common: no subset or no region is in both. Compare tables "
            "of the same modalities and regions."
        )
    regions = list(dict.fromkeys(place.region for place in own if place in reference))
    values: dict[tuple[str, int], dict[str, list[tuple[float, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    whole: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for place in both:
        pair_of_dice = own[place], reference[place]
        whole[place.case, place.subset].append(pair_of_dice)
        for scans in (place.subset.count("+") + 1, 0):
            values[place.region, scans][place.case].append(pair_of_dice)
    for (case, subset), found in whole.items():
        if len(found) == len(regions) > 1:
            mean = tuple(np.mean(found, axis=0))
            for scans in (subset.count("+") + 1, 0):
                values[_MEAN, scans][case].append(mean)
    sizes = [*sorted({scans for _, scans in values} - {0}), 0]
    keys = [(region, scans) for region in (*regions, _MEAN) for scans in sizes]
    return [_paired(*key, values[key]) for key in keys if key in values]


def _paired(region: str, scans: int, of_case: Mapping[str, list[tuple[float, float]]]) -> Paired:
    means = np.array([np.mean(found, axis=0) for found in of_case.values()])
    low, high = bootstrap_interval((means[:, 0] - means[:, 1])[None])
    own, reference = means.mean(0).tolist()
    return Paired(region, scans, own, reference, low, high, len(means))


class ReferenceHandler:
    """Compares an evaluation with a reference table when it has ended, into reference.md.

    The table is read and its cases are checked at once, before anything is evaluated. In a
    distributed evaluation rank 0 writes.

    Args:
        reference: the table.
        cases: the cases that will be evaluated.
        output_dir: gets reference.md.
        modalities: the vocabulary.
        scores: the metric that scored the evaluation, attached to the same engine.

    Raises:
        ValueError: as `read_dice` and `check_cases`.
    """

    def __init__(
        self,
        reference: str | Path,
        cases: Iterable[str],
        output_dir: str | Path,
        modalities: Sequence[str],
        scores: SubsetScores,
    ) -> None:
        self.name = Path(reference).name
        self.dice = read_dice(reference, modalities)
        check_cases(cases, self.dice, self.name)
        self.output_dir = Path(output_dir)
        self.modalities = tuple(modalities)
        self.scores = scores

    def attach(self, engine: Engine) -> None:
        """Write when the run has completed."""
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _write(self) -> None:
        if idist.get_rank() == 0:
            own = dice_of(self.scores.rows)
            text = comparison(own, self.dice, self.modalities, self.name)
            write_text_atomically(self.output_dir / REFERENCE_FILE, text)
            print(text)


def dice_of(rows: Iterable[Score]) -> Dice:
    """Return the Dice of score rows."""
    return {Place(row.case, row.subset, row.region): row.dice for row in rows}
