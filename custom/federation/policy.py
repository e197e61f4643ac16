"""What a participant lets jobs build: NVFlare's own list of harmless classes, and this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.app_common.widgets.component_path_authorizer import CLASS_ALLOW_LIST

from bundle.atomic import write_text_atomically

PREFIX = "federation."
_FILE, _DEFAULT = "resources.json", "resources.json.default"


def allow(local_dir: str | Path) -> Path:
    """Let a participant build this package's components in jobs that carry no code.

    NVFlare builds only listed classes unless a job brings code of its own, which a secure
    federation forbids. Run it once at every site and at the server, on the `local` folder of what
    was provisioned.

    Args:
        local_dir: the folder with `resources.json`, or its default.

    Returns:
        The file that was written.

    Raises:
        ValueError: what is there is no mapping.
    """
    folder = Path(local_dir)
    target, default = folder / _FILE, folder / _DEFAULT
    source = target if target.exists() else default
    resources: Any = {"format_version": 2}
    if source.exists():
        resources = json.loads(source.read_text(encoding="utf-8"))
    if not isinstance(resources, dict):
        raise ValueError(f"{source}: expected names and values, got a {type(resources).__name__}")
    listed = list(resources.get(CLASS_ALLOW_LIST, DEFAULT_CLASS_ALLOW_LIST))
    if PREFIX not in listed:
        listed.append(PREFIX)
    resources[CLASS_ALLOW_LIST] = listed
    write_text_atomically(target, json.dumps(resources, indent=2) + "\n")
    return target
