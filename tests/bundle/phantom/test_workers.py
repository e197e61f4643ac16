from __future__ import annotations

import multiprocessing
import os
from types import SimpleNamespace

import pytest

from bundle.phantom import workers
from bundle.phantom.data_set import write_phantom
from bundle.phantom.workers import default_workers, run_all


def test_two_workers_write_the_same_files_as_one(tmp_path, capsys):
    small = {"sections": {"training": 3}, "anatomy": "simple", "size": 24}
    for count in (1, 2):
        write_phantom(tmp_path / str(count), **small, workers=count)
    one, two = (
        {file.name: file.read_bytes() for file in (tmp_path / count).rglob("*") if file.is_file()}
        for count in "12"
    )
    assert len(one) == 16
    assert one == two
    assert "phantom: 100%" in capsys.readouterr().err


def test_what_a_worker_raises_arrives():
    with pytest.raises(NotADirectoryError, match="/dev/null/case"):
        list(run_all(os.mkdir, [("/dev/null/case",), ("/dev/null/other",)], 2))


def test_one_worker_and_a_daemon_stay_in_this_process(monkeypatch):
    monkeypatch.setattr(workers, "ProcessPoolExecutor", lambda *_: pytest.fail("another process"))
    seen = []
    assert list(run_all(seen.append, [(1,), (2,)], 1)) == [None, None]
    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True))
    list(run_all(seen.append, [(3,), (4,)], 2))
    assert seen == [1, 2, 3, 4]


def test_a_number_of_workers_is_refused_by_name():
    with pytest.raises(ValueError, match="workers: expected a whole number from 1 on, got 0"):
        list(run_all(print, [(1,)], 0))
    assert 1 <= default_workers() <= 4
