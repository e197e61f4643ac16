from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.handlers import CheckpointLoader
from torch import nn

import bundle
from bundle.networks.masked_autoencoder import MaskedAutoencoder
from bundle.networks.universal import UniversalNetwork
from bundle.training.best import BestModel
from bundle.training.files import save_atomically
from bundle.training.state import TrainingState
from bundle.training.weights import (
    PretrainedLoader,
    WeightsLoader,
    check_made_for,
    load_pretrained,
    load_weights,
)


def test_every_tensor_is_loaded_and_counted(tmp_path, caplog):
    trained, network = nn.Linear(2, 3), nn.Linear(2, 3)
    save_atomically(trained.state_dict(), tmp_path / "model.pt")
    with caplog.at_level(logging.INFO):
        load_weights(network, str(tmp_path / "model.pt"))
    assert torch.equal(network.weight, trained.weight)
    assert "loaded 2 of 2 tensors" in caplog.text


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (nn.Linear(2, 4).state_dict(), "0 of the network's 2 tensors fit; for instance 'bias'"),
        ({"weight": torch.zeros(3, 2)}, "1 of the network's 2 tensors fit; for instance 'bias'"),
        (
            {"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "more": torch.zeros(1)},
            "2 of the network's 2 tensors fit; for instance 'more'",
        ),
        ({"model": nn.Linear(2, 3).state_dict()}, "0 of the network's 2 tensors fit"),
    ],
)
def test_weights_that_do_not_fit_are_refused_as_a_whole(tmp_path, state, message):
    network = nn.Linear(2, 3)
    before = network.weight.clone()
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=message):
        load_weights(network, str(tmp_path / "model.pt"))
    assert torch.equal(network.weight, before)


def test_missing_weights_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"trained weights in .*model\.pt.*--ckpt_dir"):
        load_weights(nn.Linear(2, 3), str(tmp_path / "model.pt"))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_a_file_that_holds_no_weights_is_named(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.pt"):
        load_weights(nn.Linear(2, 3), str(tmp_path / "model.pt"))


def test_the_weights_loader_loads_when_the_engine_starts(tmp_path):
    trained, network = nn.Linear(2, 3), nn.Linear(2, 3)
    save_atomically(trained.state_dict(), tmp_path / "model.pt")
    engine = Engine(lambda engine, batch: None)
    engine.state.device = torch.device("cpu")
    WeightsLoader(str(tmp_path / "model.pt"), network).attach(engine)
    assert not torch.equal(network.weight, trained.weight)
    engine.run([0])
    assert torch.equal(network.weight, trained.weight)


MADE_FOR = {"modalities": ["t1", "t2"], "regions": {"WT": [1, 2], "TC": [1]}, "spacing": [1.0] * 3}


def save_made_for(folder: Path) -> str:
    BestModel(nn.Linear(1, 1), str(folder / "model.pt"), MADE_FOR).save()
    return str(folder / "model.pt")


def test_weights_are_used_for_what_they_were_made_for(tmp_path, caplog):
    path = save_made_for(tmp_path)
    check_made_for(path, MADE_FOR)
    # Whether a saved file is told about depends on what configured the logging before.
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("modalities", ["t2", "t1"]),
        ("regions", {"TC": [1], "WT": [1, 2]}),
        ("spacing", [2.0, 2.0, 2.0]),
    ],
)
def test_weights_made_for_something_else_are_refused(tmp_path, name, other):
    path = save_made_for(tmp_path)
    with pytest.raises(ValueError, match=f"was trained with {name} .* this config has"):
        check_made_for(path, MADE_FOR | {name: other})


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("modalities", ("t1", "t2")),
        ("regions", {"WT": [2, 1], "TC": (1,)}),
        ("spacing", [1, 1, 1]),
        ("spacing", 1),
    ],
)
def test_what_weights_were_made_for_is_compared_as_values(tmp_path, name, same):
    check_made_for(save_made_for(tmp_path), MADE_FOR | {name: same})


def test_weights_that_do_not_say_what_they_were_made_for_are_loaded_with_a_warning(
    tmp_path, caplog
):
    path = save_made_for(tmp_path)
    (tmp_path / "model.json").unlink()
    check_made_for(path, MADE_FOR)
    assert "model.json is missing" in caplog.text


def test_the_note_beside_the_weights_says_what_they_were_made_with_and_is_not_compared(tmp_path):
    made_with = {"prompts": {"source": "random", "seed": 3}}
    best = BestModel(nn.Linear(1, 1), str(tmp_path / "model.pt"), MADE_FOR, made_with)
    best.save()
    note = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert note == MADE_FOR | made_with
    check_made_for(str(tmp_path / "model.pt"), MADE_FOR)


def autoencoder(filters: int = 4, modalities: int = 4) -> MaskedAutoencoder:
    network = MaskedAutoencoder(modalities, filters, blocks_down=(1, 1, 1))
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network


def universal() -> UniversalNetwork:
    return UniversalNetwork(4, 3, filters=4, blocks_down=(1, 1, 1), deep_supervision=2)


def started(loader: PretrainedLoader) -> Engine:
    engine = Engine(lambda engine, batch: None)
    engine.state.device = torch.device("cpu")
    loader.attach(engine)
    engine.run([0])
    return engine


def test_the_autoencoder_starts_from_all_that_was_pretrained(tmp_path, caplog):
    pretrained, network = autoencoder(), universal()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    path, count = str(tmp_path / "pretrained.ckpt"), len(pretrained.state_dict())
    BestModel(pretrained, path, MADE_FOR).save()
    with caplog.at_level(logging.INFO):
        started(PretrainedLoader(path, network.autoencoder, MADE_FOR))
    numbers = sum(value.numel() for value in pretrained.state_dict().values())
    assert f"{count} of the file's {count} tensors fit, {numbers} of {numbers} par" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    for name, value in network.state_dict().items():
        part = name.removeprefix("autoencoder.")
        expected = before[name] if part == name else pretrained.state_dict()[part]
        assert torch.equal(value, expected), name


def test_tensors_that_do_not_fit_stay_and_are_counted_in_a_warning(tmp_path, caplog):
    network = nn.Linear(2, 3)
    bias = network.bias.clone()
    state = {"weight": torch.ones(3, 2), "bias": torch.ones(4), "more": torch.ones(1)}
    save_atomically(state, tmp_path / "pretrained.ckpt")
    load_pretrained(network, str(tmp_path / "pretrained.ckpt"))
    assert bool((network.weight == 1).all())
    assert torch.equal(network.bias, bias)
    assert "1 of the file's 3 tensors fit, 6 of 9 parameters start from" in caplog.text
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_weights_of_which_nothing_fits_are_refused(tmp_path):
    save_atomically(nn.Linear(2, 3).state_dict(), tmp_path / "pretrained.ckpt")
    with pytest.raises(
        ValueError,
        match=r"pretrained\.ckpt: 0 of its 2 tensors fit, 0 of the \d+ .*instance 'weight', the "
        r"part 'stand_in\.tile'\. Pre-train with the same modalities, filters and blocks_down",
    ):
        load_pretrained(autoencoder(), str(tmp_path / "pretrained.ckpt"))


def test_weights_of_a_network_of_another_width_are_refused(tmp_path):
    save_atomically(autoencoder(filters=8).state_dict(), tmp_path / "pretrained.ckpt")
    with pytest.raises(ValueError, match="the same modalities, filters and blocks_down"):
        load_pretrained(autoencoder(), str(tmp_path / "pretrained.ckpt"))


def test_missing_pretrained_weights_say_what_to_do(tmp_path):
    loader = PretrainedLoader(str(tmp_path / "pretrained.ckpt"), nn.Linear(2, 3))
    with pytest.raises(
        FileNotFoundError, match=r"pretrained\.ckpt, .*pretrain\.yaml, or train wit"
    ):
        started(loader)


def test_a_resumed_training_needs_no_pretrained_weights(tmp_path, caplog):
    network, gone = torch.nn.Linear(2, 1), str(tmp_path / "gone.ckpt")
    engine = Engine(lambda engine, batch: None)
    PretrainedLoader(gone, network, resumed=True).attach(engine)
    with caplog.at_level("INFO"):
        engine.run([0])
    assert f"{gone} is not read: the training goes on from its own state" in caplog.text
    config = json.loads((Path(bundle.ROOT) / "configs" / "train.json").read_text())
    (loader,) = (
        part
        for part in config["train"]["handlers"]
        if part["_target_"].endswith("PretrainedLoader")
    )
    parser = ConfigParser({"imports": ["$import os", "$import bundle"], "loader": loader})
    state = tmp_path / "state.ckpt"
    parser.update({"pretrained_file": gone, "pretrained_part": network, "made_for": {}})
    parser.update({"resume": "true", "state_file": str(state)})
    assert not parser.get_parsed_content("loader").resumed
    state.touch()
    parser.parse(True)
    assert parser.get_parsed_content("loader").resumed


def test_pretrained_weights_made_for_something_else_are_refused(tmp_path):
    path = str(tmp_path / "pretrained.ckpt")
    BestModel(autoencoder(), path, {"modalities": ["t1", "t2", "t1ce", "flair"]}).save()
    network = universal()
    before = network.autoencoder.stand_in.tile.clone()
    made_for = {"modalities": ["t1", "t1ce", "t2", "flair"], "regions": {"WT": [1]}}
    with pytest.raises(ValueError, match=r"was trained with modalities .* this config has"):
        started(PretrainedLoader(path, network.autoencoder, made_for))
    assert torch.equal(network.autoencoder.stand_in.tile, before)


RANDOM = "no pretrained_file: training starts from random weights"


def test_without_pretrained_weights_the_log_says_so(caplog):
    with caplog.at_level(logging.INFO):
        started(PretrainedLoader(None, universal().autoencoder))
        started(PretrainedLoader(None, None))
    assert caplog.text.count(RANDOM) == 2


def trainer(network: nn.Module) -> Engine:
    """A trainer with the network under the name that MONAI's trainers give it."""
    engine = Engine(lambda engine, batch: None)
    engine.network, engine.state.device = network, torch.device("cpu")
    return engine


def test_weights_that_somebody_else_loads_are_not_called_random(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    network, trained = nn.Linear(2, 3), nn.Linear(2, 3)
    path = str(tmp_path / "model.pt")
    save_atomically(trained.state_dict(), Path(path))
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    state = TrainingState(str(tmp_path / "state.ckpt"), {"network": network, "optim": optimizer})

    engine = trainer(network)
    PretrainedLoader(None, None).attach(engine)
    state.attach(engine)
    engine.run([0, 0], max_epochs=2)
    assert caplog.text.count(RANDOM) == 1, "once, however many epochs"
    caplog.clear()

    # What a host puts before or behind it: MONAI Label the first of the two.
    for loader in (CheckpointLoader(path, {"model": network}), WeightsLoader(path, network)):
        for order in (1, -1):
            nn.init.normal_(network.weight)
            engine = trainer(network)
            for handler in [loader, PretrainedLoader(None, None)][::order]:
                handler.attach(engine)
            engine.run([0])
            assert torch.equal(network.weight, trained.weight)
    # A resumed training, before its first epoch and after it.
    for epoch in (0, 1):
        nn.init.normal_(network.weight)
        state.save(
            SimpleNamespace(state=SimpleNamespace(epoch=epoch, max_epochs=2, epoch_length=1))
        )
        nn.init.normal_(network.weight)
        engine = trainer(network)
        PretrainedLoader(None, None).attach(engine)
        TrainingState(str(state.path), state.objects, resume=True).attach(engine)
        engine.run([0], max_epochs=2)
    # Weights that were set before the trainer runs, as a round of a federation does.
    engine = trainer(network)
    PretrainedLoader(None, None).attach(engine)
    network.load_state_dict(nn.Linear(2, 3).state_dict())
    engine.run([0])
    assert RANDOM not in caplog.text


def test_pretrained_weights_for_a_network_without_such_a_part_are_refused():
    with pytest.raises(ValueError, match=r"no part that is pre-trained, got a\.ckpt\. Leave --pre"):
        PretrainedLoader("a.ckpt", None)


def test_pretrained_weights_are_loaded_at_the_first_run_alone(tmp_path):
    save_atomically(nn.Linear(2, 3).state_dict(), tmp_path / "pretrained.ckpt")
    network = nn.Linear(2, 3)
    loader = PretrainedLoader(str(tmp_path / "pretrained.ckpt"), network)
    engine = started(loader)
    nn.init.constant_(network.weight, 7)
    engine.run([0])
    assert bool((network.weight == 7).all())
