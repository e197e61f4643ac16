"""Reading the table of a federation: which site owns which subject, and what it scans."""

from __future__ import annotations

import codecs
import csv as csv_module
import difflib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bundle.data.filenames import file_endings
from bundle.data.site_names import check_apart, check_site
from bundle.modalities import Subset, parse_subset

# case or patient -> the site that owns it and what that site has scanned.
Owners = dict[str, tuple[str, Subset]]

COLUMNS = ("Partition_ID", "Subject_ID", "Modalities")
_NOTES = ("comment", "comments", "note", "notes")
# pandas gives its index no name, and calls such a column so where it reads it again.
_UNNAMED = re.compile(r"(Unnamed: \d+)?", re.ASCII)
_LARGEST_BYTES = 64 * 2**20
# UTF-32's mark begins with that of UTF-16, so it comes first.
_MARKS = (
    *((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32")),
    *((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16")),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_owners(csv: str | Path, modalities: Sequence[str]) -> Owners:
    """Read a partition file of the FeTS form; a number n as `Partition_ID` becomes 'site-n'.

    Columns `Partition_ID`, `Subject_ID` and, optionally, `Modalities`, in any order and in upper or
    lower case, between commas, semicolons or tabs. UTF-8, or what a byte order mark says. The
    modalities are joined by '+', each spelled as a file's name may end: T1+t1c+FLAIR.

    Raises:
        ValueError: no plain file, another encoding, a column that is missing, unknown or there
            twice, a subject with two sites, a site spelled in two ways or one that NVFlare refuses,
            or an unknown modality.
        FileNotFoundError: there is no such file.
    """
    rows, endings = _read_rows(Path(csv)), file_endings(modalities)
    owners: Owners = {}
    spelled: dict[str, tuple[str, int]] = {}
    for line, (number, subject, named) in rows:
        where = f"{csv}, line {line}"
        if not number or not subject:
            raise ValueError(
                f"{where}: expected values for Partition_ID and Subject_ID, got {number!r} and "
                f"{subject!r}. Complete the line, or take it away."
            )
        site = _site(number, where)
        _check_spelling(spelled, number, site, line, csv)
        subset = _subset(named, endings, modalities, where) if named else tuple(modalities)
        if owners.setdefault(subject, (site, subset)) != (site, subset):
            raise ValueError(
                f"{where}: subject {subject} is already at {owners[subject][0]}, with "
                f"{'+'.join(owners[subject][1])}. Name each subject for one site."
            )
    if not owners:
        raise ValueError(
            f"{csv}: expected lines of Partition_ID,Subject_ID, got none. Give a file with both."
        )
    check_apart({site: None for site, _ in owners.values()}, str(csv))
    return owners


def _subset(
    named: str, endings: Mapping[str, str], modalities: Sequence[str], where: str
) -> Subset:
    """Read 'T1 + t1c' as the names of the vocabulary; no known spelling stays, and fails."""
    known = {_letters_of(ending): name for ending, name in endings.items()}
    words = [word.strip() for word in named.split("+")]
    # First as it stands: two names may differ in a separator alone.
    read = [endings.get(word.lower()) or known.get(_letters_of(word)) for word in words]
    names = [name if name in modalities else word for name, word in zip(read, words, strict=True)]
    try:
        return parse_subset("+".join(names), modalities)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _letters_of(text: str) -> str:
    """Return the letters and digits of a word, in lower case."""
    return "".join(filter(str.isalnum, text)).lower()


def _site(number: str, where: str) -> str:
    is_number = bool(re.fullmatch(r"\d+", number, re.ASCII))
    try:
        return check_site(f"site-{number}" if is_number else number)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _check_spelling(
    spelled: dict[str, tuple[str, int]], number: str, site: str, line: int, csv: str | Path
) -> None:
    """Refuse 01 beside 1, and site-1 beside 1: one site or two?"""
    same = re.sub(r"(?<![0-9])0+(?=[0-9])", "", site)
    other, first = spelled.setdefault(same, (number, line))
    if other != number:
        raise ValueError(
            f"{csv}: Partition_ID {other!r} in line {first} and {number!r} in line {line} may be "
            "one site or two. Spell one site alike, and give two sites other names."
        )


def _read_rows(path: Path) -> list[tuple[int, tuple[str, str, str]]]:
    """Return line number, and the values of the known columns, '' where there is none."""
    text = _read_text(path)
    skipped = 0
    # Excel may say its separator in a line of its own.
    if hint := re.match(r"\"?sep=(.)\"?\r?\n", text):
        text, skipped = text[hint.end() :], 1
    separator = hint[1] if hint else _separator(text)
    reader = csv_module.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True
    )
    try:
        lines = [(reader.line_num + skipped, [c.strip() for c in row]) for row in reader]
    except csv_module.Error as error:
        raise ValueError(f"{path}: not a CSV file ({error})") from error
    lines = [(number, row) for number, row in lines if any(row)]
    if not lines:
        return []
    (_, header), *rows = lines
    places = _places(header, rows, path)
    found = []
    for number, row in rows:
        if len(row) > len(header) and any(row[len(header) :]):
            raise ValueError(
                f"{path}, line {number}: expected {len(header)} values, got {len(row)}. Put a "
                "value that holds the separator between quotes."
            )
        values = [row[at] if at is not None and at < len(row) else "" for at in places]
        found.append((number, (values[0], values[1], values[2])))
    return found


def _read_text(path: Path) -> str:
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist. Expected a table with the columns Partition_ID and "
            "Subject_ID. Correct the path."
        )
    if not path.is_file():
        raise ValueError(
            f"{path} is no file. Expected a table with the columns Partition_ID and Subject_ID. "
            "Give the file itself, such as sites.csv, not its folder."
        )
    size = path.stat().st_size
    if size > _LARGEST_BYTES:
        raise ValueError(f"{path}: expected a table of at most {_LARGEST_BYTES} bytes, got {size}")
    content = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected {encoding}, got {error}. Save it as UTF-8.") from error
    if "\0" in text:
        raise ValueError(
            f"{path}: expected text in UTF-8, got bytes of 0, as in UTF-16 without its mark. "
            "Save it as UTF-8."
        )
    return text


def _separator(text: str) -> str:
    """Return what stands between the first line's columns: the one that finds most known names."""
    first = text.lstrip("\r\n").split("\n", 1)[0]
    known = {name.lower() for name in COLUMNS}
    return max(",;\t", key=lambda mark: len(known & _words(first.split(mark))))


def _words(cells: Iterable[str]) -> set[str]:
    return {cell.strip().strip('"').strip().lower() for cell in cells}


def _is_index(name: str, cells: Sequence[Sequence[str]]) -> bool:
    """True = a column without a name that counts the lines from 0, as pandas writes by itself."""
    counted = [[str(number)] for number in range(len(cells))]
    return bool(_UNNAMED.fullmatch(name)) and list(map(list, cells)) == counted


def _places(
    header: Sequence[str], rows: Sequence[tuple[int, Sequence[str]]], path: Path
) -> list[int | None]:
    """Return where each known column stands; None = there is no such column.

    Raises:
        ValueError: a column that is unknown, there twice, or missing.
    """
    lower = [name.lower() for name in header]
    known = [name.lower() for name in COLUMNS]
    for at, name in enumerate(header):
        empty = not name and not any(row[at] for _, row in rows if at < len(row))
        if lower[at] in known and lower.count(lower[at]) == 1:
            continue
        if empty or lower[at] in _NOTES or _is_index(name, [row[at : at + 1] for _, row in rows]):
            continue
        if _UNNAMED.fullmatch(name):
            raise ValueError(
                f"{path}: column {at + 1} has no name ({name!r}), and is no count of the lines "
                "0, 1, 2, ... as pandas writes it. Write the table with index=False, name the "
                "column, or take it away."
            )
        if lower[at] in known:
            raise ValueError(f"{path}: the column {name!r} is there twice. Take one away.")
        near = difflib.get_close_matches(lower[at], known, 1)
        meant = f"Did you mean {COLUMNS[known.index(near[0])]!r}? " if near else ""
        raise ValueError(
            f"{path}: unknown column {name!r}. {meant}Expected Partition_ID and Subject_ID, "
            f"optionally Modalities, and {' or '.join(_NOTES[::2])}, which is not read. Rename "
            "the column, or take it away."
        )
    missing = [name for name in COLUMNS[:2] if name.lower() not in lower]
    if missing:
        raise ValueError(
            f"{path}: expected the columns Partition_ID and Subject_ID, got {list(header)}. "
            f"Add {' and '.join(missing)}."
        )
    return [lower.index(name) if name in lower else None for name in known]
