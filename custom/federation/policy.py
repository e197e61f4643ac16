"""What a participant allows: which classes jobs may build, whether they may bring code, logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.app_common.widgets.component_path_authorizer import CLASS_ALLOW_LIST

from bundle.atomic import write_text_atomically

PREFIX = "federation."
RESOURCES, AUTHORIZATION = "resources.json", "authorization.json"
_LOG_STREAMER = "site_log_streamer"
# The rights that NVFlare means by "any" for a role.
_RIGHTS = ("submit_job", "clone_job", "manage_job", "download_job", "view", "operate")
_ADMIN = {**dict.fromkeys((*_RIGHTS, "shell_commands"), "any")}


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
    """Let a participant build this package's components in jobs that carry no code.

    NVFlare builds only listed classes unless a job brings code of its own, which a secure
    federation forbids.

    Args:
        local_dir: the folder with `resources.json`, or its default.

    Returns:
        The file that was written.

    Raises:
        ValueError: what is there is no mapping.
    """
    folder = Path(local_dir)
    resources = read_local(folder, RESOURCES, {"format_version": 2})
    listed = list(resources.get(CLASS_ALLOW_LIST, DEFAULT_CLASS_ALLOW_LIST))
    if PREFIX not in listed:
        listed.append(PREFIX)
    resources[CLASS_ALLOW_LIST] = listed
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
    folder = Path(local_dir)
    content = read_local(folder, AUTHORIZATION, {"format_version": "1.0", "permissions": {}})
    permissions = content.setdefault("permissions", {})
    permissions.setdefault("project_admin", "any")
    for role, rights in permissions.items():
        written_out = dict(_ADMIN) if rights == "any" else dict(rights)
        permissions[role] = {**written_out, "byoc": "none"}
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
