from __future__ import annotations

import json

import pytest
from federation.kit import prepare
from federation.policy import COMPONENTS
from federation.settings import find_site

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


def test_what_is_no_participant_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a participant's folder"):
        prepare(str(tmp_path))
