"""Words before the ending of a scan's name that contradict it: FLAIR before T2, an agent before T1.

`p01_3DFLAIR_T2` is no T2, and `p01_gd_mprage_T1` no T1 without contrast agent. A BIDS entity says
it for certain: `acq-FLAIR_T2w` is a FLAIR. Where it is not certain, the name is not understood.
"""

from __future__ import annotations

import re

SEPARATOR = r"[\s_.+-]"
_FLAIR = re.compile(r"flair|(?<![a-z])tirm(?![a-z])|dark[\s_.+-]*fluid", re.IGNORECASE)
_SURELY = r"contrast|enhanced|gd|gad(?:o\w*|avist|butrol)?|km|ce"
_SURE = re.compile(rf"(?:post)?(?:{_SURELY})", re.IGNORECASE)
_POST = re.compile(r"post", re.IGNORECASE)
_NOT = r"no|non|not|none|without|wo|pre|un|ohne|sans"
_WITHOUT = re.compile(rf"(?:{_NOT})(?:{_SURELY}|agent|injection)|native?|plain", re.IGNORECASE)
_NO_AGENT = re.compile(rf"(?:{_NOT}|native?|plain|0|false)(?:{_SURELY}|agent)?", re.IGNORECASE)
_UNCLEAR_AGENT = ("unknown", "na", "unk", "x")
# Words that the name of a tumour's label may have.
_TUMOUR = re.compile(
    r"(?:tumou?r|lesion|glioma|manual|expert|final|corrected|corr|gt|truth|ground|consensus"
    r"|brats|mask|masks|roi|label|seg|segmentation|preproc|rater|v|version|orig"
    r"|(?:rater|v|version|brats)?\d+|true|native|space|the|of|in|to|reg|resampled|t1|t1ce|t1c|t1w"
    r"|t2|t2w|flair|annotation|multi|multiclass|all|and|dataset|brain)(?:seg)?",
    re.IGNORECASE,
)
# How a scan was made, in BIDS; not its `space`, which may be that of another scan.
_ENTITY = re.compile(r"_(?:acq|rec|desc|mod)-(?P<value>[^_]+)", re.IGNORECASE)
_AGENT = re.compile(r"_(?:ce|trc)-(?P<agent>[^_]+)", re.IGNORECASE)
_CAMEL = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_MODALITY = re.compile(r"t[12]|flair|fluid|\d?[23]d|[13]t|\d*mm", re.IGNORECASE)

# t1ce_minus_t1, flair_sub_t1, t1_by_t2.
_NO_T1 = re.compile(r"flair|t2f?|t2w|t1ce|t1c|t1gd", re.IGNORECASE)
_NO_T2 = re.compile(r"t1|t1w|t1n|t1ce|t1c|t1gd", re.IGNORECASE)

T1, T1CE, T2, FLAIR, UNSURE, TWO = "t1", "t1ce", "t2", "flair", "unsure", "two"


def is_bids(stem: str) -> bool:
    """True = a BIDS name, in which '-' joins an entity to its value."""
    return stem[:4].lower() == "sub-" and "_" in stem


def told_by_entities(stem: str, kind: str) -> str:
    """Return what the entities of a BIDS name say a T1 or T2 is.

    Args:
        stem: of the file's name.
        kind: what the ending says, 't1' or 't2'.

    Returns:
        't1', 't1ce', 't2', 'flair', or 'unsure'.
    """
    values = [found["value"] for found in _ENTITY.finditer(stem)]
    if kind == T2:
        return FLAIR if any(map(_FLAIR.search, values)) else T2
    for found in _AGENT.finditer(stem):
        if found["agent"].lower() in _UNCLEAR_AGENT:
            return UNSURE
        return T1 if _NO_AGENT.fullmatch(found["agent"]) else T1CE
    told = T1
    for value in values:
        words = [value, *_CAMEL.findall(value)]
        if any(map(_WITHOUT.fullmatch, words)) or _WITHOUT.search(value):
            return T1
        if any(map(_SURE.fullmatch, words)) or re.search("contrast", value, re.IGNORECASE):
            told = T1CE
        elif told == T1 and (any(map(_POST.fullmatch, words)) or re.search("post$", value, re.I)):
            told = UNSURE
    return told


def told_by_words(before: str, kind: str) -> tuple[str, str]:
    """Return what the words between a case's name and the ending say a T1, T1ce or T2 is.

    Args:
        before: what stands before the ending. Words up to the first number are the case's name, if
            there is a number.
        kind: what the ending says: 't1', 't2', or 't1ce' where the agent stands before T1.

    Returns:
        't1', 't1ce', 't2', 'unsure' or 'two' modalities, and `before` without words that say that
        there is no agent.
    """
    words = [(word.group(), word.start()) for word in re.finditer(r"[^\s_.+-]+", before)]
    first = next((i for i, (word, _) in enumerate(words) if _is_number(word)), -1)
    rest = words[first + 1 :]
    if kind == T2:
        text = before[rest[0][1] :] if rest else ""
        told = TWO if _FLAIR.search(text) or any(_NO_T2.fullmatch(w) for w, _ in rest) else T2
        return told, before
    if rest and kind == T1CE and re.fullmatch(_NOT, rest[-1][0], re.IGNORECASE):
        return T1, _cut(before, rest[-1][1])
    if kind == T1 and any(_NO_T1.fullmatch(word) for word, _ in rest):
        return TWO, before
    if kind != T1 or not rest:
        return kind, before
    pairs = zip(rest, [("", 0), *rest], strict=False)
    for i, ((word, start), (last, at)) in enumerate(pairs):
        ends = i == len(rest) - 1
        if _WITHOUT.fullmatch(word):
            return T1, _cut(before, start) if ends else before
        if _WITHOUT.fullmatch(last + word) and last:
            return T1, _cut(before, at) if ends else before
    says = any(_SURE.fullmatch(word) or _POST.fullmatch(word) for word, _ in rest)
    return (UNSURE if says else T1), before


def _is_number(word: str) -> bool:
    """True = a word with a digit that is no modality, dimension or field strength."""
    return any(map(str.isdigit, word)) and not _MODALITY.search(word)


def _cut(before: str, start: int) -> str:
    return before[:start].rstrip(" _.+-") if start else ""


def is_tumour_word(word: str) -> bool:
    """True = a word that the name of a tumour's label may have before its ending."""
    return bool(_TUMOUR.fullmatch(word))
