"""Prepares what `nvflare provision` or `nvflare poc prepare` made: `python -m federation.kit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from bundle.atomic import write_text_atomically
from bundle.cli.command import main
from bundle.cli.kinds import PathText
from federation.policy import allow, forbid_code, forbid_reading, keep_logs_home, store_jobs_in
from federation.rules import Rules
from federation.settings import LOCAL_FILE, parse_site

_SERVER_FILE = "startup/fed_server.json"
_PATHS = ("datalist_file", "dataset_dir", "cache_dir", "state_dir")
_RULES = tuple(field.name for field in fields(Rules))
_LISTS = ("jobs", "federations", "methods")
# What a word becomes for each of the settings and rules; null takes a rule away.
_KINDS: Mapping[str, Any] = {
    **dict.fromkeys(_PATHS, PathText),
    **dict.fromkeys(("device", "check", "on_bad_case"), str),
    "num_workers": int,
    "amp": bool,
    "channels_last": bool,
    **{name: kind | None for name, kind in get_type_hints(Rules).items() if name in _RULES},
}


def prepare(
    folder: PathText,
    allow_code: bool = False,
    job_store: PathText | None = None,
    **settings: Any,
) -> None:
    """Prepare a participant's folder for this package, before the participant is started.

    The participant may then build this package's components, and no other class. It refuses jobs
    that bring code. A site keeps its logs to itself, and no coordinator reads its files. Run this
    again to change settings; settings and rules stay, but for those that are given. The file of
    its settings can be read by the user alone who runs this, and who must run NVFlare too.

    Args:
        folder: the participant's, with `startup` and `local` in it.
        allow_code: True = accept jobs that bring code.
        job_store: folder of the server's jobs; default the one of before, at first job_store in the
            participant's folder.
        settings: the participant's own (`federation.settings`): datalist_file, dataset_dir,
            cache_dir, state_dir, device, num_workers, amp, channels_last, check, on_bad_case.
            Default of state_dir: state in the participant's folder. And its rules
            (`federation.rules`): require_private, most_epsilon, delta, least_noise, least_cases,
            least_cases_statistics, least_cases_scores, statistics_of_few, accept_changes, and, with
            commas between the names, jobs, federations, methods; null takes a rule away.

    Raises:
        FileNotFoundError: there is no such participant.
        ValueError: a setting that a site may not set, or a rule that is none; nothing is changed.
    """
    root = Path(folder)
    local = root / "local"
    if not (root / "startup").is_dir():
        raise FileNotFoundError(
            f"expected a participant's folder with 'startup' in it, got {folder}. Make it with "
            "'nvflare provision' or 'nvflare poc prepare' first."
        )
    path = root / LOCAL_FILE
    is_new = not path.exists()
    text = _settings_text(root, path, settings)
    allow(local)
    if not allow_code:
        forbid_code(local)
    if (root / _SERVER_FILE).exists():
        if job_store or is_new:
            store_jobs_in(local, job_store or root / "job_store")
    else:
        keep_logs_home(local)
        forbid_reading(local)
    write_text_atomically(path, text, private=True)
    print(f"prepared {root}: wrote its policies, and its settings in {path.relative_to(root)}")


def _settings_text(root: Path, path: Path, given: Mapping[str, Any]) -> str:
    """Write what goes into the file of settings.

    Raises:
        ValueError: as in `parse_site`, of what was given or of the rules that are there.
    """
    former = _settings_there(path)
    former_rules = former.pop("rules", None) or {}
    # A shell has no word for None.
    given = {key: None if value in ("null", "$None") else value for key, value in given.items()}
    given_rules = {key: given.pop(key) for key in _RULES if key in given}
    rules = {**former_rules, **(given.pop("rules", None) or {}), **given_rules}
    for name in _LISTS:
        if isinstance(rules.get(name), str):
            rules[name] = rules[name].split(",")
        if isinstance(rules.get(name), tuple):
            rules[name] = list(rules[name])
    rules = {key: value for key, value in rules.items() if value is not None}
    paths = {name: str(Path(given[name]).resolve()) for name in _PATHS if given.get(name)}
    values = {**former, **given, **paths}
    # Elsewhere null may mean something: without a cache_dir nothing is kept.
    values["state_dir"] = values.get("state_dir") or str((root / "state").resolve())
    if rules:
        values["rules"] = rules
    parse_site(root.name, values, path)
    return yaml.safe_dump(values, sort_keys=True)


def _settings_there(path: Path) -> dict[str, Any]:
    """Read the settings of a participant that was prepared before; {} = it was not.

    A site that is prepared again keeps them: its privacy account lies in its state_dir.
    """
    former = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    if former is not None and not isinstance(former, Mapping):
        raise ValueError(
            f"{path}: expected names and values, got a {type(former).__name__}. Delete the file, "
            "and give all settings and rules."
        )
    return dict(former or {})


if __name__ == "__main__":
    main(prepare, "python -m federation.kit", _KINDS)
