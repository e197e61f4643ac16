from __future__ import annotations

import json
import os

import pytest
import torch
from federation.server.states import FIRST_CONTRIBUTIONS, LAST, States, set_aside_stage


@pytest.fixture
def states(tmp_path):
    """States after 0 to 5 rounds; B came in with the fourth."""
    made = States(tmp_path / "train")
    for rounds in range(6):
        made.save(content(rounds), rounds, ["A", "B"] if rounds >= 4 else ["A"] * bool(rounds))
    return made


def content(rounds):
    return {"model": {"w": torch.full((3,), float(rounds))}, "meta_props": about(rounds)}


def about(rounds):
    return {"current_round": rounds - 1}


def names(states):
    return sorted(path.name for path in states.states.glob("*.pt"))


def test_the_last_three_stay_and_one_from_before_each_sites_first_contribution(states):
    kept = [f"after_000{rounds}_rounds.pt" for rounds in (0, 3, 4, 5)]
    assert names(states) == kept
    assert states.first_contributions() == {"A": kept[0], "B": kept[1]}
    assert json.loads((states.states / FIRST_CONTRIBUTIONS).read_text())["B"] == kept[1]


def test_the_newest_is_what_comes_back(states):
    found = states.newest()
    assert (found.rounds, found.path, found.set_aside) == (5, states.last, {})
    assert torch.equal(found.content["model"]["w"], torch.full((3,), 5.0))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-200])


def text(path):
    path.write_text("not a state")


def listed(path):
    torch.save([1, 2], path)


def without_round(path):
    torch.save({"model": {"w": torch.ones(3)}}, path)


def not_finite(path):
    torch.save({"model": {"w": torch.full((3,), torch.nan)}, "meta_props": about(5)}, path)


@pytest.mark.parametrize("damage", [truncated, text, listed, without_round, not_finite])
def test_damaged_ones_are_set_aside_and_the_newest_whole_one_is_found(states, damage):
    damage(states.last)
    found = states.newest()
    assert found.rounds == 4
    assert torch.equal(
        torch.load(states.last, weights_only=True)["model"]["w"], torch.full((3,), 4)
    )
    assert any(name.startswith("FL_global_model.pt.") for name in found.set_aside)
    assert all(".damaged." in name for name in found.set_aside)
    assert all((states.folder / name).is_file() for name in found.set_aside)
    assert "after_0005_rounds.pt" not in names(states)


def test_where_nothing_is_whole_nothing_starts_anew_in_silence(states):
    for path in [*states.states.glob("*.pt"), states.last]:
        path.unlink()
        path.write_text("gone")
    with pytest.raises(
        ValueError, match=r"found damaged ones alone: .*Copy one back from a backup"
    ):
        states.newest()


def test_where_nothing_ever_was_there_is_none(tmp_path):
    assert States(tmp_path).newest() is None


def test_a_folder_of_a_version_without_states_goes_on(tmp_path):
    torch.save(content(7), tmp_path / LAST)
    assert States(tmp_path).newest().rounds == 7


def test_one_can_go_back_behind_a_sites_first_contribution(states):
    before = states.states / states.first_contributions()["B"]
    states.last.unlink()
    states.last.write_bytes(before.read_bytes())
    assert states.newest().rounds == 3
    states.save(content(4), 4, ["A"])
    assert names(states) == [f"after_000{rounds}_rounds.pt" for rounds in (0, 3, 4)]
    assert torch.equal(states.newest().content["model"]["w"], torch.full((3,), 4.0))


def test_a_disk_that_is_full_leaves_the_states_of_before(states, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        OSError, match=r"could not write the checkpoint .*after_0006.*No space left"
    ):
        states.save(content(6), 6)
    assert states.newest().rounds == 5


def test_a_disk_without_second_names_takes_copies(states, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    states.save(content(6), 6)
    assert states.newest().rounds == 6


def test_what_earlier_federations_left_is_kept_three_times(tmp_path):
    stage = tmp_path / "train"
    kept = []
    for number in range(5):
        stage.mkdir(exist_ok=True)
        (stage / "number").write_text(str(number))
        kept.append(set_aside_stage(stage))
    there = sorted(tmp_path.glob("train.previous.*"))
    assert sorted(kept[-3:]) == there
    assert sorted((path / "number").read_text() for path in there) == ["2", "3", "4"]
    assert set_aside_stage(stage) is None
