from __future__ import annotations

from pathlib import Path

import pytest
from federation.rules import Rules
from federation.settings import VARIABLE, Site, find_site, read_site


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def test_paths_are_relative_to_the_file(tmp_path):
    file = tmp_path / "a" / "site.yaml"
    file.parent.mkdir()
    file.write_text("datalist_file: data/list.json\nstate_dir: ../state\ncache_dir: null\n")
    site = read_site("hospital", file)
    assert site.ids == {"datalist_file": str(tmp_path / "a/data/list.json"), "cache_dir": None}
    assert site.state_dir.resolve() == tmp_path / "state"
    assert site.name == "hospital"


def test_the_environment_names_a_file_for_each_site(tmp_path, monkeypatch):
    (tmp_path / "b.yaml").write_text("device: cpu\n")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "{site}.yaml"))
    assert find_site("b").ids == {"device": "cpu"}
    with pytest.raises(FileNotFoundError, match=r"c: expected its settings in .*c\.yaml"):
        find_site("c")


def test_else_it_lies_beside_nvflares_own_settings(tmp_path):
    local, run = tmp_path / "site-1" / "local", tmp_path / "site-1" / "job" / "app"
    local.mkdir(parents=True)
    run.mkdir(parents=True)
    (local / "patchwork.yaml").write_text("num_workers: 2\n")
    assert find_site("site-1", run).ids == {"num_workers": 2}


def test_without_a_file_the_configs_defaults_hold(tmp_path):
    site = find_site("x", tmp_path)
    assert (site.ids, site.state_dir) == ({}, None)


def test_a_site_may_not_change_the_training(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("learning_rate: 9\nexchange: {}\n")
    with pytest.raises(ValueError, match=r"a site may set .*got \['exchange', 'learning_rate'\]"):
        read_site("x", file)
    file.write_text("- 1\n")
    with pytest.raises(ValueError, match="expected names and values, got a list"):
        read_site("x", file)


def test_a_site_has_rules_of_its_own(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("rules:\n  require_private: true\n  jobs: [private]\n")
    assert read_site("x", file).rules == Rules(require_private=True, jobs=("private",))
    file.write_text("rules:\n  require_privat: true\n")
    with pytest.raises(ValueError, match=r"s.yaml: rules: expected rules of .*'require_privat'"):
        read_site("x", file)
    assert find_site("x", tmp_path / "elsewhere").rules == Rules()


def test_a_job_brings_no_settings_along(tmp_path):
    """NVFlare unpacks a job into RUN/app_SITE, and writes fl_app.txt beside it."""
    app = tmp_path / "site-1" / "job" / "app_site-1"
    for folder in (app, app / "deeper", app.parent):
        (folder / "local").mkdir(parents=True)
        (folder / "local" / "patchwork.yaml").write_text("state_dir: of_the_job\n")
        # A second mark does not move the border.
        (folder / "fl_app.txt").write_text("app")
    for start in (app, app / "deeper", app.parent):
        assert find_site("site-1", start) == Site("site-1", {})
    (tmp_path / "site-1" / "local").mkdir()
    (tmp_path / "site-1" / "local" / "patchwork.yaml").write_text("state_dir: /state\n")
    for start in (app, app / "deeper", app.parent, app.parent.parent):
        assert find_site("site-1", start).state_dir == Path("/state")
