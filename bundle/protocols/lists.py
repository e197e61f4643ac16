"""Reading the lists of a protocol. They are untrusted: plain text or CSV of bounded size."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bundle.data.case_names import check_case_name
from bundle.data.filenames import file_endings
from bundle.data.partition_csv import read_owners
from bundle.modalities import BRATS_MODALITIES, Subset, subset_name
from bundle.protocols.form import ListFile, Protocol

LARGEST_BYTES = 64 * 2**20
_GRADE = re.compile(r"[HL]G_")
_MASK = re.compile(r"\[ *(?:True|False)(?: *, *(?:True|False))* *\]")


@dataclass(frozen=True)
class Row:
    """What a list says of a case.

    Attributes:
        case: the release's identifier.
        kept: the modalities that it keeps, in vocabulary order.
        site: its site; None = the list names none.
        fold: its fold; None = the list has none.
    """

    case: str
    kept: Subset = BRATS_MODALITIES
    site: str | None = None
    fold: int | None = None


def read_list(path: Path, form: ListFile, protocol: Protocol) -> list[Row]:
    """Read one list.

    Raises:
        ValueError: larger than 64 MiB, not UTF-8, a column that is missing, a mask that is none or
            leaves a case nothing, an identifier that is no case's name, or one that is there twice.
    """
    if form.form == "sites":
        owners = read_owners(path, BRATS_MODALITIES)
        rows = [Row(case, site=site) for case, (site, _) in owners.items()]
    elif form.form == "names":
        lines = enumerate(read_text(path).splitlines(), start=1)
        rows = [Row(line.strip()) for _, line in lines if line.strip()]
    elif form.form == "masks":
        rows = list(_masked(path, form.case_column, protocol.order))
    else:
        rows = list(_folded(path, protocol.order))
    rows = [replace(row, case=plain_id(row.case, protocol)) for row in rows]
    for row in rows:
        check_case_name(row.case, str(path))
    _refuse_twice((row.case for row in rows), str(path))
    return rows


def plain_id(case: str, protocol: Protocol) -> str:
    """Return an identifier without HG_ and LG_, which RFNet's preprocessing puts before it."""
    return case if protocol.keep_grade else _GRADE.sub("", case, count=1)


def read_text(path: Path) -> str:
    """Read a file of at most 64 MiB in UTF-8, with a byte order mark or without.

    Raises:
        ValueError: no plain file, larger, or another encoding.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file. Expected a list of cases. Correct the path.")
    size = path.stat().st_size
    if size > LARGEST_BYTES:
        raise ValueError(f"{path}: expected a list of at most {LARGEST_BYTES} bytes, got {size}")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8, got {error}. Save it anew.") from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each line of a CSV file: 'path, line 2', and its values of these columns, stripped.

    Raises:
        ValueError: as `read_text`, a missing column, no CSV, or a line with too few values.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        head = [name.strip() for name in reader.fieldnames or []]
        missing = [name for name in columns if name not in head]
        if missing:
            raise ValueError(
                f"{path}: expected the columns {', '.join(columns)}, got {', '.join(head)!r:.200}. "
                "Give the list as the repository has it."
            )
        reader.fieldnames = head
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if any(row[name] is None for name in columns):
                raise ValueError(f"{where}: expected {len(head)} values, got fewer.")
            yield where, {name: row[name].strip() for name in columns}
    except csv.Error as error:
        raise ValueError(f"{path}: not a CSV file ({error})") from error


def _masked(path: Path, case_column: str, order: Sequence[str]) -> Iterator[Row]:
    for where, row in read_table(path, (case_column, "mask")):
        if not order:
            yield Row(row[case_column])
            continue
        if not _MASK.fullmatch(row["mask"]):
            raise ValueError(
                f"{where}: expected a mask such as [True, False, False, True], got "
                f"{row['mask']!r:.80}"
            )
        marks = [word == "True" for word in re.findall(r"True|False", row["mask"])]
        yield Row(row[case_column], _kept(marks, order, f"{where}: case {row[case_column]}"))


def _kept(marks: Sequence[bool], order: Sequence[str], where: str) -> Subset:
    """Turn a mask into names; True = the case keeps the modality that the order names there."""
    if len(marks) != len(order):
        raise ValueError(
            f"{where}: expected a mask of {len(order)} places, {', '.join(order)}, got {len(marks)}"
        )
    kept = {name for name, mark in zip(order, marks, strict=True) if mark}
    if not kept:
        raise ValueError(
            f"{where}: its mask leaves it nothing. Take the case out of the list, or correct the "
            "mask."
        )
    return tuple(name for name in BRATS_MODALITIES if name in kept)


def _folded(path: Path, order: Sequence[str]) -> Iterator[Row]:
    """Yield each case of a table of scores once, with its fold."""
    folds: dict[str, int] = {}
    for where, row in read_scores(path, order):
        fold = row["Fold"]
        if not re.fullmatch(r"\d{1,2}", fold, re.ASCII):
            raise ValueError(f"{where}: expected a whole number as Fold, got {fold!r:.40}")
        if folds.setdefault(row["Case"], int(fold)) != int(fold):
            raise ValueError(
                f"{where}: case {row['Case']} is in fold {folds[row['Case']]} and in fold {fold}. "
                "Expected one fold for each case."
            )
    yield from (Row(case, fold=fold) for case, fold in folds.items())


def read_scores(path: Path, order: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of ReLiSS's table, whose masks must say the same as their names.

    Raises:
        ValueError: as `read_table`, or a row whose mask and names differ.
    """
    endings = file_endings(BRATS_MODALITIES)
    columns = ("Fold", "Availability_Mask", "Available_Modalities", "Case")
    for where, row in read_table(path, columns):
        named = {endings.get(w.strip().lower(), w) for w in row["Available_Modalities"].split("+")}
        marks = [digit == "1" for digit in row["Availability_Mask"]]
        if set(_kept(marks, order, where)) != named:
            raise ValueError(
                f"{where}: the mask {row['Availability_Mask']} is "
                f"{subset_name(_kept(marks, order, where), BRATS_MODALITIES)} in the order "
                f"{', '.join(order)}, but the row names {row['Available_Modalities']}"
            )
        yield where, row


def _refuse_twice(cases: Iterable[str], where: str) -> None:
    twice = [case for case, count in Counter(cases).items() if count > 1]
    if twice:
        raise ValueError(
            f"{where}: {len(twice)} case{'s' * (len(twice) > 1)} named twice, first {twice[0]}. "
            "Expected each case once."
        )
