from __future__ import annotations

import os

import pytest

from bundle.atomic import write_text_atomically


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    write_text_atomically(tmp_path / "a" / "b.json", "one")
    write_text_atomically(tmp_path / "a" / "b.json", "two")
    assert (tmp_path / "a" / "b.json").read_text() == "two"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "b.json"
    write_text_atomically(path, "old")

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_text_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["b.json"]
