"""What a shell's word becomes, by the annotation of the parameter that it is for.

A text stays as it is: `2024_01_15`, `1e5`, `None`, `[a]` and `a#b` are names like others.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml

from bundle import flag

# A file or a folder: the shell expands ~ in `--output ~/x`, but not in `--output=~/x`.
PathText = Annotated[str, "path"]
Names = tuple[str, ...]
Numbers = tuple[float, ...]
# Names or numbers and their values, as YAML writes them: '{3: 4}'.
Table = Mapping[Any, Any]

_PAIRS = ("[]", "()")
# What people write and YAML does not know: no space after a colon (3:4 is 184 minutes), 1e-3.
_COLON = re.compile(r":(?=\S)")
_QUOTED_COLON = re.compile(r"""(["'])[^"']*:[^"']*\1""")
_FLOAT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def convert(word: str, kind: Any, name: str) -> Any:
    """Make of a word what an annotation asks for.

    Args:
        word: as it came from the shell.
        kind: str or Any (the word itself), PathText, int, float, bool, a tuple of one of them (a
            comma between the words, brackets around them or not), a mapping (YAML), or a union: the
            first that fits, text last. In a union with None, 'null' is None, unless it has a text.
        name: the parameter's, for errors.

    Raises:
        ValueError: the word is nothing of the kind.
    """
    if get_origin(kind) in (Union, UnionType):
        return _convert_to_one_of(word, get_args(kind), name)
    if kind == PathText:
        return _path(word, name)
    if get_origin(kind) is tuple:
        return tuple(convert(part, get_args(kind)[0], name) for part in _parts(word))
    if _is_table(kind):
        return _table(word, name)
    readers = {int: _whole_number, float: _number, bool: _switch}
    return readers[kind](word, name) if kind in readers else word


def is_switch(kind: Any) -> bool:
    """Tell whether an annotation is bool, or bool or None."""
    return kind is bool or bool in get_args(kind)


def _is_table(kind: Any) -> bool:
    origin = get_origin(kind) or kind
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _convert_to_one_of(word: str, kinds: tuple[Any, ...], name: str) -> Any:
    texts = [kind for kind in kinds if kind in (str, PathText)]
    others = [kind for kind in kinds if kind not in (str, PathText, NoneType)]
    if NoneType in kinds and not texts and word == "null":
        return None
    refusals = []
    for kind in (*others, *texts):
        try:
            return convert(word, kind, name)
        except ValueError as error:
            refusals.append(error)
    raise refusals[0]


def _path(word: str, name: str) -> str:
    if not word:
        raise ValueError(f"{name}: expected a path, got an empty word.")
    return os.path.expanduser(word)


def _whole_number(word: str, name: str) -> int:
    if not re.fullmatch(r"[-+]?\d+", word):
        raise ValueError(f"{name}: expected a whole number, got {word!r}.")
    return int(word)


def _number(word: str, name: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if math.isnan(value) or "_" in word:
        raise ValueError(f"{name}: expected a number, got {word!r}.")
    return value


def _switch(word: str, name: str) -> bool:
    try:
        return flag(word)
    except ValueError as error:
        raise ValueError(f"{name}: {error}.") from None


def _parts(word: str) -> list[str]:
    """Split 'a,b'; configs and other tools write [a, b], (a, b) and ['a', 'b'] for the same."""
    text = word.strip()
    if text[:1] + text[-1:] in _PAIRS:
        text = text[1:-1]
    parts = [part.strip() for part in text.split(",")]
    quoted = [part[1:-1] if part[:1] in "'\"" and part[:1] == part[-1:] else part for part in parts]
    return [part for part in quoted if part]


def _table(word: str, name: str) -> Mapping[Any, Any]:
    """Read '{a: 1}'.

    Raises:
        ValueError: no table.
    """
    for text in (_COLON.sub(": ", word), word):
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            continue
        quotes_fit = text == word or not _QUOTED_COLON.search(word)
        if isinstance(value, Mapping) and quotes_fit and not _has_lost_value(value, word):
            return _as_python(value)
    raise ValueError(f"{name}: expected names and values such as '{{a: 1, b: 2}}', got {word!r}.")


def _has_lost_value(value: Any, word: str) -> bool:
    """Tell '{a: (1, 2)}' and '{a}', in which YAML sees names that have no value."""
    if isinstance(value, Mapping):
        is_lost = None in value.values() and not re.search("null|~", word, re.IGNORECASE)
        return is_lost or any(_has_lost_value(content, word) for content in value.values())
    return isinstance(value, list) and any(_has_lost_value(each, word) for each in value)


def _as_python(value: Any) -> Any:
    """Read as people do what YAML takes for a text: 1e-3 and None."""
    if isinstance(value, Mapping):
        return {key: _as_python(content) for key, content in value.items()}
    if isinstance(value, list):
        return [_as_python(content) for content in value]
    if value == "None":
        return None
    return float(value) if isinstance(value, str) and _FLOAT.fullmatch(value) else value
