from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from federation.protocol.stages import Stage
from federation.server import persistor as module
from federation.server.persistor import LAST, PRETRAINED, RESUMES, BundlePersistor
from federation.server.round_log import read_log
from federation.settings import VARIABLE
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.model import ModelLearnableKey, make_model_learnable
from nvflare.app_common.app_event_type import AppEventType

SMALL = {"filters": 4, "blocks_down": [1, 1, 1], "deep_supervision": 2, "channels_last": True}
TRAIN = Stage("train", ["train.json", "federation.yaml"], 2, settings=SMALL).to_dict()
PRETRAIN = Stage(
    "pretrain",
    ["train.json", "pretrain.yaml", "federation.yaml", "federation_pretrain.yaml"],
    2,
    settings=SMALL,
).to_dict()


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Give start(stage, **arguments): a persistor in a new job, and the weights it begins with."""
    (tmp_path / "server.yaml").write_text("state_dir: state\n")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "{site}.yaml"))

    def make(stage=TRAIN, **arguments):
        context = FLContext()
        context.set_prop(FLContextKey.APP_ROOT, str(tmp_path / "app"), private=True, sticky=False)
        persistor = BundlePersistor("fed", stage, **arguments)
        persistor._initialize(context)
        return persistor, persistor.load_model(context)[ModelLearnableKey.WEIGHTS], context

    return make


def commit(persistor, weights, context, number=3):
    """Save the weights, 1 added to each, as a round does."""
    moved = {key: value + 1 for key, value in weights.items()}
    meta = {"current_round": number, "run": "word"}
    persistor.save_model(make_model_learnable(moved, meta), context)
    return moved


def test_the_first_model_is_the_configs_own_in_a_layout_that_travels(start):
    persistor, weights, _ = start()
    assert not persistor.resumed
    assert weights.keys() == persistor.model.state_dict().keys()
    assert all(value.is_contiguous() for value in weights.values())
    again = start()[1]
    assert all(torch.equal(again[key], value) for key, value in weights.items())


def test_a_job_that_resumes_finds_the_last_state_and_another_sets_it_aside(start):
    moved = commit(*start())
    persistor, weights, context = start(resume=True)
    assert persistor.resumed
    assert all(torch.equal(weights[key], value) for key, value in moved.items())
    assert persistor.load_model(context)[ModelLearnableKey.META]["current_round"] == 3
    fresh, weights, _ = start()
    assert not fresh.resumed
    assert not all(torch.equal(weights[key], value) for key, value in moved.items())
    (kept,) = fresh.folder.parent.glob("train.previous.*")
    assert (kept / LAST).is_file()


def test_there_may_be_nothing_to_resume(start, caplog):
    with caplog.at_level(logging.INFO):
        assert not start(resume=True)[0].resumed
    assert "the federation starts at round 0" in caplog.text


def test_a_damaged_last_state_costs_one_round_and_that_is_written_down(start, caplog):
    persistor, weights, context = start()
    for number in range(3):
        weights = commit(persistor, weights, context, number)
    last = persistor.folder / LAST
    content = bytearray(last.read_bytes())
    last.write_bytes(content[: len(content) // 2])
    again, found, _ = start(resume=True)
    assert again.resumed
    # Two rounds of three.
    assert all(torch.equal(found[key] + 1, value) for key, value in weights.items())
    (entry,) = read_log(again.folder / RESUMES)
    assert (entry["rounds"], entry["state"]) == (2, "states/after_0002_rounds.pt")
    assert len(entry["damaged"]) == 2
    assert "the federation goes on from" in caplog.text


def test_a_resume_with_other_settings_is_refused_until_they_are_accepted(start):
    commit(*start())
    changed = {**SMALL, "spacing": [2.0, 2.0, 2.0], "blocks_down": [1, 1, 2]}
    stage = Stage("train", ["train.json", "federation.yaml"], 2, settings=changed)
    with pytest.raises(ValueError, match=r"2 change\(s\): .*--accept_changes") as caught:
        start(stage.to_dict(), resume=True)
    text = str(caught.value)
    assert "network_def#blocks_down: [1, 1, 1], now [1, 1, 2]" in text
    assert "spacing: [1.0, 1.0, 1.0], now [2.0, 2.0, 2.0]" in text
    accepted = replace(stage, settings={**SMALL, "spacing": [2.0, 2.0, 2.0]}, accept_changes=True)
    again, _, _ = start(accepted.to_dict(), resume=True)
    (entry,) = read_log(again.folder / RESUMES)
    assert entry["accepted_changes"] == ["spacing: [1.0, 1.0, 1.0], now [2.0, 2.0, 2.0]"]


def test_what_does_not_change_the_meaning_of_a_state_may_change(start):
    commit(*start())
    stage = Stage("train", ["train.json", "federation.yaml"], 9, 3, {**SMALL, "learning_rate": 0.1})
    again, _, _ = start(stage.to_dict(), resume=True)
    (entry,) = read_log(again.folder / RESUMES)
    assert entry["accepted_changes"] == []


def test_an_evaluation_of_nothing_is_refused(start):
    stage = Stage("train", ["train.json", "federation.yaml"], 0, settings=SMALL).to_dict()
    with pytest.raises(ValueError, match=r"expected a state to score in .* Train the federation"):
        start(stage, resume=True)


def test_a_second_job_of_the_federation_is_refused_and_moves_nothing(start):
    first, weights, context = start()
    commit(first, weights, context)
    other = FLContext()
    other.set_prop(FLContextKey.APP_ROOT, str(first.folder / "app"), private=True, sticky=False)
    other.set_prop(FLContextKey.JOB_META, {"name": "=again\n"}, private=True, sticky=False)
    second = BundlePersistor("fed", TRAIN)
    second._initialize(other)
    assert second._job == "'=again (None)"
    before = sorted(first.folder.parent.rglob("*"))
    with pytest.raises(ValueError, match=r"no other job runs for the federation fed, but a job"):
        second.load_model(other)
    assert sorted(first.folder.parent.rglob("*")) == before
    first.handle_event(EventType.END_RUN, context)
    assert second.load_model(other) is not None
    second.handle_event(EventType.END_RUN, other)


def test_a_round_does_not_begin_where_code_has_changed_on_disk(start, monkeypatch):
    persistor, _, context = start()
    panics = []
    monkeypatch.setattr(persistor, "system_panic", lambda reason, _: panics.append(reason))
    persistor.handle_event(AppEventType.ROUND_STARTED, context)
    assert panics == []

    def changed(_):
        raise ValueError("expected bundle/regions.py as it was when this process started")

    monkeypatch.setattr(module, "check_unchanged", changed)
    persistor.handle_event(AppEventType.ROUND_STARTED, context)
    assert panics == ["expected bundle/regions.py as it was when this process started"]


def test_pretraining_starts_the_part_that_it_has_trained(start):
    first, weights, context = start(PRETRAIN)
    commit(first, weights, context)
    assert "of" in first.export(PRETRAINED)
    pretrained = torch.load(first.folder / PRETRAINED, weights_only=True)
    _, weights, _ = start(pretrained="pretrain")
    inside = {k: v for k, v in weights.items() if k.startswith("network.autoencoder.")}
    assert len(inside) == len(pretrained)
    assert all(torch.equal(inside[f"network.autoencoder.{k}"], v) for k, v in pretrained.items())


def test_without_the_pretraining_it_does_not_start(start):
    with pytest.raises(FileNotFoundError, match="expected pre-trained weights"):
        start(pretrained="pretrain")


def test_a_network_without_a_part_to_start_is_named(start):
    configs = ["train.json", "method_modality_dropout.yaml", "federation_unet.yaml"]
    stage = Stage("train", configs, 2, settings=SMALL).to_dict()
    with pytest.raises(ValueError, match=r"stage train: expected a network with a part.*Leave out"):
        start(stage, pretrained="pretrain")


def test_the_best_is_kept_beside_the_last(start):
    persistor, weights, context = start()
    best = make_model_learnable({k: v + 2 for k, v in weights.items()}, {"current_round": 1})
    persistor.save_best(best, context)
    commit(persistor, weights, context)
    kept = torch.load(persistor.folder / "best_FL_global_model.pt", weights_only=True)["model"]
    key = "network.decoder.levels.1.head.bias"
    assert torch.equal(kept[key], weights[key] + 2)


def test_the_server_needs_no_cases_for_lckd(start):
    configs = ["train.json", "method_lckd.yaml", "federation_lckd.yaml"]
    stage = Stage("train", configs, 1, settings=SMALL).to_dict()
    assert "dice_sums" in start(stage)[1]
