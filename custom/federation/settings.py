"""A site's own settings: where data and state are, on which device it computes, its rules."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from federation.rules import Rules, read_rules

# Names the file of settings; {site} stands for the site's name. Without it, the file is
# local/patchwork.yaml in the folder that NVFlare gave the site, beside NVFlare's own settings.
VARIABLE = "PATCHWORK_SITE"
LOCAL_FILE = "local/patchwork.yaml"
# NVFlare writes it into the folder of each job; what lies there has come with the job.
_JOB_MARK = "fl_app.txt"

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
_NAMES = (*IDS, "state_dir", "rules")


@dataclass(frozen=True)
class Site:
    """A participant's own settings. They never leave it.

    Attributes:
        name: as NVFlare knows it; `server` for the server.
        ids: ids of the configs and their values.
        state_dir: where it keeps its state over the rounds, and from a job to the one that resumes
            it; None = the job's own folder.
        rules: what it asks of a job.
    """

    name: str
    ids: Mapping[str, Any]
    state_dir: Path | None = None
    rules: Rules = field(default_factory=Rules)

    @property
    def datalist(self) -> Path | None:
        """The file of its cases, by the rule of the configs; None = its settings do not say."""
        if self.ids.get("datalist_file"):
            return Path(self.ids["datalist_file"])
        folder = self.ids.get("dataset_dir")
        return Path(folder) / "datalist.json" if folder else None


def find_site(name: str, start: str | Path = ".") -> Site:
    """Find and read the settings of a participant.

    Args:
        name: as NVFlare knows it.
        start: the folder from which `local/patchwork.yaml` is looked for, upwards. A job's own
            folders do not count: a job must not bring settings along.

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
    folders = [start, *start.parents]
    of_jobs = [number for number, folder in enumerate(folders) if (folder / _JOB_MARK).exists()]
    for folder in folders[of_jobs[-1] + 1 if of_jobs else 0 :]:
        if (folder / LOCAL_FILE).is_file():
            return read_site(name, folder / LOCAL_FILE)
    return Site(name, {})


def read_site(name: str, path: str | Path) -> Site:
    """Read a participant's settings from a YAML file; errors as in `parse_site`."""
    path = Path(path).resolve()
    return parse_site(name, yaml.safe_load(path.read_text(encoding="utf-8")) or {}, path)


def parse_site(name: str, content: Any, path: Path) -> Site:
    """Take a participant's settings from what its file holds.

    Args:
        name: as NVFlare knows it.
        content: names and values.
        path: the file; relative paths are relative to its folder.

    Raises:
        ValueError: no mapping, a name that a site may not set, or a rule that is none.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected names and values, got a {type(content).__name__}")
    unknown = sorted(set(map(str, content)) - set(_NAMES))
    if unknown:
        raise ValueError(
            f"{path}: a site may set {list(_NAMES)}, got {unknown}. Remove them: "
            "the job sets everything else, so that all sites train the same."
        )
    values = {
        key: str(path.parent / value) if key in _PATHS and value else value
        for key, value in content.items()
    }
    state_dir, rules = values.pop("state_dir", None), values.pop("rules", None)
    folder = Path(state_dir) if state_dir else None
    return Site(name, values, folder, read_rules(rules, f"{path}: rules"))
