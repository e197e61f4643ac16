from __future__ import annotations

import contextlib
import importlib
import json
import pkgutil
import re
from pathlib import Path
from types import SimpleNamespace

import federation
import pytest
from federation.policy import COMPONENTS, allow, forbid_code, keep_logs_home, store_jobs_in
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.app_common.widgets.component_path_authorizer import ComponentPathAuthorizer

import bundle


def listed(path):
    return json.loads(path.read_text())["class_allow_list"]


@pytest.fixture
def authorize(tmp_path):
    """Give authorize(path): ask NVFlare's own authorizer, which reads what `allow` has written."""
    written = allow(tmp_path)
    workspace = SimpleNamespace(get_resources_file_path=lambda: str(written))
    authorizer = ComponentPathAuthorizer()
    return lambda path: authorizer.authorize_component_config({"path": path}, workspace=workspace)


def reachable():
    """Name everything that can be read off a module of ours by a dotted path."""
    names = set()
    for package in (bundle, federation):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith("__main__"):
                continue
            module = importlib.import_module(found.name)
            names |= {f"{found.name}.{name}" for name in vars(module)}
    return sorted(names)


def test_of_all_that_our_modules_hold_the_components_alone_are_allowed(authorize):
    ours = {name for name in COMPONENTS if name.startswith("federation.")}
    names = reachable()
    # It would run any command that a job names.
    assert "federation.site.executor.ClientAPIExecutor" in names
    assert "federation.kit.prepare" in names
    assert ours < set(names)
    allowed = set()
    for name in names:
        with contextlib.suppress(UnsafeComponentError):
            authorize(name)
            allowed.add(name)
    assert allowed == ours
    assert len(names) > 1000


def test_of_nvflares_own_classes_those_alone_are_allowed_that_a_job_of_ours_names(authorize):
    named = set()
    for path in (Path(bundle.ROOT) / "jobs").rglob("config_fed_*.json"):
        named |= set(re.findall(r'"path": "([^"]+)"', path.read_text(encoding="utf-8")))
    assert named == set(COMPONENTS)
    others = set(DEFAULT_CLASS_ALLOW_LIST) - named
    assert len(others) > 50
    for name in others:
        with pytest.raises(UnsafeComponentError, match="is not in allow_list"):
            authorize(name)


def test_the_rest_of_the_file_stays_and_doing_it_twice_changes_nothing(tmp_path):
    (tmp_path / "resources.json.default").write_text('{"format_version": 2, "client": {"x": 1}}')
    path = allow(tmp_path)
    assert path.name == "resources.json"
    content = json.loads(path.read_text())
    assert content["client"] == {"x": 1}
    assert content["class_list_enforcement_mode"] == "enforce"
    assert listed(allow(tmp_path)) == listed(path) == list(COMPONENTS)


def test_what_version_0_3_allowed_is_taken_back(tmp_path):
    former = [*DEFAULT_CLASS_ALLOW_LIST, "federation."]
    content = {"class_allow_list": former, "class_list_enforcement_mode": "warn"}
    (tmp_path / "resources.json").write_text(json.dumps(content))
    path = allow(tmp_path)
    assert listed(path) == list(COMPONENTS)
    assert json.loads(path.read_text())["class_list_enforcement_mode"] == "enforce"


def test_a_sites_own_list_is_respected(tmp_path):
    (tmp_path / "resources.json").write_text('{"class_allow_list": ["a.B"]}')
    assert listed(allow(tmp_path)) == ["a.B", *COMPONENTS]


@pytest.mark.parametrize("entry", ["*", "os.", "nvflare.app_common."])
def test_a_list_that_lets_a_job_run_any_command_is_refused(tmp_path, entry):
    (tmp_path / "resources.json").write_text(json.dumps({"class_allow_list": ["a.B", entry]}))
    with pytest.raises(ValueError, match=re.escape(f"to name classes in full, got ['{entry}']")):
        allow(tmp_path)


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
