from __future__ import annotations

import json

import pytest
from federation.policy import PREFIX, allow
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
