from __future__ import annotations

import logging

import pytest
import torch
from federation.site.state import FILE, SiteState

CONTENT = {"private": {"norm": torch.ones(2)}, "optimizer": {"step": 3}}


def test_a_new_process_goes_on_from_the_file(tmp_path):
    SiteState(tmp_path).save("run", 4, CONTENT)
    found = SiteState(tmp_path).load("run")
    assert found["round"] == 4
    assert torch.equal(found["private"]["norm"], torch.ones(2))
    assert found["optimizer"] == {"step": 3}


def test_nothing_is_nothing(tmp_path):
    assert SiteState(tmp_path / "none").load("run") == {}


def test_another_federations_state_is_kept_and_not_read(tmp_path):
    state = SiteState(tmp_path)
    state.save("old", 4, CONTENT)
    assert state.load("new") == {}
    assert not state.path.exists()
    kept = torch.load(tmp_path / f"{FILE}.previous", weights_only=True)
    assert kept["run"] == "old"


def test_a_damaged_state_is_told_and_not_read(tmp_path, caplog):
    state = SiteState(tmp_path)
    state.save("run", 1, CONTENT)
    state.path.write_bytes(state.path.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        assert state.load("run") == {}
    assert "cannot be read" in caplog.text


def test_a_failed_write_leaves_the_state_before(tmp_path, monkeypatch):
    state = SiteState(tmp_path)
    state.save("run", 1, CONTENT)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bundle.training.files.torch.save", full)
    with pytest.raises(OSError, match="the previous one is intact"):
        state.save("run", 2, CONTENT)
    assert state.load("run")["round"] == 1
