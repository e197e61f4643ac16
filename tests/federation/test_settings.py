from __future__ import annotations

import pytest
from federation.settings import VARIABLE, find_site, read_site


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
