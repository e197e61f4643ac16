"""Settings that no config knows are refused, before anything is loaded.

MONAI takes any id, and nothing reads one that is misspelt. Known are the ids of this bundle's
configs, what any part of a config refers to, and the ids of MONAI and its hosts.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigComponent
from monai.bundle.reference_resolver import ReferenceResolver

from bundle.training.current_config import current_parser, given, run_ids
from bundle.training.own_ids import HOSTS, overlay_parts, own_ids, own_nodes, top_of

# The two parts of a config that hold others by name; MONAI looks for things in them.
_SECTIONS = ("train", "validate")


def check_settings() -> bool:
    """Refuse the settings of the config that calls this which nothing knows.

    Returns:
        True, so that an expression can join it to other checks.

    Raises:
        ValueError: naming each unknown setting, and the one that is spelt most like it.
    """
    parser = current_parser()
    if parser is None or not isinstance(parser.config, dict):
        return True
    unknown = [*_unknown_ids(parser), *_unknown_parts(parser), *_unknown_here(parser)]
    if unknown:
        raise ValueError(
            f"{' '.join(dict.fromkeys(unknown))} Every id of a config is a setting, see "
            "docs/settings.md. What an overlay defines for itself must be used somewhere, as @name "
            "or %name."
        )
    return True


def _unknown_ids(parser: ConfigParser) -> Iterator[str]:
    """Say which ids of the config nobody knows: a file or a host has set them."""
    config = parser.config
    left = {id_ for id_ in config if not id_.startswith("_")} - HOSTS - references(config)
    left -= {id_ for id_ in left if _is_run(config[id_]) or _is_copied(config, id_)}
    left -= _macros(given()[1]) if left else set()
    if not left or not (left := left - {*own_ids()}) or not (left := left - run_ids()):
        return
    for id_ in config:
        if id_ in left:
            yield _refusal(parser, id_, (*config, *own_ids()))


def _unknown_here(parser: ConfigParser) -> Iterator[str]:
    """Say which ids of the command line only other configs than those given know."""
    ids_given, files = given()
    if not ids_given or not files:
        return
    names = [Path(name).name for name in files]
    ids = {top_of(id_) for id_ in ConfigParser.load_config_files(files)}
    for id_ in dict.fromkeys(map(top_of, ids_given)):
        elsewhere = own_ids().get(id_)
        if elsewhere and id_ not in ids | HOSTS | references(parser.config, without=id_):
            yield (
                f"no setting {id_} in {', '.join(names)}: it is one of {', '.join(elsewhere)}, "
                "which this run does not read."
            )


def _unknown_parts(parser: ConfigParser) -> Iterator[str]:
    """Say which parts of a component or a section that the configs have are not known there."""
    used: set[str] | None = None
    for path, node in _dicts(parser.config):
        mine = [other for other in own_nodes(path) if _target(other) == _target(node)]
        extra = {key for key in node if not str(key).startswith("_")}.difference(*mine)
        if not mine or not extra:
            continue
        if "_target_" in node:
            names = _parameters(parser, node)
            unknown = set() if names is None else extra - names
        elif path in _SECTIONS:
            used = references(parser.config, deep=True) if used is None else used
            names = {name for own in own_nodes(path) for name in own} | overlay_parts(path)
            unknown = {key for key in extra - names if f"{path}#{key}" not in used}
        else:
            continue
        for key in sorted(unknown):
            yield _refusal(parser, f"{path}#{key}", [f"{path}#{name}" for name in names])


def references(config: Any, deep: bool = False, without: str = "") -> set[str]:
    """Collect what a config refers to, with @: the first part of each id, or with `deep` all.

    Args:
        config: the config, or a part of it.
        deep: True = with `@train#dataset#data` also `train#dataset` and the whole.
        without: an id whose own content does not count.
    """
    found: set[str] = set()
    waiting = [value for id_, value in config.items() if id_ != without]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, str) and "@" in value:
            for name in ReferenceResolver.match_refs_pattern(value):
                parts = ReferenceResolver.split_id(name)
                last = len(parts) if deep else 1
                found |= {"#".join(parts[:length]) for length in range(1, last + 1)}
    return found


def _dicts(value: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give every dictionary below the top of a config, with its id; `_meta_` is no setting."""
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, entry in pairs:
        if str(key).startswith("_") or not isinstance(entry, Mapping | list):
            continue
        id_ = f"{path}#{key}" if path else str(key)
        if isinstance(entry, Mapping):
            yield id_, entry
        yield from _dicts(entry, id_)


def _target(node: Mapping[str, Any]) -> Any:
    return node.get("_target_")


def _parameters(parser: ConfigParser, node: Mapping[str, Any]) -> set[str] | None:
    """Give what a component takes; None = that cannot be told, and MONAI has the last word."""
    path = ConfigComponent(dict(node), locator=parser.locator).resolve_module_name()
    try:
        parameters = inspect.signature(locate(path)).parameters.values()
    except (ErrorDuringImport, TypeError, ValueError):
        return None
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    return {each.name for each in parameters}


def _is_run(value: Any) -> bool:
    """True = a list of expressions: something that `--run_id` may name."""
    return isinstance(value, list) and bool(value) and all(str(v).startswith("$") for v in value)


def _macros(files: Iterable[str]) -> set[str]:
    """Find what config files take over by a macro (%name, %name#part), of which no trace is left.

    What is no macro but looks like one makes a name known, and nothing worse.
    """
    texts = (Path(file).read_text("utf-8") for file in files if Path(file).is_file())
    return {name for text in texts for name in re.findall(r"%#*(\w+)", text)}


def _is_copied(config: Mapping[str, Any], id_: str) -> bool:
    """True = a part of it stands elsewhere, too: a macro (%name#part) has put it there.

    Switches, whole numbers, texts and short lists stand in many places, and tell nothing.
    """
    mine = config[id_]
    if not mine or not isinstance(mine, dict | list):
        return False
    others = [value for name, value in config.items() if name != id_]
    elsewhere = [part for other in others for part in _parts(other)]
    return mine in elsewhere or any(
        part in elsewhere for part in _parts(mine) if part and isinstance(part, Mapping | float)
    )


def _parts(value: Any) -> Iterator[Any]:
    """Give a value and all that is in it."""
    yield value
    if isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _parts(part)


def _refusal(parser: ConfigParser, id_: str, names: Iterable[str]) -> str:
    if id_.startswith("+"):
        return f"no setting {id_}: only an overlay merges, the command line replaces."
    if id_.startswith("~"):
        return f"no setting {id_}: nothing takes a setting away. Give another value, or null."
    dotted = id_.replace(".", "#")
    if dotted != id_ and dotted in parser:
        return f"no setting {id_}. Did you mean {dotted}?"
    spelt = {name.lower(): name for name in names if name != id_}
    close = get_close_matches(id_.lower().replace("-", "_"), spelt, n=1, cutoff=0.7)
    return f"no setting {id_}." + (f" Did you mean {spelt[close[0]]}?" if close else "")
