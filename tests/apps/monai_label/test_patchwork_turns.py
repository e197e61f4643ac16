from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading

import pytest


@pytest.fixture
def turns(app_code, tmp_path, monkeypatch):
    """Give turns(): who comes first, as another process of the app would open it."""
    monkeypatch.setattr(sys.modules["patchwork_turns"], "POLL_SECONDS", 0.01)
    return lambda: app_code.Turns(tmp_path / "readers.lock")


def test_scoring_waits_until_the_last_reader_is_done(turns, caplog):
    server, scoring = turns(), turns()
    assert scoring.wait_for_readers() < 1
    waiter = threading.Thread(target=scoring.wait_for_readers)
    with caplog.at_level(logging.INFO), server.reading():
        with server.reading():
            waiter.start()
            waiter.join(0.05)
            assert waiter.is_alive()
        waiter.join(0.05)
        assert waiter.is_alive(), "one of two is still there"
    waiter.join(10)
    assert not waiter.is_alive()
    assert caplog.text.count("somebody's segmentation comes first") == 1


def test_readers_wait_neither_for_each_other_nor_for_scoring(turns):
    with turns().reading(), turns().reading():
        pass
    scoring = turns()
    scoring.wait_for_readers()
    with turns().reading():
        pass


def test_a_reader_that_fails_is_done(turns):
    server = turns()
    with pytest.raises(ZeroDivisionError), server.reading():
        1 / 0  # noqa: B018, what is wrong with a case
    assert turns().wait_for_readers() < 1


def test_a_reader_whose_process_died_keeps_nobody(turns, app_code, tmp_path):
    code = "import sys, os; from filelock import FileLock; FileLock(sys.argv[1]).acquire(); "
    command = [sys.executable, "-c", code + "os._exit(1)", str(tmp_path / "readers.lock")]
    assert subprocess.run(command).returncode == 1
    assert turns().wait_for_readers() < 1


@pytest.mark.skipif(sys.platform != "linux", reason="a priority is a thread's on Linux alone")
def test_a_background_process_steps_back_and_the_server_does_not(app_code, monkeypatch):
    turns = sys.modules["patchwork_turns"]
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "setpriority", lambda which, who, value: asked.append((who, value)))
    assert turns.step_back()
    assert (threading.get_native_id(), 19) in asked
    asked.clear()
    monkeypatch.setitem(sys.modules, turns.SERVER, turns)
    assert not turns.step_back()
    assert not asked
