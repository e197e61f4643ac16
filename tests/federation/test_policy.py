from __future__ import annotations

import json

import pytest
from federation.policy import PREFIX, allow, forbid_code, keep_logs_home, store_jobs_in
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST


def listed(path):
    return json.loads(path.read_text())["class_allow_list"]


def test_nvflares_list_is_kept_and_ours_added_once(tmp_path):
    (tmp_path / "resources.json.default").write_text('{"format_version": 2, "client": {"x": 1}}')
    path = allow(tmp_path)
    assert path.name == "resources.json"
    assert listed(path) == [*DEFAULT_CLASS_ALLOW_LIST, PREFIX]
    assert json.loads(path.read_text())["client"] == {"x": 1}
    assert listed(allow(tmp_path)) == [*DEFAULT_CLASS_ALLOW_LIST, PREFIX]


def test_a_sites_own_list_is_respected(tmp_path):
    (tmp_path / "resources.json").write_text('{"class_allow_list": ["a.B"]}')
    assert listed(allow(tmp_path)) == ["a.B", PREFIX]


def test_a_folder_without_any_gets_one(tmp_path):
    assert listed(allow(tmp_path / "local"))[-1] == PREFIX


def test_what_is_no_mapping_is_refused(tmp_path):
    (tmp_path / "resources.json").write_text("[]")
    with pytest.raises(ValueError, match="expected names and values, got a list"):
        allow(tmp_path)


SERVER = {
    "components": [
        {"id": "job_manager", "args": {"uri_root": "/tmp/shared", "job_store_id": "x"}},
        {"id": "other"},
    ],
    "snapshot_persistor": {"args": {"storage": {"args": {"root_dir": "/tmp/shared"}}}},
}
SITE = {"allow_log_streaming": True, "components": [{"id": "site_log_streamer"}, {"id": "other"}]}
RIGHTS = {
    "format_version": "1.0",
    "permissions": {"project_admin": "any", "lead": {"byoc": "any", "submit_job": "any"}},
}


def put(folder, name, content):
    (folder / f"{name}.default").write_text(json.dumps(content))


def test_a_sites_logs_stay_at_home(tmp_path):
    put(tmp_path, "resources.json", SITE)
    content = json.loads(keep_logs_home(tmp_path).read_text())
    assert content["allow_log_streaming"] is False
    assert content["components"] == [{"id": "other"}]


def test_nobody_may_bring_code(tmp_path):
    put(tmp_path, "authorization.json", RIGHTS)
    roles = json.loads(forbid_code(tmp_path).read_text())["permissions"]
    assert {role: rights["byoc"] for role, rights in roles.items()} == {
        "project_admin": "none",
        "lead": "none",
    }
    assert roles["project_admin"]["submit_job"] == "any"
    assert roles["lead"]["submit_job"] == "any"


def test_a_server_has_a_job_store_of_its_own(tmp_path):
    put(tmp_path, "resources.json", SERVER)
    content = json.loads(store_jobs_in(tmp_path, tmp_path / "store").read_text())
    manager, other = content["components"]
    assert manager["args"]["uri_root"] == str(tmp_path / "store" / "jobs")
    assert other == {"id": "other"}
    storage = content["snapshot_persistor"]["args"]["storage"]
    assert storage["args"]["root_dir"] == str(tmp_path / "store" / "snapshots")
