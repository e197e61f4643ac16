"""Prepares what `nvflare provision` or `nvflare poc prepare` made: `python -m federation.kit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fire
import yaml

from bundle.atomic import write_text_atomically
from federation.policy import allow, forbid_code, forbid_reading, keep_logs_home, store_jobs_in
from federation.settings import LOCAL_FILE, read_site

_SERVER_FILE = "startup/fed_server.json"
_PATHS = ("datalist_file", "dataset_dir", "cache_dir", "state_dir")


def prepare(
    folder: str, allow_code: bool = False, job_store: str | None = None, **settings: Any
) -> None:
    """Prepare a participant's folder for this package, before the participant is started.

    The participant may then build this package's components, and no other class. It refuses jobs
    that bring code. A site keeps its logs to itself, and no coordinator reads its files. Run this
    again to change settings.

    Args:
        folder: the participant's, with `startup` and `local` in it.
        allow_code: True = accept jobs that bring code.
        job_store: folder of the server's jobs; default job_store in the participant's folder.
        settings: the participant's own (`federation.settings`): datalist_file, dataset_dir,
            cache_dir, state_dir, device, num_workers, amp, channels_last, check, on_bad_case.
            Default of state_dir: state in the participant's folder.

    Raises:
        FileNotFoundError: there is no such participant.
        ValueError: a setting that a site may not set.
    """
    root = Path(folder)
    local = root / "local"
    if not (root / "startup").is_dir():
        raise FileNotFoundError(
            f"expected a participant's folder with 'startup' in it, got {folder}. Make it with "
            "'nvflare provision' or 'nvflare poc prepare' first."
        )
    allow(local)
    if not allow_code:
        forbid_code(local)
    if (root / _SERVER_FILE).exists():
        store_jobs_in(local, job_store or root / "job_store")
    else:
        keep_logs_home(local)
        forbid_reading(local)
    # A shell has no word for None.
    settings = {
        key: None if value in ("null", "$None") else value for key, value in settings.items()
    }
    for name in _PATHS:
        if settings.get(name):
            settings[name] = str(Path(settings[name]).resolve())
    settings.setdefault("state_dir", str((root / "state").resolve()))
    path = root / LOCAL_FILE
    write_text_atomically(path, yaml.safe_dump(settings, sort_keys=True))
    try:
        read_site(root.name, path)
    except ValueError:
        path.unlink()
        raise
    print(f"prepared {root}: wrote its policies, and its settings in {path.relative_to(root)}")


if __name__ == "__main__":
    fire.Fire(prepare)
