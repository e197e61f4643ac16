from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bundle.atomic import write_text_atomically, written_atomically


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


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def mode(path):
    return path.stat().st_mode & 0o777


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
@pytest.mark.parametrize(("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_the_umask_decides_who_may_read(tmp_path, mask, file, folder):
    path = tmp_path / "a" / "b.json"
    with umask(mask):
        write_text_atomically(path, "one")
    assert (mode(path), mode(path.parent)) == (file, folder)


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_a_private_file_is_for_its_owner_alone_whatever_the_umask(tmp_path):
    path = tmp_path / "a" / "b" / "c.json"
    with umask(0):
        write_text_atomically(path, "one", private=True)
        write_text_atomically(path, "two", private=True)
        write_text_atomically(tmp_path / "d.json", "open")
    assert [mode(p) for p in (path, path.parent, path.parent.parent)] == [0o600, 0o700, 0o700]
    assert mode(tmp_path / "d.json") == 0o666
    assert path.read_text() == "two"


def test_it_is_never_readable_by_others_while_it_is_written(tmp_path):
    with umask(0), written_atomically(tmp_path / "a", private=True) as file:
        assert os.fstat(file.fileno()).st_mode & 0o077 == 0


def test_file_and_folders_are_on_disk_before_the_writer_goes_on(tmp_path, monkeypatch):
    """What a power cut leaves cannot be tested; that the system was told to write can."""
    told = []
    replace, sync = os.replace, os.fsync

    def note_sync(handle):
        told.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        sync(handle)

    def note_replace(*names):
        told.append("rename")
        replace(*names)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_text_atomically(tmp_path / "new" / "b.json", "one")
    # The new folder's name, too, is lost without its parent's sync.
    assert told == ["folder", "file", "rename", "folder"]


@pytest.mark.parametrize("name", ["P\udce4t", "\ud800"])
def test_a_letter_that_utf8_lacks_is_written_as_an_escape(tmp_path, name):
    write_text_atomically(tmp_path / "a.csv", f"{name},1\n")
    assert (tmp_path / "a.csv").read_bytes() == f"{ascii(name)[1:-1]},1\n".encode()
