"""The ids that this bundle's configs have, and those that MONAI and its hosts know by name."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow
from monai.bundle import run as monai_run
from monai.bundle.properties import InferProperties, TrainProperties
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS
from monai.utils import BundlePropertyConfig

import bundle

CONFIGS = Path(bundle.ROOT) / "configs"
_WORKFLOWS = ("train.json", "inference.json", "evaluate.json")
_PROPERTIES = {
    ReferenceResolver.split_id(each[BundlePropertyConfig.ID])[0]
    for each in (*TrainProperties.values(), *InferProperties.values())
}
# What MONAI reads by name, what it is given for itself, and what MONAI Label sets.
HOSTS = {
    *_PROPERTIES,
    *("imports", "initialize", "run", "finalize", "displayable_configs", "use_click"),
    *DEFAULT_MLFLOW_SETTINGS["configs"],
    *inspect.signature(monai_run).parameters,
    *inspect.signature(ConfigWorkflow.__init__).parameters,
}


@cache
def own_ids() -> dict[str, list[str]]:
    """Give the ids of this bundle's configs, and the files that have them."""
    found: dict[str, list[str]] = {}
    for name in _WORKFLOWS:
        for id_ in _own(name):
            found.setdefault(top_of(id_), []).append(name)
    for name, ids in _overlays().items():
        for id_ in {*map(top_of, ids)}:
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


def overlay_parts(path: str) -> set[str]:
    """Give the names that overlays add right under a section."""
    ids = [ReferenceResolver.split_id(id_) for each in _overlays().values() for id_ in each]
    return {parts[1] for parts in ids if len(parts) > 1 and parts[0].lstrip("+") == path}


def own_nodes(path: str) -> list[Mapping[str, Any]]:
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


def top_of(id_: str) -> str:
    """Give the first part of an id: `train` of `+train#handlers`."""
    return ReferenceResolver.split_id(id_.removeprefix("+"))[0]
