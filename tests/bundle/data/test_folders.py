from __future__ import annotations

import os

import pytest

from bundle.data.folders import plain_path, walk


def make(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def found(root):
    folders, problems = walk(root)
    assert not problems
    return {str(f.relative_to(root)): names for f, names in folders.items() if names}


def test_links_upwards_and_in_circles_are_not_followed(tmp_path):
    root = tmp_path / "data"
    make(tmp_path, "data/a/x", "data/b/y", "secret/z")
    for link, target in {"a/up": "..", "a/far": "../..", "b/round": ".", "b/other": "../a"}.items():
        (root / link).symlink_to(target, target_is_directory=True)
    (root / "self").symlink_to("self")
    assert found(root) == {".": ["self"], "a": ["x"], "b": ["y"]}


def test_a_shared_store_is_reached_by_its_links_once(tmp_path):
    make(tmp_path, "store/s1/x", "store/s2/y", "data/own/z")
    for link, target in {"p2": "s2", "p1": "s1", "again": "s1"}.items():
        (tmp_path / "data" / link).symlink_to(tmp_path / "store" / target)
    assert found(tmp_path / "data") == {"again": ["x"], "own": ["z"], "p2": ["y"]}
    assert found(tmp_path / "data") == found(tmp_path / "data")


def test_a_stores_link_to_its_own_root_leads_nowhere(tmp_path):
    make(tmp_path, "store/p1/x", "store/p2/y", "data/z")
    (tmp_path / "store/p1/up").symlink_to("..")
    (tmp_path / "data/p1").symlink_to(tmp_path / "store/p1")
    assert found(tmp_path / "data") == {".": ["z"], "p1": ["x"]}


def test_hidden_folders_are_left_out(tmp_path):
    make(tmp_path, "a/x", ".git/annex/y")
    assert found(tmp_path) == {"a": ["x"]}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_told(tmp_path):
    make(tmp_path, "a/x")
    (tmp_path / "a").chmod(0)
    assert "cannot be read" in walk(tmp_path)[1][0]


def test_dots_behind_a_link_mean_the_links_target(tmp_path, monkeypatch):
    make(tmp_path, "store/deep/x", "work/y")
    link = tmp_path / "work" / "link"
    link.symlink_to(tmp_path / "store" / "deep")
    real = tmp_path.resolve()
    assert plain_path(link / "..") == real / "store"
    assert plain_path(link / ".." / "deep") == real / "store" / "deep"
    assert plain_path(link) == link
    monkeypatch.chdir(tmp_path / "work")
    assert plain_path("..") == real
    assert plain_path(".").name == "work"
