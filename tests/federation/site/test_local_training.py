"""What a site makes of the configs; what it computes with them is tested by whole federations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from federation.protocol.stages import Stage
from federation.settings import Site
from federation.site.local_training import LocalTraining

import bundle
from bundle.training.engine import epoch_seed

SETTINGS = {"filters": 4, "blocks_down": [1, 1, 1], "deep_supervision": 2}
OVERLAYS = {
    "universal": ["federation.yaml"],
    "pretraining": ["pretrain.yaml", "federation.yaml", "federation_pretrain.yaml"],
}


@pytest.fixture
def open_at(tmp_path):
    """Give open_at(site, method): the training of one of the methods at a site without data."""

    def make(name="A", method="universal"):
        stage = Stage("train", ["train.json", *OVERLAYS[method]], 3, settings=SETTINGS)
        return LocalTraining(stage, Site(name, {"device": "cpu"}), tmp_path / name)

    return make


@pytest.mark.parametrize("method", OVERLAYS)
def test_a_round_has_the_handlers_that_the_configs_leave_in(open_at, method):
    parser = open_at(method=method).parser
    targets = [handler["_target_"].rpartition(".")[2] for handler in parser["train#handlers"]]
    logs = ["StatsHandler", "TensorBoardStatsHandler", "Progress"]
    assert targets == ["EpochSeed", "MethodHandlers", "LrScheduleHandler", *logs]


def test_each_handler_that_is_left_out_is_one_of_the_training():
    """A mistyped name would leave its handler in."""
    config = json.loads((Path(bundle.ROOT) / "configs" / "train.json").read_text("utf-8"))["train"]
    targets = {handler["_target_"] for handler in config["handlers"]}
    assert len(config["not_in_rounds"]) == 4
    assert set(config["not_in_rounds"]) < targets


def test_sites_draw_other_random_numbers(open_at):
    first, other = open_at("A").parser, open_at("B").parser
    assert first["train#handlers"][0]["seed"] == "@epoch_seed"
    # The CRC-32 of the name, as in every version: a resumed federation draws the same.
    assert first["epoch_seed"] == epoch_seed(0, 3554254475)
    assert first["epoch_seed"] != other["epoch_seed"]
