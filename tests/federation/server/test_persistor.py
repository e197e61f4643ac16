from __future__ import annotations

import logging

import pytest
import torch
from federation.protocol.stages import Stage
from federation.server.persistor import LAST, PRETRAINED, BundlePersistor
from federation.settings import VARIABLE
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.model import ModelLearnableKey, make_model_learnable

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
    assert (fresh.folder.parent / "train.previous" / LAST).is_file()


def test_there_may_be_nothing_to_resume(start, caplog):
    with caplog.at_level(logging.INFO):
        assert not start(resume=True)[0].resumed
    assert "the federation starts at round 0" in caplog.text


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
