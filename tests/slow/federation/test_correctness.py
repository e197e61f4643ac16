"""What a federation computes, on the real configs: against central training, and byte for byte."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from federation.protocol.exchange import Kind
from federation.protocol.messages import read_facts
from federation.rules import Rules
from federation.site.local_training import LocalTraining
from federation.site.patient_names import identifiers
from federation.site.sums import WITHHELD

from bundle.data.datalist import load_datalist
from bundle.modalities import BRATS_MODALITIES

pytestmark = pytest.mark.slow

PLAIN = ["method_modality_dropout.yaml", "federation_plain.yaml"]
UNIVERSAL = ["federation.yaml"]
PRETRAIN = ["pretrain.yaml", "federation.yaml", "federation_pretrain.yaml"]
PATCHES = {"patch": 8, "descriptor_patch": 4}


def same_bytes(one, other):
    return one.dtype == other.dtype and one.numpy().tobytes() == other.numpy().tobytes()


def moved_keys(before, after):
    return {key for key in before if not same_bytes(before[key], after[key])}


@pytest.fixture
def one_sgd_step(monkeypatch):
    """Make an epoch one SGD step on all cases at once, without anything random.

    The loss is cross-entropy alone: a Dice that is taken over a batch is no mean over its cases, so
    with it no average of sites can equal the step on the union.
    """
    usual = LocalTraining._overrides
    exact = {
        "amp": False,
        "channels_last": False,
        "train#random_transforms": [],
        "train#dataloader": {
            "_target_": "DataLoader",
            "dataset": "@train#dataset",
            "batch_size": 99,
        },
        "roi_size": [32, 32, 32],
        "criteria": {
            "cross_entropy": {
                "_target_": "DeepSupervisionLoss",
                "loss": {"_target_": "torch.nn.BCEWithLogitsLoss"},
            }
        },
        "optimizer": {
            "_target_": "torch.optim.SGD",
            "params": "$@method.parameters()",
            "lr": 1.0,
        },
        "train#trainer#iteration_update#clip_norm": None,
        # All volumes at full size, so that they form one batch.
        "train#deterministic_transforms#2": {"_target_": "Identityd", "keys": ["image"]},
    }
    monkeypatch.setattr(
        LocalTraining,
        "_overrides",
        staticmethod(lambda *given: {**usual(*given), **exact}),
    )


def test_one_round_of_one_step_is_a_central_step_on_the_union(
    one_sgd_step, stage, share, federate, tmp_path
):
    # Cases of one modality each: a random subset of one is that one.
    fedavg = stage("train", PLAIN, rounds=1)
    sites = [share("a", [0], ["t2"]), share("b", [1, 2], ["t2"]), share("c", [3], ["t2"])]
    federation = federate(fedavg, sites)
    start = federation.round()
    assert federation.refusals == {}
    central = LocalTraining(fedavg, share("all", [0, 1, 2, 3], ["t2"]), tmp_path / "central")
    assert central.all_cases == 4
    central.load_global(start)
    central.train(0)
    for key, value in central.method.state_dict().items():
        torch.testing.assert_close(federation.state[key], value, atol=1e-5, rtol=0)
    step = max(float((federation.state[k] - start[k]).abs().max()) for k in start)
    assert step > 1e-3, "a step too small to tell anything"


def test_the_federated_bank_is_the_pooled_bank(one_sgd_step, stage, share, federate, tmp_path):
    pretrain = stage("pretrain", PRETRAIN, **PATCHES)
    parts = {"a": [0], "b": [1, 2], "c": [3]}
    owns = {"a": ["t1", "flair"], "b": ["t1ce", "t2"], "c": ["t2"]}
    federation = federate(pretrain, [share(n, parts[n], owns[n]) for n in parts], half=True)
    before = federation.round()
    assert federation.counted == ["a", "b", "c"]
    pooled = {key: torch.zeros_like(v) for key, v in before.items() if ".bank." in key}
    for name in parts:
        alone = LocalTraining(pretrain, share(name, parts[name], owns[name]), tmp_path / name)
        assert alone.count_statistics(alone.countable(1))
        for key in pooled:
            pooled[key] += alone.method.state_dict()[key]
    assert len(pooled) == 4
    for key, value in pooled.items():
        torch.testing.assert_close(federation.state[key], value, rtol=1e-9, atol=1e-9)
    diagonal = federation.state["distribution.bank.counts"].diagonal()
    assert bool((diagonal > 0).all()), "each modality is known, though no site has all"
    # Nothing else has moved, and the sums are not added again.
    assert moved_keys(before, federation.state) == set(pooled)
    federation.round()
    assert federation.counted == ["a", "b", "c"]
    for key, value in pooled.items():
        torch.testing.assert_close(federation.state[key], value, rtol=1e-9, atol=1e-9)


def test_a_site_without_flair_gets_flair_supervision(stage, share, federate):
    pretrain = stage("pretrain", PRETRAIN, **PATCHES)
    federation = federate(pretrain, [share("a", [0, 1]), share("b", [2, 3], ["t2"])])
    federation.round()
    federation.round()
    assert federation.refusals == {}
    output = federation.clients["b"]._current[1].engine.state.output
    assert output["marginal"] > 0
    assert output["conditional"] > 0


def test_an_absent_encoder_is_untouched_and_a_sole_holder_moves_its_own(stage, share, federate):
    train = stage("train", UNIVERSAL)
    sites = [share("a", [0, 1], ["t1", "t2"]), share("b", [2, 3], ["t2", "flair"])]
    federation = federate(train, sites)
    before = federation.round()
    assert federation.refusals == {}
    after, parts = federation.state, federation.clients["a"]._current[1].exchange.parts
    own = {name: c._current[1].method.state_dict() for name, c in federation.clients.items()}
    by_modality = {
        name: [k for k, p in parts.items() if p.modality == i and p.kind == Kind.PARAMETER]
        for i, name in enumerate(BRATS_MODALITIES)
    }
    assert all(len(keys) > 5 for keys in by_modality.values())
    # t1ce is held nowhere: it stays, byte for byte, globally and at the sites.
    for key in by_modality["t1ce"]:
        assert same_bytes(after[key], before[key])
        assert all(same_bytes(state[key], before[key]) for state in own.values())
    # t1 is a's alone: it moves by exactly a's update; b, who sees by it, has not touched it.
    for key in by_modality["t1"]:
        update = own["a"][key] - before[key]
        assert same_bytes(after[key], before[key] + update)
        assert same_bytes(own["b"][key], before[key])
    assert moved_keys(before, own["a"]) & set(by_modality["t1"])
    # t2 is both's: the mean by cases, here of equal ones.
    for key in by_modality["t2"]:
        mean = (own["a"][key].double() + own["b"][key].double()) / 2
        torch.testing.assert_close(after[key].double(), mean, atol=1e-7, rtol=0)
    report = Path(federation.aggregator.report_dir, "round_0000.json").read_text()
    assert '"unheld": [\n    "t1ce"\n  ]' in report


def test_private_parameters_and_patients_are_in_no_message(stage, share, federate):
    train = stage("train", ["federation.yaml", "federation_personalised.yaml"])
    site = share("a", [0, 1])
    federation = federate(train, [site, share("b", [2, 3])])
    federation.round()
    federation.round()
    assert federation.refusals == {}
    training = federation.clients["a"]._current[1]
    state = training.method.state_dict()
    private = [k for k, p in training.exchange.parts.items() if p.kind == Kind.PRIVATE]
    norms = [k for k in private if k.startswith("network.decoder.")]
    assert norms
    assert any(k.startswith("teacher.") for k in private)
    message = federation.sent["a"]
    assert b"network.decoder.levels.0.upsample.deconv.weight" in message
    for key in private:
        assert key.encode() not in message
    values = [k for k in norms if state[k].numel() >= 4 and bool((state[k] != 1).all())]
    assert values
    for key in values:
        assert state[key].numpy().tobytes() not in message
    names = identifiers(load_datalist(site.ids["datalist_file"], BRATS_MODALITIES))
    assert len(names) >= 4
    # Not by `find_names`, which looks for paths, too: bytes of a tensor may read as one by chance.
    assert [name for name in names if name.encode() in message] == []
    # What is private has gone its own way at each site.
    other = federation.clients["b"]._current[1].method.state_dict()
    assert any(not torch.equal(state[key], other[key]) for key in norms)
    assert not moved_keys(
        {k: federation.persistor.model.state_dict()[k] for k in norms},
        {k: federation.state[k] for k in norms},
    )


def test_a_new_process_for_each_task_changes_nothing(stage, share, federate):
    train = stage("train", ["federation.yaml", "federation_personalised.yaml"], rounds=3)
    site, states = share("a", [0, 1]), []
    for restart in (False, True):
        shutil.rmtree(site.state_dir, ignore_errors=True)
        federation = federate(train, [site])
        for _ in range(3):
            if restart:
                federation.clients["a"] = federation.client(site)
            federation.round()
        assert federation.refusals == {}
        states.append(federation.clients["a"]._current[1].method.state_dict())
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


def test_a_resumed_job_with_more_rounds_goes_on_learning(stage, share, federate):
    site = share("a", [0, 1])
    first = federate(stage("train", UNIVERSAL, rounds=1), [site])
    first.round()
    # The schedule of one round has come to its end, and the site has kept the optimiser.
    ended = first.clients["a"]._current[1]._get("optimizer").param_groups[0]["lr"]
    assert ended == 0
    resumed = federate(stage("train", UNIVERSAL, rounds=4), [site])
    resumed.state, resumed.number = first.state, 1
    before = resumed.round()
    assert resumed.refusals == {}
    training = resumed.clients["a"]._current[1]
    assert len(training._get("optimizer").state) > 0
    key = "network.decoder.levels.0.upsample.deconv.weight"
    assert float((resumed.state[key] - before[key]).abs().max()) > 1e-4


def test_a_site_that_withholds_its_statistics_pretrains_with_those_of_the_others(
    stage, share, federate
):
    pretrain = stage("pretrain", PRETRAIN, rounds=4, **PATCHES)
    shy = dataclasses.replace(share("b", [2, 3]), rules=Rules())
    federation = federate(pretrain, [share("a", [0, 1]), shy])
    federation.round()
    assert federation.counted == ["a"]
    alone = {key: value.clone() for key, value in federation.state.items() if ".bank." in key}
    federation.round()
    before = federation.round()
    assert federation.refusals == {}
    # The bank stays that of the other site, and both have trained.
    for key, value in alone.items():
        assert torch.equal(federation.state[key], value)
    moved = [not torch.equal(federation.state[k], before[k]) for k in before if ".bank." not in k]
    assert any(moved)
    notes = read_facts(federation.clients["b"].answer("pretrain", federation.message()))["notes"]
    assert notes == [WITHHELD]


def test_where_every_site_withholds_them_each_pretrains_with_its_own(stage, share, federate):
    pretrain = stage("pretrain", PRETRAIN, rounds=3, **PATCHES)
    shy = [
        dataclasses.replace(share(n, [i, i + 1]), rules=Rules()) for i, n in ((0, "a"), (2, "b"))
    ]
    federation = federate(pretrain, shy)
    start = federation.round()
    assert all(torch.equal(federation.state[key], start[key]) for key in start)
    federation.round()
    assert federation.refusals == {}
    assert not any(federation.state[key].any() for key in start if ".bank." in key)
    assert any(not torch.equal(federation.state[key], start[key]) for key in start)


def test_pretraining_goes_on_where_nobody_owns_a_modality(stage, share, federate, caplog):
    pretrain = stage("pretrain", PRETRAIN, rounds=4, **PATCHES)
    sites = [share("a", [0, 1], ["t1", "t2"]), share("b", [2, 3], ["t2", "flair"])]
    federation = federate(pretrain, sites)
    federation.round()
    before = federation.round()
    assert federation.refusals == {}
    assert "t1ce" in caplog.text
    moved = moved_keys(before, federation.state)
    assert any(".branches.0." in key for key in moved)
    assert not any(".branches.1." in key for key in moved)
    # Who has it may come later: its sums are added, and it is trained from then on.
    late = share("c", [0], ["t1ce", "t2"])
    federation.clients["c"] = federation.client(late)
    before = federation.round()
    assert federation.refusals == {}
    assert federation.counted == ["a", "b", "c"]
    counts = federation.state["distribution.bank.counts"].diagonal()
    assert bool((counts > 0).all())
    assert any(".branches.1." in key for key in moved_keys(before, federation.state))
