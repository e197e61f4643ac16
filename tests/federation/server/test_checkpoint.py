from __future__ import annotations

import json
import logging
from collections import OrderedDict

import pytest
import torch
from federation.server.checkpoint import export_model, read_server_state
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_opt.pt.model_persistence_format_manager import PTModelPersistenceFormatManager
from torch import nn

from bundle.training.weights import check_made_for, load_weights

MADE_FOR = {"modalities": ["t1", "t2"], "regions": {"WT": [1]}}


@pytest.fixture
def method():
    torch.manual_seed(0)
    built = nn.Module()
    built.network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    built.teacher = nn.Linear(2, 3)
    return built


@pytest.fixture
def network():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def as_nvflare_writes_it(state, path):
    """What the persistor does to a model that it has received as arrays."""
    manager = PTModelPersistenceFormatManager(OrderedDict(state), {"train": {"model": "Toy"}})
    arrays = {key: value.numpy() for key, value in state.items()}
    manager.update(make_model_learnable(arrays, {"nr_aggregated": 2, "current_round": 1}))
    torch.save(manager.to_persistence_dict(), path)


def test_nvflares_checkpoint_becomes_the_bundles(method, network, tmp_path):
    source, target = tmp_path / "FL_global_model.pt", tmp_path / "models" / "model.pt"
    as_nvflare_writes_it(method.state_dict(), source)
    told = export_model(source, network, target, MADE_FOR, {"prompts": None})
    assert told == "7 of 7 tensors"
    flat = torch.load(target, weights_only=True)
    assert flat.keys() == method.network.state_dict().keys()
    assert all(torch.equal(flat[k], v) for k, v in method.network.state_dict().items())
    fresh = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    load_weights(fresh, str(target))
    assert torch.equal(fresh[0].weight, method.network[0].weight)
    note = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    assert note == {**MADE_FOR, "prompts": None}
    check_made_for(str(target), MADE_FOR)


@pytest.mark.parametrize("prefix", ["network.", ""])
def test_flat_checkpoints_of_a_method_or_a_network_do_too(method, network, tmp_path, prefix):
    source = tmp_path / "state.pt"
    torch.save({prefix + k: v for k, v in method.network.state_dict().items()}, source)
    assert export_model(source, network, tmp_path / "model.pt", MADE_FOR) == "7 of 7 tensors"
    assert torch.equal(network[0].weight, method.network[0].weight)


def test_what_stood_there_is_kept(method, network, tmp_path):
    source, target = tmp_path / "state.pt", tmp_path / "model.pt"
    torch.save(method.state_dict(), source)
    target.write_bytes(b"old")
    export_model(source, network, target, MADE_FOR)
    assert target.with_name("model.pt.previous").read_bytes() == b"old"


@pytest.mark.parametrize("wrong", ["missing", "shape", "more", "nan"])
def test_what_does_not_fit_as_a_whole_is_refused_and_nothing_is_written(
    method, network, tmp_path, wrong
):
    state = dict(method.state_dict())
    if wrong == "missing":
        del state["network.0.weight"]
    elif wrong == "shape":
        state["network.0.weight"] = torch.ones(3, 9)
    elif wrong == "nan":
        state["network.0.weight"] = torch.full((3, 2), torch.nan)
    else:
        state["network.more"] = torch.ones(1)
    source, before = tmp_path / "state.pt", network[0].weight.clone()
    torch.save({"model": state}, source)
    counted = "7 of the network's 7" if wrong == "more" else "6 of the network's 7"
    with pytest.raises(ValueError, match=rf"state.pt: {counted} tensors are there"):
        export_model(source, network, tmp_path / "model.pt", MADE_FOR)
    assert not (tmp_path / "model.pt").exists()
    assert torch.equal(network[0].weight, before)


def test_what_never_left_the_sites_is_warned_of(method, network, tmp_path, caplog):
    source = tmp_path / "state.pt"
    torch.save(method.state_dict(), source)
    with caplog.at_level(logging.WARNING):
        export_model(
            source, network, tmp_path / "model.pt", MADE_FOR, private_parameters=[r"^network\.1\."]
        )
    assert "5 tensors of" in caplog.text
    assert "are as the federation started, '1.weight' for instance" in caplog.text


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected the server's checkpoint in .*none.pt"):
        read_server_state(tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"bad.pt cannot be read as a checkpoint"):
        read_server_state(tmp_path / "bad.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"list.pt: expected a checkpoint, got a list"):
        read_server_state(tmp_path / "list.pt")
    torch.save({"model": {}}, tmp_path / "empty.pt")
    with pytest.raises(ValueError, match=r"empty.pt: expected a state dict, got an empty one"):
        read_server_state(tmp_path / "empty.pt")
    torch.save({"model": {"w": "text"}}, tmp_path / "text.pt")
    with pytest.raises(ValueError, match=r"expected a tensor or an array under 'w', got a str"):
        read_server_state(tmp_path / "text.pt")
