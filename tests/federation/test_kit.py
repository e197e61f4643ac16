from __future__ import annotations

import json
from dataclasses import fields

import pytest
from federation.kit import _KINDS, prepare
from federation.policy import COMPONENTS
from federation.rules import Rules
from federation.settings import IDS, find_site

from bundle.cli.command import run_command

# Rights that nobody has at a site.
TAKEN = ("byoc", "shell_commands", "get_job_log")


def make(folder, server=False):
    (folder / "startup").mkdir(parents=True)
    (folder / "local").mkdir()
    if server:
        (folder / "startup" / "fed_server.json").write_text("{}")
    return folder


def test_a_site_gets_its_settings_and_policies(tmp_path, monkeypatch):
    monkeypatch.delenv("PATCHWORK_SITE", raising=False)
    kit = make(tmp_path / "site-1")
    prepare(str(kit), datalist_file=str(tmp_path / "list.json"), device="cpu", cache_dir="null")
    site = find_site("site-1", kit / "job" / "app")
    assert site.ids == {
        "datalist_file": str(tmp_path / "list.json"),
        "device": "cpu",
        "cache_dir": None,
    }
    assert site.state_dir == kit / "state"
    resources = json.loads((kit / "local" / "resources.json").read_text())
    assert resources["class_allow_list"] == list(COMPONENTS)
    assert resources["allow_log_streaming"] is False
    rights = json.loads((kit / "local" / "authorization.json").read_text())["permissions"]
    taken = {right: rights["project_admin"][right] for right in TAKEN}
    assert taken == dict.fromkeys(TAKEN, "none")
    assert rights["project_admin"]["submit_job"] == "any"


def test_a_server_keeps_its_jobs_to_itself(tmp_path):
    kit = make(tmp_path / "localhost", server=True)
    default = {"components": [{"id": "job_manager", "args": {"uri_root": "/tmp/x"}}]}
    (kit / "local" / "resources.json.default").write_text(json.dumps(default))
    prepare(str(kit), allow_code=True)
    resources = json.loads((kit / "local" / "resources.json").read_text())
    assert resources["components"][0]["args"]["uri_root"] == str(kit / "job_store" / "jobs")
    assert "allow_log_streaming" not in resources
    assert not (kit / "local" / "authorization.json").exists()


def test_a_server_gives_its_log_to_the_administrator_who_may_read_it(tmp_path):
    kit = make(tmp_path / "localhost", server=True)
    prepare(str(kit))
    rights = json.loads((kit / "local" / "authorization.json").read_text())["permissions"]
    assert rights["project_admin"]["get_job_log"] == "any"
    assert rights["project_admin"]["byoc"] == "none"


def test_a_wrong_setting_leaves_no_file(tmp_path):
    kit = make(tmp_path / "site-1")
    with pytest.raises(ValueError, match=r"got \['learning_rate'\]"):
        prepare(str(kit), learning_rate=1)
    assert not (kit / "local" / "patchwork.yaml").exists()


def prepare_by_command(kit, *words):
    return run_command(prepare, [str(kit), *words], "python -m federation.kit", _KINDS)


def test_a_site_writes_its_rules_with_the_command(tmp_path):
    kit = make(tmp_path / "site-1")
    words = ["--require_private", "--most_epsilon=8", "--delta=1e-6", "--least_cases=10"]
    words += ["--jobs=private,my-census", "--federations=glioma", "--methods=universal,lckd"]
    assert prepare_by_command(kit, *words, "--noaccept_changes", "--device=cpu") == 0
    site = find_site("site-1", kit)
    assert site.rules == Rules(
        require_private=True,
        most_epsilon=8.0,
        delta=1e-6,
        least_cases=10,
        jobs=("private", "my-census"),
        federations=("glioma",),
        methods=("universal", "lckd"),
        accept_changes=False,
    )
    assert site.ids == {"device": "cpu"}
    assert (kit / "local" / "patchwork.yaml").stat().st_mode & 0o777 == 0o600


def test_rules_stay_when_a_site_is_prepared_again_and_null_takes_one_away(tmp_path):
    kit = make(tmp_path / "site-1")
    prepare(str(kit), require_private=True, jobs="private", device="cpu")
    prepare(str(kit), least_cases=10, num_workers=2)
    site = find_site("site-1", kit)
    assert site.rules == Rules(require_private=True, jobs=("private",), least_cases=10)
    assert site.ids == {"num_workers": 2, "device": "cpu"}
    prepare(str(kit), jobs="null")
    assert find_site("site-1", kit).rules == Rules(require_private=True, least_cases=10)


def test_a_wrong_rule_changes_nothing(tmp_path):
    kit = make(tmp_path / "site-1")
    prepare(str(kit), require_private=True)
    before = {path: path.read_bytes() for path in (kit / "local").iterdir()}
    with pytest.raises(ValueError, match="least_cases: expected a whole number of at least 1"):
        prepare(str(kit), least_cases=0, allow_code=True)
    assert {path: path.read_bytes() for path in (kit / "local").iterdir()} == before
    (kit / "local" / "patchwork.yaml").write_text("[1]")
    with pytest.raises(ValueError, match=r"got a list\. Delete the file, and give all"):
        prepare(str(kit), device="cpu")


def test_what_is_no_participant_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a participant's folder"):
        prepare(str(tmp_path))


def test_who_is_prepared_again_keeps_where_state_and_account_are(tmp_path, monkeypatch):
    kit = make(tmp_path / "site-1")
    # Written by hand: paths are relative to the file.
    (kit / "local" / "patchwork.yaml").write_text(
        "state_dir: ../own\ndevice: cpu\ncache_dir: null\n"
    )
    monkeypatch.chdir(tmp_path)
    prepare(str(kit), most_epsilon=8)
    site = find_site("site-1", kit)
    assert site.state_dir.resolve() == kit / "own"
    assert site.ids == {"device": "cpu", "cache_dir": None}
    prepare(str(kit), state_dir=str(tmp_path / "other"))
    assert find_site("site-1", kit).state_dir == tmp_path / "other"
    assert find_site("site-1", kit).rules == Rules(most_epsilon=8)


def test_a_server_that_is_prepared_again_keeps_its_jobs_where_they_are(tmp_path):
    kit = make(tmp_path / "localhost", server=True)
    default = {"components": [{"id": "job_manager", "args": {"uri_root": "/tmp/x"}}]}
    (kit / "local" / "resources.json.default").write_text(json.dumps(default))
    for options in ({"job_store": str(tmp_path / "store")}, {}):
        prepare(str(kit), **options)
        resources = json.loads((kit / "local" / "resources.json").read_text())
        assert resources["components"][0]["args"]["uri_root"] == str(tmp_path / "store" / "jobs")


def test_every_setting_and_rule_can_be_given_in_words(tmp_path, capsys):
    assert {*IDS, "state_dir"} | {field.name for field in fields(Rules)} == set(_KINDS)
    kit = make(tmp_path / "site-1")
    words = ["--amp", "false", "--num_workers", "2", "--jobs", "2024_01,1e5", "--device=cuda:0"]
    assert prepare_by_command(kit, *words, "--dataset_dir", str(tmp_path / "2024_01#1")) == 0
    site = find_site("site-1", kit)
    assert site.rules.jobs == ("2024_01", "1e5")
    assert site.ids == {
        "amp": False,
        "num_workers": 2,
        "device": "cuda:0",
        "dataset_dir": str(tmp_path / "2024_01#1"),
    }
    assert prepare_by_command(kit, "--jobs", "null", "--most_epsilon", "null") == 0
    assert find_site("site-1", kit).rules == Rules()
    capsys.readouterr()
    assert prepare_by_command(kit, "--least_cases=ten") == 2
    assert capsys.readouterr().err == (
        "error: federation.kit: least_cases: expected a whole number, got 'ten'. "
        "`python -m federation.kit --help` lists the options.\n"
    )
    assert prepare_by_command(tmp_path / "nobody") == 2
    assert "error: expected a participant's folder" in capsys.readouterr().err
