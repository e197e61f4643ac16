"""Finds out which parameter of a function each word of a command line is for.

A parameter is given by its place, as `--name VALUE` or as `--name=VALUE`, with `-` or `_` between
the parts of its name, or by its first letter if no other begins so: `-n VALUE`. A switch is also
`--name`, `--name false` or `--no-name`. After `--`, every word is a value.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, get_type_hints

from bundle.cli.kinds import convert, is_switch

_SWITCH_WORDS = ("true", "false", "yes", "no", "1", "0")


class Parameter(NamedTuple):
    """What may be given.

    Attributes:
        name: as in the function's signature.
        kind: its annotation, see `convert`.
        needed: True = it has no default.
        has_place: False = it can only be given by its name.
    """

    name: str
    kind: Any
    needed: bool
    has_place: bool


class Value(NamedTuple):
    """A word without a name, and the switch right before it, to which it may have been meant."""

    word: str
    switch: str | None


def read_words(
    call: Callable[..., Any], words: Sequence[str], others: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Make keyword arguments of a command line's words.

    Args:
        call: the function that is going to take them; its annotations are those of `convert`.
        words: what follows the program and its verb.
        others: names that the function takes as **keywords, and the annotation of each.

    Raises:
        ValueError: an option that does not exist or comes twice; a value that lacks, is too much,
            or is not what the annotation asks for.
    """
    parameters = parameters_of(call, others or {})
    named, values = _sort(words, parameters)
    free = [each for each in parameters.values() if each.has_place and each.name not in named]
    if len(values) > len(free):
        raise ValueError(f"one value too many, {values[len(free)].word!r}.")
    for parameter, value in zip(free, values, strict=False):
        if value.switch and not parameter.needed:
            raise ValueError(f"--{value.switch}: expected true or false, got {value.word!r}.")
        named[parameter.name] = value.word
    for parameter in free[len(values) :]:
        if parameter.needed:
            raise ValueError(f"no value for {parameter.name.upper()}.")
    return {name: convert(word, parameters[name].kind, name) for name, word in named.items()}


def parameters_of(
    call: Callable[..., Any], others: Mapping[str, Any] | None = None
) -> dict[str, Parameter]:
    """List what a function takes; arguments as in `read_words`."""
    kinds = get_type_hints(call, include_extras=True)
    own = [
        Parameter(
            each.name,
            kinds.get(each.name, Any),
            needed=each.default is each.empty,
            has_place=each.kind is not each.KEYWORD_ONLY,
        )
        for each in inspect.signature(call).parameters.values()
        if each.kind is not each.VAR_KEYWORD
    ]
    more = [Parameter(name, kind, False, False) for name, kind in (others or {}).items()]
    return {parameter.name: parameter for parameter in (*own, *more)}


def _sort(
    words: Sequence[str], parameters: Mapping[str, Parameter]
) -> tuple[dict[str, str], list[Value]]:
    """Tell words with a name from those without."""
    named: dict[str, str] = {}
    values: list[Value] = []
    waiting, switch = list(words), None
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            values += [Value(each, None) for each in waiting]
            break
        if not is_option(word):
            values.append(Value(word, switch))
            switch = None
            continue
        option, equals, given = word.partition("=")
        parameter, is_on = _find(option, parameters)
        switch = None
        if is_switch(parameter.kind) and not equals:
            has_word = is_on and bool(waiting) and waiting[0].lower() in _SWITCH_WORDS
            given = waiting.pop(0) if has_word else str(is_on).lower()
            switch = None if has_word else parameter.name
        elif not equals:
            if not waiting or is_option(waiting[0]):
                example = f" A value that begins with - is written {option}=-x." if waiting else ""
                raise ValueError(f"no value for {option}.{example}")
            given = waiting.pop(0)
        elif not is_on:
            raise ValueError(f"{option} takes no value. Write --{parameter.name}={given}.")
        if parameter.name in named:
            raise ValueError(f"--{parameter.name} is given twice.")
        named[parameter.name] = given
    return named, values


def is_option(word: str) -> bool:
    """Tell an option from a value: -1 and - are values."""
    return re.match("--?[^\\W\\d]", word) is not None or word.startswith("--")


def _find(option: str, parameters: Mapping[str, Parameter]) -> tuple[Parameter, bool]:
    """Find whose option this is; False = it turns a switch off.

    Raises:
        ValueError: nobody's.
    """
    name = option.lstrip("-").replace("-", "_")
    short = [each for each in parameters.values() if each.name[0] == name]
    if name in parameters:
        return parameters[name], True
    if not option.startswith("--") and len(short) == 1:
        return short[0], True
    off = parameters.get(re.sub("^no_?", "", name))
    if off and is_switch(off.kind):
        return off, False
    raise ValueError(
        f"no option {option}.{suggestion(option, [f'--{each}' for each in parameters])}"
    )


def suggestion(word: str, known: Sequence[str]) -> str:
    """Name the nearest of the known words, or all of them."""
    near = get_close_matches(word, known, n=1)
    return f" Did you mean {near[0]}?" if near else f" Expected one of {', '.join(known)}."
