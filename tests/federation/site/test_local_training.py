"""What a site makes of the configs; what it computes with them is tested by whole federations."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from federation.protocol.changes import ChangesRefused
from federation.protocol.stages import Stage
from federation.rules import Rules
from federation.settings import Site
from federation.site.local_training import LocalTraining
from torch.utils.data import DataLoader

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
    logs = ["StatsHandler", "TensorBoardStatsHandler", "Progress", "TrainingCensus"]
    assert targets == ["EpochSeed", "MethodHandlers", "LrScheduleHandler", *logs]


def test_each_handler_that_is_left_out_is_one_of_the_training():
    """A mistyped name would leave its handler in."""
    config = json.loads((Path(bundle.ROOT) / "configs" / "train.json").read_text("utf-8"))["train"]
    targets = {handler["_target_"] for handler in config["handlers"]}
    assert len(config["not_in_rounds"]) == 5
    assert set(config["not_in_rounds"]) < targets


def test_sites_draw_other_random_numbers(open_at):
    first, other = open_at("A").parser, open_at("B").parser
    assert first["train#handlers"][0]["seed"] == "@epoch_seed"
    # The CRC-32 of the name, as in every version: a resumed federation draws the same.
    assert first["epoch_seed"] == epoch_seed(0, 3554254475)
    assert first["epoch_seed"] != other["epoch_seed"]


def stepped(training):
    """Take a step of the optimiser, so that there is something to keep; return the kept state."""
    optimizer, _ = (training.parser.get_parsed_content(n) for n in ("optimizer", "lr_scheduler"))
    for value in training.method.parameters():
        value.grad = torch.ones_like(value)
    optimizer.step()
    return copy.deepcopy(training.own_state())


def same(one, other):
    """Compare two states."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_a_training_goes_on_from_what_another_process_kept(open_at):
    kept = stepped(open_at())
    training = open_at()
    training.take_up(kept)
    assert same(training.own_state(), kept)
    assert kept["private"]
    assert kept["optimizer"]["state"]
    training.take_up({})
    assert same(training.own_state(), kept)


def test_the_rates_are_those_of_the_job_that_goes_on(open_at):
    kept = stepped(open_at())
    kept["optimizer"]["param_groups"][0].update(lr=9.0, weight_decay=math.nan)
    training = open_at()
    training.take_up(kept)
    (group,) = training.parser.get_parsed_content("optimizer").param_groups
    assert (group["lr"], group["weight_decay"]) == (1e-3, 1e-5)


@pytest.mark.parametrize("allowed", [True, False])
def test_a_site_goes_on_with_a_change_where_job_and_site_accept_it(open_at, caplog, allowed):
    kept, training = stepped(open_at()), open_at()
    kept["made_with"]["settings"]["spacing"] = [2.0, 2.0, 2.0]
    line = r"spacing: \[2.0, 2.0, 2.0\], now \[1.0, 1.0, 1.0\]"
    with pytest.raises(ChangesRefused, match=line):
        training.take_up(kept)
    training.stage = dataclasses.replace(training.stage, accept_changes=True)
    training.site = dataclasses.replace(training.site, rules=Rules(accept_changes=allowed))
    if allowed:
        training.take_up(kept)
        assert "the site goes on with a change: spacing" in caplog.text
        assert same(training.own_state()["private"], kept["private"])
    else:
        with pytest.raises(ChangesRefused, match="this site takes no changes"):
            training.take_up(kept)


def first(values):
    return next(iter(values))


# What a file can hold that can be read, and is no state of this training.
UNFIT = {
    "private is a list": lambda kept: kept.update(private=[1, 2]),
    "private is missing": lambda kept: kept.pop("private"),
    "a private tensor is missing": lambda kept: kept["private"].popitem(),
    "a private tensor too many": lambda kept: kept["private"].update(more=torch.ones(1)),
    "a private tensor is a number": lambda kept: change(kept["private"], 1.0),
    "a private tensor is of another shape": lambda kept: change(kept["private"], torch.ones(7)),
    "a private tensor is not finite": lambda kept: first(kept["private"].values()).fill_(math.nan),
    "the optimiser is missing": lambda kept: kept.pop("optimizer"),
    "the optimiser is a text": lambda kept: kept.update(optimizer="adam"),
    "its state is a list": lambda kept: kept["optimizer"].update(state=[1]),
    "its groups are missing": lambda kept: kept["optimizer"].pop("param_groups"),
    "its groups are others": lambda kept: kept["optimizer"]["param_groups"][0]["params"].pop(),
    "it knows another parameter": lambda kept: kept["optimizer"]["state"].update({10**6: {}}),
    "it knows a named parameter": lambda kept: kept["optimizer"]["state"].update(weight={}),
    "a moment is a list": lambda kept: kept["optimizer"]["state"].update({0: [1]}),
    "a moment is of another shape": lambda kept: moment(kept).update(exp_avg=torch.ones(7)),
    "a moment is a number": lambda kept: moment(kept).update(exp_avg=1.0),
    "a moment is not finite": lambda kept: moment(kept)["exp_avg"].fill_(math.inf),
    "the steps are a text": lambda kept: moment(kept).update(step="3"),
    "the steps are not finite": lambda kept: moment(kept).update(step=torch.tensor(math.nan)),
    "the steps are many": lambda kept: moment(kept).update(step=torch.ones(2)),
}


def change(values, value):
    values[first(values)] = value


def moment(kept):
    return kept["optimizer"]["state"][0]


def test_what_does_not_fit_is_refused_as_a_whole(open_at):
    whole, training = stepped(open_at()), open_at()
    # The schedule, once it is built, leaves a note in the optimiser.
    training.parser.get_parsed_content("lr_scheduler")
    before = copy.deepcopy(training.own_state())
    for name, damage in UNFIT.items():
        kept = copy.deepcopy(whole)
        damage(kept)
        with pytest.raises(ValueError, match=r"expected|has no parameter"):
            training.take_up(kept)
        assert same(training.own_state(), before), name


def item(number, modalities):
    return {"case": f"c{number}", "image": dict.fromkeys(modalities, "x.nii")}


def test_cases_of_a_rare_combination_are_not_counted(open_at, monkeypatch):
    """With six complete cases and one without FLAIR, two sums of T1 differ by that one alone."""
    training = open_at()
    whole, part = ("t1", "t1ce", "t2", "flair"), ("t1", "t1ce", "t2")
    cases = [item(number, part if number in (0, 3) else whole) for number in range(8)]
    monkeypatch.setattr(training, "_get", lambda _: cases)
    assert training.countable(1) == list(range(8))
    assert training.countable(2) == list(range(8))
    assert training.countable(3) == training.countable(6) == [1, 2, 4, 5, 6, 7]
    assert training.countable(7) == []


def test_only_the_cases_that_may_leave_are_given_to_the_method(open_at, monkeypatch):
    training = open_at()
    loader = DataLoader(list(range(10, 18)), batch_size=2, collate_fn=list)
    engine = SimpleNamespace(state=SimpleNamespace(epoch=0, device="cpu"), data_loader=loader)
    monkeypatch.setattr(LocalTraining, "engine", engine)
    monkeypatch.setattr(LocalTraining, "all_cases", 8)
    given = []

    def add(batches, device):
        given.append((batches is loader, [case for batch in batches for case in batch]))
        return True

    monkeypatch.setattr(training.method, "add_statistics", add)
    monkeypatch.setattr(training, "_get", lambda _: [])
    assert training.count_statistics([0, 3, 7])
    assert training.count_statistics(range(8))
    assert given == [(False, [10, 13, 17]), (True, list(range(10, 18)))]
