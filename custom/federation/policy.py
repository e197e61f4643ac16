"""What a participant allows: which classes jobs may build, whether they may bring code, logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.app_common.widgets.component_path_authorizer import (
    CLASS_ALLOW_LIST,
    CLASS_LIST_ENFORCEMENT_MODE,
    ClassListEnforcementMode,
)

from bundle.atomic import write_text_atomically

# All that a job may have built, by full name. NVFlare compares texts: "federation." would also
# allow whatever a module of ours has imported, such as NVFlare's executor, which runs any command.
COMPONENTS = (
    "federation.census.ModalityCensus",
    "federation.filters.half_precision.FullPrecision",
    "federation.filters.half_precision.HalfPrecision",
    "federation.filters.privacy.GaussianPrivacy",
    "federation.server.aggregator.ModalityAggregator",
    "federation.server.controller.ModalityFedAvg",
    "federation.server.persistor.BundlePersistor",
    "federation.site.executor.BundleTrainer",
    # Of NVFlare's own, the job `census` needs these.
    "nvflare.app_common.executors.statistics.statistics_executor.StatisticsExecutor",
    "nvflare.app_common.statistics.json_stats_file_persistor.JsonStatsFileWriter",
    "nvflare.app_common.workflows.statistics_controller.StatisticsController",
)
# What version 0.3 allowed.
_FORMER_PREFIX = "federation."
RESOURCES, AUTHORIZATION = "resources.json", "authorization.json"
_LOG_STREAMER = "site_log_streamer"
_CLOSED_COMMANDS = "patchwork_closed_commands"
# The rights that NVFlare means by "any" for a role.
_RIGHTS = ("submit_job", "clone_job", "manage_job", "download_job", "view", "operate")
_ADMIN = dict.fromkeys((*_RIGHTS, "shell_commands", "get_job_log"), "any")
# With these the coordinator's shell reads files at a participant (cat, grep, head, ls, tail), and
# learns where it keeps them, or what its errors say.
_READING_FILES = ("shell_commands", "get_job_log", "report_env", "show_errors")


def read_local(folder: Path, name: str, missing: dict[str, Any]) -> dict[str, Any]:
    """Read one of NVFlare's files in a participant's `local` folder, else its default.

    Raises:
        ValueError: it is no mapping.
    """
    for path in (folder / name, folder / f"{name}.default"):
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                found = type(content).__name__
                raise ValueError(
                    f"{path}: expected names and values, got a {found}. Restore NVFlare's own file."
                )
            return content
    return missing


def write_local(folder: Path, name: str, content: dict[str, Any]) -> Path:
    """Write a file that NVFlare prefers to its default; return its path."""
    write_text_atomically(folder / name, json.dumps(content, indent=2) + "\n")
    return folder / name


def allow(local_dir: str | Path) -> Path:
    """Let a participant build `COMPONENTS` in jobs that carry no code, and nothing else.

    NVFlare builds only listed classes unless a job brings code of its own, which a secure
    federation forbids. Its default list holds more than our jobs need, so it is not taken over; the
    classes that a participant has listed itself stay.

    Args:
        local_dir: the folder with `resources.json`, or its default.

    Returns:
        The file that was written.

    Raises:
        ValueError: what is there is no mapping, or the participant's own list allows more than
            classes by their full names.
    """
    folder = Path(local_dir)
    resources = read_local(folder, RESOURCES, {"format_version": 2})
    former = {*DEFAULT_CLASS_ALLOW_LIST, *COMPONENTS, _FORMER_PREFIX}
    own = [name for name in resources.get(CLASS_ALLOW_LIST, ()) if name not in former]
    if wide := [name for name in own if name == "*" or str(name).endswith(".")]:
        raise ValueError(
            f"{folder / RESOURCES}: expected {CLASS_ALLOW_LIST} to name classes in full, got "
            f"{wide}, which lets a job run any command. Take it out, or name the classes."
        )
    resources[CLASS_ALLOW_LIST] = [*own, *COMPONENTS]
    resources[CLASS_LIST_ENFORCEMENT_MODE] = ClassListEnforcementMode.ENFORCE.value
    return write_local(folder, RESOURCES, resources)


def keep_logs_home(local_dir: str | Path) -> Path:
    """Keep a site's log files at the site: NVFlare sends the error log to the server by default.

    An error may name a case or a path.
    """
    folder = Path(local_dir)
    resources = read_local(folder, RESOURCES, {"format_version": 2})
    resources["allow_log_streaming"] = False
    kept = [c for c in resources.get("components", []) if c.get("id") != _LOG_STREAMER]
    return write_local(folder, RESOURCES, {**resources, "components": kept})


def forbid_code(local_dir: str | Path) -> Path:
    """Refuse jobs that bring code of their own, whoever submits them."""
    return _limit(Path(local_dir), ("byoc",))


def forbid_reading(local_dir: str | Path) -> Path:
    """Refuse the commands with which a coordinator reads files of a site, whoever asks.

    A site's log may name cases and paths. A site asks for permission only where the server's
    message says so: `ClosedCommands` takes the commands away from it as well.
    """
    folder = Path(local_dir)
    resources = read_local(folder, RESOURCES, {"format_version": 2})
    closed = {"id": _CLOSED_COMMANDS, "path": "federation.site.closed_commands.ClosedCommands"}
    others = [c for c in resources.get("components", []) if c.get("id") != _CLOSED_COMMANDS]
    write_local(folder, RESOURCES, {**resources, "components": [*others, closed]})
    return _limit(folder, _READING_FILES)


def _limit(folder: Path, rights: Sequence[str]) -> Path:
    """Take rights from every role."""
    content = read_local(folder, AUTHORIZATION, {"format_version": "1.0", "permissions": {}})
    permissions = content.setdefault("permissions", {})
    permissions.setdefault("project_admin", "any")
    for role, held in permissions.items():
        written_out = dict(_ADMIN) if held == "any" else dict(held)
        permissions[role] = {**written_out, **dict.fromkeys(rights, "none")}
    return write_local(folder, AUTHORIZATION, content)


def store_jobs_in(local_dir: str | Path, store: str | Path) -> Path:
    """Give a server its own job store: by default all servers of a machine share one."""
    folder, store = Path(local_dir), Path(store).resolve()
    resources = read_local(folder, RESOURCES, {"format_version": 2})
    for component in resources.get("components", []):
        if component.get("id") == "job_manager":
            component["args"]["uri_root"] = str(store / "jobs")
    snapshots = resources.get("snapshot_persistor", {}).get("args", {}).get("storage", {})
    if snapshots:
        snapshots["args"]["root_dir"] = str(store / "snapshots")
    return write_local(folder, RESOURCES, resources)
