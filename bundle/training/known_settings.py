"""Settings that no config knows are refused, before anything is loaded.

MONAI takes any id, and nothing reads one that is misspelt. Known are the ids of this bundle's
configs, what any part of a config refers to, and the ids of MONAI and its hosts.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from pydoc import locate
from types import FrameType
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle import run as monai_run
from monai.bundle.config_item import ConfigComponent
from monai.bundle.properties import InferProperties, TrainProperties
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS
from monai.utils import BundlePropertyConfig

import bundle
from bundle.training.current_config import current_parser

CONFIGS = Path(bundle.ROOT) / "configs"
_WORKFLOWS = ("train.json", "inference.json", "evaluate.json")
# The two parts of a config that hold others by name; MONAI looks for things in them.
_SECTIONS = ("train", "validate")
_PROPERTIES = {
    ReferenceResolver.split_id(each[BundlePropertyConfig.ID])[0]
    for each in (*TrainProperties.values(), *InferProperties.values())
}
# What MONAI reads by name, what it is given for itself, and what MONAI Label sets.
_HOSTS = {
    *_PROPERTIES,
    *("imports", "initialize", "run", "finalize", "displayable_configs", "use_click"),
    *DEFAULT_MLFLOW_SETTINGS["configs"],
    *inspect.signature(monai_run).parameters,
    *inspect.signature(ConfigWorkflow.__init__).parameters,
}


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
            "docs/settings.md. What an overlay defines for itself must be used somewhere, as @name."
        )
    return True


def _unknown_ids(parser: ConfigParser) -> Iterator[str]:
    """Say which ids of the config nobody knows: a file or a host has set them."""
    config = parser.config
    left = {id_ for id_ in config if not id_.startswith("_")} - _HOSTS - references(config)
    left -= {id_ for id_ in left if _is_run(config[id_]) or _is_copied(config, id_)}
    if not left or not (left := left - {*own_ids()}) or not (left := left - _run_ids()):
        return
    for id_ in config:
        if id_ in left:
            yield _refusal(parser, id_, (*config, *own_ids()))


def _unknown_here(parser: ConfigParser) -> Iterator[str]:
    """Say which ids of the command line only other configs than those given know."""
    given, files = _given()
    if not given or not files:
        return
    names = [Path(str(name)).name for name in files]
    ids = {_top(id_) for id_ in ConfigParser.load_config_files(files)}
    for id_ in dict.fromkeys(map(_top, given)):
        elsewhere = own_ids().get(id_)
        if elsewhere and id_ not in ids | _HOSTS | references(parser.config, without=id_):
            yield (
                f"no setting {id_} in {', '.join(names)}: it is one of {', '.join(elsewhere)}, "
                "which this run does not read."
            )


def _unknown_parts(parser: ConfigParser) -> Iterator[str]:
    """Say which parts of a component or a section that the configs have are not known there."""
    used: set[str] | None = None
    for path, node in _dicts(parser.config):
        mine = [other for other in _own_nodes(path) if _target(other) == _target(node)]
        extra = {key for key in node if not str(key).startswith("_")}.difference(*mine)
        if not mine or not extra:
            continue
        if "_target_" in node:
            names = _parameters(parser, node)
            unknown = set() if names is None else extra - names
        elif path in _SECTIONS:
            used = references(parser.config, deep=True) if used is None else used
            names = {name for own in _own_nodes(path) for name in own} | _overlay_parts(path)
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


@cache
def own_ids() -> dict[str, list[str]]:
    """Give the ids of this bundle's configs, and the files that have them."""
    found: dict[str, list[str]] = {}
    for name in _WORKFLOWS:
        for id_ in _own(name):
            found.setdefault(_top(id_), []).append(name)
    for name, ids in _overlays().items():
        for id_ in {*map(_top, ids)}:
            found.setdefault(id_, []).append(name)
    return found


@cache
def _own(name: str) -> dict[str, Any]:
    return json.loads((CONFIGS / name).read_text(encoding="utf-8"))


@cache
def _overlays() -> dict[str, list[str]]:
    """Give each overlay's ids; its text is not parsed, which would take ten times as long."""
    return {
        path.name: re.findall(r"^(\+?[\w#]+):(?:\s|$)", path.read_text("utf-8"), re.MULTILINE)
        for path in sorted(CONFIGS.glob("*.yaml"))
    }


def _overlay_parts(path: str) -> set[str]:
    """Give the names that overlays add right under a section."""
    ids = [ReferenceResolver.split_id(id_) for each in _overlays().values() for id_ in each]
    return {parts[1] for parts in ids if len(parts) > 1 and parts[0].lstrip("+") == path}


def _own_nodes(path: str) -> list[Mapping[str, Any]]:
    """Find what this bundle's JSON configs have at an id."""
    found = []
    for name in _WORKFLOWS:
        node: Any = _own(name)
        for key in path.split("#"):
            if isinstance(node, Mapping):
                node = node.get(key)
            else:
                inside = isinstance(node, list) and key.isdigit() and int(key) < len(node)
                node = node[int(key)] if inside else None
        if isinstance(node, Mapping):
            found.append(node)
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
    except (TypeError, ValueError):
        return None
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    return {each.name for each in parameters}


def _is_run(value: Any) -> bool:
    """True = a list of expressions: something that `--run_id` may name."""
    return isinstance(value, list) and bool(value) and all(str(v).startswith("$") for v in value)


def _is_copied(config: Mapping[str, Any], id_: str) -> bool:
    """True = the same part stands elsewhere, too: a macro (%name) has put it there."""
    value = config[id_]
    if not value or not isinstance(value, dict | list):
        return False
    waiting = [other for name, other in config.items() if name != id_]
    while waiting:
        other = waiting.pop()
        if type(other) is type(value) and other == value:
            return True
        if isinstance(other, Mapping | list):
            waiting += other.values() if isinstance(other, Mapping) else other
    return False


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _run_ids() -> set[str]:
    """Find what the workflow at work runs; it may be called anything."""
    for frame in _frames():
        caller = frame.f_locals.get("self")
        if isinstance(caller, ConfigWorkflow):
            return {caller.run_id, caller.init_id, caller.final_id}
    return set()


def _given() -> tuple[list[str], list[Any]]:
    """Find what `python -m monai.bundle run` was given: ids, and the config files."""
    for frame in _frames():
        if frame.f_code is monai_run.__code__:
            local = frame.f_locals
            known = ConfigParser.load_config_file(local["args_file"]) if local["args_file"] else {}
            files = local["config_file"] or known.get("config_file") or []
            if isinstance(files, str):
                files = [files] if Path(files).is_file() else files.split(",")
            return [*local["override"], *known], [*files]
    return [], []


def _top(id_: str) -> str:
    return ReferenceResolver.split_id(id_.removeprefix("+"))[0]


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
