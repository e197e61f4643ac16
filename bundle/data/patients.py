"""Whose scan a case is: sessions and timepoints of a patient belong together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

_READ_OFF = (
    " The patient was read off the case's name; if these are different patients, give the items "
    "the key 'patient', which overrides it."
)
SECTIONS = ("training", "validation", "testing")

_DATE = r"(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])(?:[-_T]?\d{4,6})?"
_START = r"(?P<patient>(?:[^/]+/)*?"
# Group `patient` is what stands before a session or a timepoint. The first five are data sets that
# number the scans of a patient; a plain number at the end means nothing in any other.
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_START}BraTS-[A-Za-z][A-Za-z-]*-\d{{4,5}})-\d{{3}}",  # BraTS-GLI-00005-001
        rf"{_START}sub-[A-Za-z0-9]+)(?:[_/][a-z]+-[A-Za-z0-9]+)+",  # BIDS: sub-01_ses-02
        rf"{_START}UPENN-GBM-\d{{5}})_\d\d",  # _11 the first scan, _21 the second
        rf"{_START}UCSF-PDGM-\d{{4}})_FU\d+d?",  # days after the first scan
        rf"{_START}RHUH-\d{{4}})[-_/]\d",  # before, early and late after surgery
    )
)
# Words of time, with or without a number: p01_baseline, p01_tp2, p01_visit-3. With a number, most
# need a digit in the patient's name: glioma_post_001 is the first patient of a cohort.
_TIMES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<patient>.+?)[-_./ ](?:ses(?:s|sion)?|tp|time_?point|visit)[-_ ]?\d{1,2}(?:-\d)?",
        r"(?P<patient>.*\d.*?)[-_./ ](?:ses(?:s|sion)?|tp|time(?:_?point)?|visit|week|wk|month|mo"
        r"|day|year|yr)[-_ ]?(?:\d{1,3}|[1-9]\d{3})(?:-\d)?",
        r"(?P<patient>.+?)[-_./ ](?:baseline|bl|follow[-_ ]?up|fu|recurrence|(?:pre|post|intra)"
        r"(?:[-_ ]?op)?)",
        r"(?P<patient>.*\d.*?)[-_./ ](?:baseline|bl|follow[-_ ]?up|fu|recurrence|(?:pre|post|intra)"
        r"(?:[-_ ]?op)?)[-_ ]?(?:\d{1,2}|[1-9]\d{2,3}|\d{1,4}d)",
        # These alone may be part of any name: a number before them tells that one ended there.
        rf"(?P<patient>.*\d.*?)[-_./ ]{_DATE}",
        r"(?P<patient>.*\d\d.*?)[-_./ ][vm]\d{1,2}",
    )
)
# What has patients, and is none: site1_v2, cohort2_visit_3.
_PLACE = re.compile(
    r"(?:.*[-_./ ])?(?:site|cohort|cent(?:er|re)|hosp(?:ital)?|clinic|study|trial|group|grp|arm"
    r"|batch|fold|ds|data(?:set)?|scanner|inst(?:itution)?)[-_ ]?\d*",
    re.IGNORECASE,
)
# How long a name is looked at: patterns are searched in every one.
_LONGEST = 128
_LONGEST_PATTERN = 200
_ESCAPED, _UNBOUNDED = re.compile(r"\\."), re.compile(r"[*+]|\{\d*,\d*\}")


def patient_of(item: Mapping[str, Any]) -> str:
    """Name the patient: the key `patient`, else the case without its session or timepoint."""
    named = item.get("patient")
    return patient_name(str(item["case"])) if named in (None, "") else str(named)


def patient_name(case: str) -> str:
    """Return a case's name without session and timepoint, by the names of known data sets.

    Example: 'sub-01_ses-02' gives 'sub-01', 'UPENN-GBM-00001_21' gives 'UPENN-GBM-00001', and
    'p01_2019-05-04' gives 'p01'; 'case_21' and 'glioma_post_001' stay.
    """
    while len(case) <= _LONGEST:
        found = next((m for p in _PATTERNS if (m := p.fullmatch(case))), None)
        if found is None:
            found = next((m for p in _TIMES if (m := p.fullmatch(case))), None)
            if found is None or _PLACE.fullmatch(found["patient"]):
                break
        case = found["patient"]
    return case


def is_place(name: str) -> bool:
    """True = the name is that of a site or a cohort, such as site1, and no patient's."""
    return bool(_PLACE.fullmatch(name[:_LONGEST]))


def largest_patient(items: Iterable[Mapping[str, Any]]) -> str | None:
    """Say how many patients there are, and which has most cases; None = each has one case."""
    counts = Counter(patient_of(item) for item in items)
    if not counts or max(counts.values()) < 2:
        return None
    patient, most = counts.most_common(1)[0]
    one = len(counts) == 1
    return f"{len(counts)} patient{'s' * (not one)}, the largest is {patient} with {most} cases"


def check_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a pattern whose group 1 is the patient.

    A search takes exponentially long where something repeated is repeated, so no group may repeat.

    Raises:
        ValueError: no regular expression, no group or several, too long, or a search without end.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(
            f"patient: expected a regular expression, got {pattern!r:.220} ({error}). "
            r"Such as '(.+)_\d+', where the group is the patient."
        ) from error
    plain = _ESCAPED.sub("", pattern)
    repeats = re.search(r"\)[*+{]", plain) or len(_UNBOUNDED.findall(plain)) > 3
    # Each of these doubles the ways to fit a name; `(?` begins a group, `+?` is a way to repeat.
    repeats = repeats or len(re.findall(r"(?<![(*+?}])\?|\|", plain)) > 4
    if compiled.groups != 1 or len(pattern) > _LONGEST_PATTERN or repeats:
        raise ValueError(
            f"patient: expected a regular expression of at most {_LONGEST_PATTERN} characters with "
            "one group, the patient, which is not repeated, at most three of *, + and {m,n}, and "
            "at most four of ? and |, got "
            rf"{pattern!r:.220}. Such as '(.+)_\d+'."
        )
    return compiled


def name_patients(items: Iterable[dict[str, Any]], pattern: str | None = None) -> list[str]:
    """Give each item the key `patient` where the patient's name is not the case's.

    Args:
        items: datalist items, which are changed.
        pattern: a regular expression for the start of a case's name, whose group 1 is the patient;
            None = as `patient_name`.

    Returns:
        A line if there are cases that the pattern does not fit; they keep the usual rule.

    Raises:
        ValueError: as `check_pattern`.
    """
    compiled = None if pattern is None else check_pattern(pattern)
    without: list[str] = []
    for item in items:
        case = str(item["case"])
        found = compiled.match(case[:_LONGEST]) if compiled else None
        if compiled and not (found and found[1]):
            without.append(case)
        patient = found[1] if found and found[1] else patient_of(item)
        if patient != case:
            item["patient"] = patient
    few = ", ".join(without[:3])
    return [
        f"patient pattern {pattern!r} fits not {len(without)} case{'s' * (len(without) > 1)}, such "
        f"as {few}. Their patients are named by the usual rule; correct the pattern."
    ][: len(without)]


def shared_patients(datalist: Mapping[str, Any]) -> list[str]:
    """Say which patients are in more than one section: one line each."""
    sections: dict[str, list[str]] = {}
    read_off: set[str] = set()
    for section in SECTIONS:
        items = datalist.get(section, [])
        # `scan` writes the key where the patient's name is not the case's.
        read_off |= {p for item in items if (p := patient_name(str(item["case"]))) != item["case"]}
        for patient in sorted({patient_of(item) for item in items}):
            sections.setdefault(patient, []).append(section)
    return [
        f"patient {patient} is in {' and '.join(names)}: scores would be too good. "
        f"Keep all scans of a patient in one section.{_READ_OFF * (patient in read_off)}"
        for patient, names in sections.items()
        if len(names) > 1
    ]
