"""What something was made with, as plain values, and how two such descriptions differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver

NOT_SET = "not set"
# Of these the order counts, because it is the order of the channels; a region is a set of labels.
_REGIONS = "regions"
_AXES = 3
_PLAIN = (bool, int, float, str, type(None))
# What MONAI builds first, and what it prints: they change no number.
_MEANINGLESS = ("_requires_", "_desc_")
_LONGEST = 300


def describe(parser: ConfigParser, names: Iterable[str]) -> dict[str, Any]:
    """Describe parts of a config as plain values.

    Args:
        parser: of the config, whose parts that the names refer to can be built.
        names: ids; those that the config lacks, or that are null, are left out.

    Returns:
        Each value by its full id, such as `network_def#filters`: what an expression comes to, if
        that is plain, else its own text.
    """
    leaves = (leaf for name in names for leaf in leaves_of(parser, name))
    return {name: resolve(parser, name, raw) for name, raw in leaves}


def leaves_of(parser: ConfigParser, name: str) -> Iterator[tuple[str, Any]]:
    """Give the id and the unresolved value of everything below an id that holds no further ids."""
    value = parser.get(name)
    if value is not None:
        yield from _leaves(name, value)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        below = value.items()
    elif isinstance(value, list | tuple) and any(map(_is_config, value)):
        below = enumerate(value)
    else:
        yield name, value
        return
    for key, entry in below:
        if key not in _MEANINGLESS:
            yield from _leaves(f"{name}#{key}", entry)


def _is_config(value: Any) -> bool:
    return isinstance(value, Mapping) or _refers(value)


def _refers(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("$", "@"))


def resolve(parser: ConfigParser, name: str, raw: Any) -> Any:
    """Return what an expression comes to, if that is plain; else its own text."""
    if _refers(raw):
        content = parser.get_parsed_content(name)
        return _as_plain(content) if _is_plain(content) else raw
    return _as_plain(raw) if _is_plain(raw) else str(raw)


def depends_on(parser: ConfigParser, raw: Any, ids: Iterable[str]) -> bool:
    """True = an unresolved value refers to one of these ids, directly or through others."""
    wanted, waiting, seen = {*ids}, [raw], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping | list | tuple):
            waiting += value.values() if isinstance(value, Mapping) else value
        elif isinstance(value, str):
            for name in {*ReferenceResolver.match_refs_pattern(value)} - seen:
                seen.add(name)
                if name in wanted:
                    return True
                waiting.append(parser.get(name))
    return False


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """List what differs between two descriptions.

    Returns:
        By id, in the order of `now`: '<id>: <before>, now <now>'; {} = nothing.
    """
    found = {
        name: difference(name, before.get(name, NOT_SET), now.get(name, NOT_SET))
        for name in dict.fromkeys((*now, *before))
        if not same_setting(name, before.get(name, NOT_SET), now.get(name, NOT_SET))
    }
    old, new = _order(before), _order(now)
    if old != new and {*old} == {*new}:
        found[_REGIONS] = f"order of {_REGIONS}: {', '.join(old)}, now {', '.join(new)}"
    return found


def difference(name: str, before: Any, now: Any) -> str:
    """Say what a setting was and what it is."""
    return f"{name}: {_short(before)}, now {_short(now)}"


def same_setting(name: str, before: Any, now: Any) -> bool:
    """True = two values of a setting mean the same.

    `2` is `2.0`, a tuple is a list, and one number is a cube: `64` is `[64, 64, 64]`. The order of
    a dictionary does not count, but that of regions does; the labels of a region are a set.
    """
    if name == _REGIONS and isinstance(before, Mapping) and isinstance(now, Mapping):
        labels = [same_setting(f"{name}#{key}", before[key], now.get(key)) for key in before]
        return [*map(str, before)] == [*map(str, now)] and all(labels)
    lists = isinstance(before, list | tuple) and isinstance(now, list | tuple)
    if name.startswith(f"{_REGIONS}#") and lists:
        return _within(before, now) and _within(now, before)
    return _same(before, now)


def _within(some: Sequence[Any], others: Sequence[Any]) -> bool:
    return all(any(_same(one, other) for other in others) for one in some)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        left, right = ({str(key): value for key, value in each.items()} for each in (a, b))
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, list | tuple):
        return _is_cube(a, b)
    if isinstance(b, list | tuple):
        return _is_cube(b, a)
    return bool(a == b)


def _is_cube(edges: Sequence[Any], edge: Any) -> bool:
    number = isinstance(edge, int | float) and not isinstance(edge, bool)
    return number and len(edges) == _AXES and all(_same(each, edge) for each in edges)


def _order(settings: Mapping[str, Any]) -> list[str]:
    prefix = f"{_REGIONS}#"
    return [name.removeprefix(prefix) for name in settings if name.startswith(prefix)]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_plain(v) for v in value.values())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _as_plain(value: Any) -> Any:
    """Write tuples as lists, and keys as text, as JSON would."""
    if isinstance(value, Mapping):
        return {str(key): _as_plain(entry) for key, entry in value.items()}
    return [*map(_as_plain, value)] if isinstance(value, list | tuple) else value
