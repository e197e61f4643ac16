from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path

import pytest
import torch
from federation.site.state import ANEW, FILE, RunWords, SiteState

CONTENT = {"private": {"norm": torch.ones(2)}, "optimizer": {"step": 3}}


def test_a_new_process_goes_on_from_the_file(tmp_path):
    SiteState(tmp_path).save("run", 4, CONTENT)
    found = SiteState(tmp_path).load("run")
    assert found["round"] == 4
    assert torch.equal(found["private"]["norm"], torch.ones(2))
    assert found["optimizer"] == {"step": 3}


def test_nothing_is_nothing(tmp_path):
    assert SiteState(tmp_path / "none").load("run") == {}


def test_another_federations_states_are_kept_and_not_read(tmp_path):
    state = SiteState(tmp_path)
    for number in range(5):
        state.save(f"run {number}", number, CONTENT)
        assert state.load("new") == {}
        assert not state.path.exists()
    kept = sorted(tmp_path.glob(f"{FILE}.previous.2*"))
    assert [torch.load(path, weights_only=True)["run"] for path in kept] == [
        "run 2",
        "run 3",
        "run 4",
    ]
    assert len(list(tmp_path.iterdir())) == 3


def test_each_stage_keeps_its_first_word():
    words = RunWords()
    first, second = "0" * 32, "1" * 32
    assert [words.check("pretrain", first), words.check("train", second)] == [first, second]
    assert words.check("pretrain", first) == first
    with pytest.raises(ValueError, match="has changed within one job, in stage pretrain"):
        words.check("pretrain", second)
    # What was refused is not remembered.
    assert words.check("pretrain", first) == first


@pytest.mark.parametrize("word", ["", "word", "A" * 32, "0" * 31, "0" * 33, "é" * 32, None, 7])
def test_what_is_no_word_is_refused(word):
    words = RunWords()
    with pytest.raises(ValueError, match="32 of 0-9 and a-f, got"):
        words.check("train", word)
    assert words.check("train", "a" * 32)


DAMAGES = {
    "a flipped bit": lambda b: b[:200] + bytes([b[200] ^ 4]) + b[201:],
    "a flipped bit in a tensor": lambda b: flipped(b, b.index(b"\x00\x00\x80\x3f" * 2)),
    "truncated": lambda b: b[:100],
    "empty": lambda b: b"",
    "a text": lambda b: b"hello\n",
    "a list": lambda b: pickle.dumps([1, 2]),
    "no name of its run, but a pickle": lambda b: pickle.dumps({"private": Path}),
}


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_set_aside_and_told_and_training_goes_on(tmp_path, caplog, damage):
    state, taken = SiteState(tmp_path), []
    state.save("run", 1, CONTENT)
    bad = DAMAGES[damage](state.path.read_bytes())
    state.path.write_bytes(bad)
    with caplog.at_level(logging.ERROR):
        assert state.give_to(taken.append, "run") == [ANEW]
    assert taken == []
    assert "started anew" in caplog.text
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith(f"{FILE}.damaged.20")
    assert kept.read_bytes() == bad
    # From now on all is well.
    state.save("run", 2, CONTENT)
    assert state.give_to(taken.append, "run") == []
    assert [content["round"] for content in taken] == [2]


@pytest.mark.parametrize("run", [None, 3, torch.ones(2), ["run"]])
def test_a_checkpoint_without_the_word_of_its_run_is_damaged_not_anothers(tmp_path, run):
    state = SiteState(tmp_path)
    state.save(run, 1, CONTENT)
    assert state.give_to(lambda _: None, "run") == [ANEW]
    assert [path.name.split(".")[2] for path in tmp_path.iterdir()] == ["damaged"]


def test_a_state_that_does_not_fit_is_set_aside_too(tmp_path):
    def refuse(content):
        raise ValueError("expected this method's private tensors, got others")

    state = SiteState(tmp_path)
    state.save("run", 1, CONTENT)
    assert state.give_to(refuse, "run") == [ANEW]
    assert [path.name.rpartition(".")[0] for path in tmp_path.iterdir()] == [f"{FILE}.damaged"]


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_the_state_is_for_its_owner_alone(tmp_path):
    state = SiteState(tmp_path / "fed" / "train")
    state.save("run", 1, CONTENT)
    modes = [p.stat().st_mode & 0o777 for p in (state.path, tmp_path / "fed" / "train")]
    assert modes == [0o600, 0o700]


def test_a_failed_write_leaves_the_state_before(tmp_path, monkeypatch):
    state = SiteState(tmp_path)
    state.save("run", 1, CONTENT)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bundle.training.files.torch.save", full)
    with pytest.raises(OSError, match="the previous one is intact"):
        state.save("run", 2, CONTENT)
    assert state.load("run")["round"] == 1
