"""A site's own settings: where its data and its state are, and on which device it computes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

# Names the file of settings; {site} stands for the site's name. Without it, the file is
# local/patchwork.yaml in the folder that NVFlare gave the site, beside NVFlare's own settings.
VARIABLE = "PATCHWORK_SITE"
LOCAL_FILE = "local/patchwork.yaml"

# Ids of the configs that a site may set: they change where and how fast it computes.
IDS = (
    "dataset_dir",
    "datalist_file",
    "cache_dir",
    "device",
    "num_workers",
    "amp",
    "channels_last",
    "check",
    "on_bad_case",
)
_PATHS = ("dataset_dir", "datalist_file", "cache_dir", "state_dir")


@dataclass(frozen=True)
class Site:
    """A participant's own settings. They never leave it.

    Attributes:
        name: as NVFlare knows it; `server` for the server.
        ids: ids of the configs and their values.
        state_dir: where it keeps its state over the rounds, and from a job to the one that resumes
            it; None = the job's own folder.
    """

    name: str
    ids: Mapping[str, Any]
    state_dir: Path | None = None


def find_site(name: str, start: str | Path = ".") -> Site:
    """Find and read the settings of a participant.

    Args:
        name: as NVFlare knows it.
        start: the folder from which `local/patchwork.yaml` is looked for, upwards.

    Returns:
        The settings; without a file none at all, with which the configs' own defaults hold.

    Raises:
        FileNotFoundError: the environment names a file that does not exist.
        ValueError: as in `read_site`.
    """
    named = os.environ.get(VARIABLE)
    if named:
        path = Path(named.replace("{site}", name))
        if not path.is_file():
            raise FileNotFoundError(
                f"{name}: expected its settings in {path}, which {VARIABLE} names, found no "
                "such file. Write it, or unset the variable."
            )
        return read_site(name, path)
    start = Path(start).resolve()
    for folder in (start, *start.parents):
        if (folder / LOCAL_FILE).is_file():
            return read_site(name, folder / LOCAL_FILE)
    return Site(name, {})


def read_site(name: str, path: str | Path) -> Site:
    """Read a participant's settings from a YAML file; relative paths are relative to it.

    Raises:
        ValueError: no mapping, or a name that a site may not set.
    """
    path = Path(path).resolve()
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected names and values, got a {type(content).__name__}")
    unknown = sorted(set(map(str, content)) - {*IDS, "state_dir"})
    if unknown:
        raise ValueError(
            f"{path}: a site may set {[*IDS, 'state_dir']}, got {unknown}. Remove them: "
            "the job sets everything else, so that all sites train the same."
        )
    values = {
        key: str(path.parent / value) if key in _PATHS and value else value
        for key, value in content.items()
    }
    state_dir = values.pop("state_dir", None)
    return Site(name, values, Path(state_dir) if state_dir else None)
