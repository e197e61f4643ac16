"""What the name of a NIfTI file says: the case, and a modality or a label.

A name is `<case><separator><ending>.nii` or `.nii.gz`, separators `_`, `-`, `.`, `+` and blank, in
upper or lower case. Words of preprocessing before or after the ending (`_reg`, `_brain`, `_1mm`),
the number of a browser's copy (` (1)`) and BIDS entities other than subject and session are read
over. A name that tells two modalities tells none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bundle.data.telling_words import (
    SEPARATOR,
    T1,
    T1CE,
    T2,
    TWO,
    UNSURE,
    is_bids,
    is_tumour_word,
    told_by_entities,
    told_by_words,
)
from bundle.modalities import FILE_SUFFIXES, LABEL_SUFFIXES, PREDICTION_SUFFIXES, check_known

# The roles of files that are no scan of the vocabulary: "other" = known, and to be left aside.
LABEL, PREDICTION, OTHER = "label", "prediction", "other"

Suffixes = Mapping[str, Sequence[str]] | str | None

_EXTENSION = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
# A browser keeps `p01_t1.nii.gz` twice as `p01_t1.nii (1).gz`, which no reader opens.
_VOLUME = re.compile(r"\.nii(\s*\(\d+\))?(\.gz)?(\s*\(\d+\))?$", re.IGNORECASE)
_SEPARATOR = SEPARATOR
_COPY = re.compile(r"(\s*\(\d{1,3}\)|[\s_-]+(copy|kopie)(\s*\d{1,3})?)+$", re.IGNORECASE)
# What was done to a scan, which changes nothing about which scan it is.
_DONE = (
    r"(co)?reg(istered)?|aligned|rigid|affine|warped|(hd_?)?bet2?|synthstrip|brain"
    r"|brain_?extracted|(skull_?)?strip(ped)?|n[34](itk|bfc?)|bias|bias_?(field_?)?corr(ected)?"
    r"|bfc|corr(ected)?|denoised|norm(ali[sz]ed)?|z_?score|mni(152)?|sri(24)?|resampled|cropped"
    r"|iso(tropic)?|masked|defaced?|preproc(essed)?|(\d+x)*\d+([.p]\d+)?mm"
)
# Before the ending a bare N3 or N4 may be the number of a patient.
_WORD = re.compile(rf"({_SEPARATOR}+(to|in|on))?{_SEPARATOR}+({_DONE})$", re.IGNORECASE)
_WORD_AFTER = re.compile(rf"({_SEPARATOR}+(to|in|on))?{_SEPARATOR}+({_DONE}|n[34])$", re.IGNORECASE)
# `flair_to_t1` is a FLAIR.
_TARGET = re.compile(rf"{_SEPARATOR}+(to|in|on|onto)$", re.IGNORECASE)
# A label of these is none of a tumour.
_ANATOMY = re.compile(rf"(^|{_SEPARATOR})(brain|bet|skull|head|tissue|parenchyma)$", re.IGNORECASE)
# BIDS entities that tell how a scan was made, not whose it is; `ce` is the contrast agent.
_CONTEXT = re.compile(
    r"(acq|ce|chunk|den|desc|dir|echo|flip|inv|mod|mt|part|proc|rec|res|run|space|trc)-[^_]+", re.I
)
_PLAIN = {
    ending.replace("_", ""): kind for kind in (T1, T1CE, T2) for ending in FILE_SUFFIXES[kind]
}
# Initials of a patient, as likely as the agent (Kontrastmittel), where no name stands before.
_INITIALS = {"kmt1", "kmt1w"}
AGENT_OR_TIME = "a word before t1 may be of the contrast agent, or of another time"
_AGENT_T1 = re.compile(rf"(?P<before>.+?){_SEPARATOR}+t1w?", re.IGNORECASE)
_DESC = re.compile(r"_desc-([^_]+)", re.IGNORECASE)
_LONGEST = 255


@dataclass(frozen=True)
class Name:
    """What one file name says.

    Attributes:
        path: of the file.
        prefix: what names the case; '' = the file's name is an ending alone.
        role: a modality, 'label', 'prediction' or 'other'; None = not understood.
        why: if not understood, the reason.
        spelled: the prefix as it stands, with the words that `prefix` has no more.
        done: True = words of preprocessing stand before or after the ending.
        otherwise: the role that it has where another scan shares the prefix `other_spelled`, see
            `bundle.data.doubtful_names`; None = there is no doubt.
        other_spelled: see there.
    """

    path: Path
    prefix: str
    role: str | None
    why: str = ""
    spelled: str = ""
    done: bool = False
    otherwise: str | None = None
    other_spelled: str = ""


def file_endings(
    modalities: Sequence[str],
    suffixes: Suffixes = None,
    label_suffixes: Sequence[str] = LABEL_SUFFIXES,
) -> dict[str, str]:
    """Map each understood ending, in lower case, to its modality, 'label', 'prediction' or 'other'.

    Args:
        modalities: the vocabulary. Who calls T1ce by another of its known names, such as t1c, gets
            all its known endings.
        suffixes: further endings, see `read_suffixes`; the known ones stay. `label` and `other` may
            have some too: files with such an ending are labels, or are left aside.
        label_suffixes: endings of label files.

    Raises:
        ValueError: as `read_suffixes`, or a name that is no modality.
    """
    endings = dict.fromkeys(label_suffixes, LABEL) | dict.fromkeys(PREDICTION_SUFFIXES, PREDICTION)
    for known, names in FILE_SUFFIXES.items():
        own = [name for name in modalities if name.lower() in (known, *names)]
        endings |= dict.fromkeys(names, own[0] if len(own) == 1 else OTHER)
    endings |= {_plain_ending(name): name for name in modalities}
    given = read_suffixes(suffixes)
    check_known(given, (*modalities, LABEL, OTHER), "suffixes")
    own = {ending: name for name, found in given.items() for ending in found}
    # Separators mean nothing: a given t1c is said of t1_c, too.
    plain = {ending.replace("_", ""): name for ending, name in own.items()}
    return {e: plain.get(e.replace("_", ""), role) for e, role in endings.items()} | own


def read_suffixes(suffixes: Suffixes) -> dict[str, tuple[str, ...]]:
    """Read further endings: {'flair': ['fla', 'fla_bet']}, or the text 'flair=fla,fla_bet;t1=x'.

    Raises:
        ValueError: neither of both forms, an ending that cannot end a name, or one for two names.
    """
    if isinstance(suffixes, str):
        pairs = [part.partition("=") for part in suffixes.split(";") if part.strip()]
        if not all(name.strip() and equals for name, equals, _ in pairs):
            raise ValueError(_no_suffixes(suffixes))
        suffixes = {name.strip(): endings for name, _, endings in pairs}
    if not isinstance(suffixes or {}, Mapping):
        raise ValueError(_no_suffixes(suffixes))
    found: dict[str, tuple[str, ...]] = {}
    for name, endings in (suffixes or {}).items():
        words = endings.split(",") if isinstance(endings, str) else endings
        if not isinstance(words, Iterable) or not all(isinstance(word, str) for word in words):
            raise ValueError(_no_suffixes(suffixes))
        found[name] = tuple(_plain_ending(word) for word in words)
        if not found[name] or not all(map(_can_end, found[name])):
            raise ValueError(_no_suffixes(suffixes))
    owners: dict[str, str] = {}
    for name, ending in ((name, ending) for name, words in found.items() for ending in words):
        if owners.setdefault(ending, name) != name:
            raise ValueError(
                f"suffixes: {ending!r} is given for {owners[ending]} and for {name}. "
                "Give each ending for one of them."
            )
    return found


def split_name(path: str | Path, endings: Mapping[str, str]) -> tuple[str, str | None]:
    """Split a file name into the case's prefix and its role, see `Name`.

    Example: with the BraTS endings 'BraTS-GLI-00000-000-t1c.nii.gz' gives ('BraTS-GLI-00000-000',
    't1ce'), 't1.nii' gives ('', 't1'), and 'sub-01_run-2_T2w.nii' gives ('sub-01', 't2').
    """
    name = read_name(path, endings)
    return name.prefix, name.role


def read_name(path: str | Path, endings: Mapping[str, str]) -> Name:
    """Read a file name.

    Args:
        path: of a file, which is not looked at.
        endings: from `file_endings`.
    """
    path = Path(path)
    stem = _EXTENSION.sub("", path.name)
    if _VOLUME.search(path.name) and not _EXTENSION.search(path.name):
        return Name(path, stem, None, "a number after .nii, which no reader takes")
    plain = _COPY.sub("", stem)
    spelled, ending = _match(plain, endings) if len(plain) <= _LONGEST else (plain, None)
    if ending is None:
        return Name(path, stem, None, "no modality in the name")
    roles = _compile(tuple(endings.items()), False)[1]
    role, kind = roles[ending], _PLAIN.get(ending)
    if not spelled and ending in _INITIALS:
        why = "km is the contrast agent, or initials"
        before = re.split(_SEPARATOR, plain)[0]
        return Name(path, stem, None, why, otherwise=endings.get(T1, OTHER), other_spelled=before)
    done = (spelled, ending) != _find_ending(plain, endings) or bool(_WORD.search(spelled))
    before, second = _find_ending(case_key(spelled), endings)
    if second is None and kind is not None and role == endings.get(kind):
        told = kind
        # p01_pre_t1ce is the T1ce of p01_pre, and p01_pre_gd_t1 a T1.
        if not is_bids(plain) and (kind != T1CE or ending.endswith(("t1", "t1w"))):
            told, spelled = told_by_words(spelled, kind)
        elif is_bids(plain) and kind != T1CE:
            told = told_by_entities(plain, kind)
        if told == TWO:
            return Name(path, stem, None, f"tells two modalities, {kind} and another")
        if told == UNSURE:
            return _unsure(path, stem, spelled, role)
        role = role if told == kind else endings.get(told, OTHER)
    prefix = case_key(spelled)
    if second is not None and role in (LABEL, roles[second]):
        # The label that was drawn on T1ce may be called p01_t1ce_seg.
        role = PREDICTION if roles[second] == PREDICTION else role
        prefix = spelled = case_key(before)
    elif second is not None and role != PREDICTION:
        return Name(path, stem, None, f"two in the name, {roles[second]} and {role}")
    if role == LABEL and (why := _other_label(plain, spelled)):
        return Name(path, stem, None, why)
    # KM_t1 beside KM_flair is the T1 of KM, initials, and no T1ce.
    initials = _AGENT_T1.fullmatch(plain) if kind == T1CE and not is_bids(plain) else None
    return Name(
        path,
        _compose(prefix),
        role,
        spelled=_compose(spelled),
        done=done,
        otherwise=endings.get(T1, OTHER) if initials else None,
        other_spelled=_compose(initials["before"]) if initials else "",
    )


def fold(text: str) -> str:
    """Return a text by which names are compared: composed letters, upper and lower case alike."""
    return _compose(unicodedata.normalize("NFC", text).casefold())


def bare_key(prefix: str) -> str:
    """Return a case's name as `case_key` does, and without a bare N3 or N4."""
    prefix = case_key(prefix)
    while found := _WORD_AFTER.search(prefix):
        prefix = prefix[: found.start()]
    return prefix


def ending_role(text: str, endings: Mapping[str, str]) -> str | None:
    """Return what a text means that is an ending and nothing else, such as 'T1w'; None = nothing.

    Args:
        text: at most 255 characters are looked at.
        endings: from `file_endings`.
    """
    before, ending = _find_ending(text.strip()[:_LONGEST], endings)
    return None if before or ending is None else _compile(tuple(endings.items()), False)[1][ending]


def case_key(prefix: str) -> str:
    """Return a case's name without words of preprocessing and without BIDS's contextual entities.

    Example: 'sub-01_acq-3d' gives 'sub-01', and 'p01_mni_brain' gives 'p01'.
    """
    first, *entities = prefix.split("_")
    if first.lower().startswith("sub-"):
        prefix = "_".join([first, *(e for e in entities if not _CONTEXT.fullmatch(e))])
    while found := _WORD.search(prefix):
        prefix = prefix[: found.start()]
    return prefix


def _compose(text: str) -> str:
    """Write letters with their accents as one character each, as most systems do."""
    return unicodedata.normalize("NFC", text)


def _unsure(path: Path, stem: str, spelled: str, role: str) -> Name:
    # In BIDS a session of its own tells the time.
    role = None if is_bids(stem) else role
    return Name(path, stem, None, AGENT_OR_TIME, otherwise=role, other_spelled=_compose(spelled))


def _other_label(stem: str, spelled: str) -> str:
    """Say what else than a tumour a label is of; '' = nothing."""
    if _ANATOMY.search(spelled):
        return "a label of the anatomy by its name"
    descriptions = _DESC.findall(stem) if is_bids(stem) else []
    strange = [word for word in descriptions if not is_tumour_word(word)]
    return f"a label of {strange[0]}, by its name" if strange else ""


def is_volume(file: str) -> bool:
    """True = the name is that of a NIfTI file; hidden files, such as those of macOS, are not."""
    return bool(_EXTENSION.search(file)) and not file.startswith(".")


def might_be_volume(file: str) -> bool:
    """True = as `is_volume`, or such a file that was renamed so that no reader takes it."""
    return bool(_VOLUME.search(file)) and not file.startswith(".")


def readable_endings(endings: Mapping[str, str], names: Sequence[str], mark: str = "_") -> str:
    """List up to three endings of each name, such as '_t1 (t1), _t1n (t1)'."""
    few = [[e for e, role in endings.items() if role == name][:3] for name in names]
    return ", ".join(
        f"{mark}{ending} ({name})" for name, some in zip(names, few, strict=True) for ending in some
    )


def _match(stem: str, endings: Mapping[str, str]) -> tuple[str, str | None]:
    """Find the ending, if need be before words of preprocessing, and what stands before it."""
    before, ending = _find_ending(stem, endings)
    while ending is None and (word := _WORD_AFTER.search(stem)):
        stem = stem[: word.start()]
        before, ending = _find_ending(stem, endings)
    if ending is not None and (target := _TARGET.search(before)):
        return _match(before[: target.start()], endings)
    return before, ending


def _find_ending(stem: str, endings: Mapping[str, str]) -> tuple[str, str | None]:
    """Split off an ending, which comes without separators and in lower case."""
    found = _compile(tuple(endings.items()), is_bids(stem))[0].search(stem)
    if found is None:
        return stem, None
    return stem[: found.start()], re.sub(_SEPARATOR, "", found["ending"]).lower()


@lru_cache(maxsize=32)
def _compile(
    endings: tuple[tuple[str, str], ...], bids: bool
) -> tuple[re.Pattern[str], dict[str, str]]:
    """Compile a pattern that finds the longest ending, and map endings without separators."""
    first = r"[\s_.+]" if bids else _SEPARATOR  # acq-gd_T1w is no gd_T1w
    parts = ([part for part in re.split(_SEPARATOR, ending) if part] for ending, _ in endings)
    either = "|".join(f"{_SEPARATOR}*".join(map(re.escape, words)) for words in parts if words)
    # A search takes the leftmost match, which is the longest: adc_map before map.
    pattern = re.compile(rf"(?:^|{first}+)(?P<ending>{either})$", re.IGNORECASE)
    return pattern, {re.sub(_SEPARATOR, "", ending): role for ending, role in endings}


def _plain_ending(word: str) -> str:
    return "_".join(part for part in re.split(_SEPARATOR, word.strip().lower()) if part)


def _can_end(ending: str) -> bool:
    return bool(re.fullmatch(r"\w{1,64}", ending))


def _no_suffixes(given: object) -> str:
    return (
        "suffixes: expected modalities with endings of file names, such as "
        f"'flair=fla,fla_bet;t1ce=t1_late' or {{'flair': ['fla']}}, got {given!r:.200}"
    )
