from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bundle.training.best import BestModel
from bundle.training.weights import load_weights


def validated(metric: float, epoch: int) -> SimpleNamespace:
    state = SimpleNamespace(metrics={"dice": metric}, key_metric_name="dice", epoch=epoch)
    return SimpleNamespace(state=state)


def saved_by(metrics: list[float], folder: Path) -> tuple[BestModel, float]:
    """Validate once per metric; return the handler and the weight that is on disk."""
    network = nn.Linear(1, 1)
    best = BestModel(network, str(folder / "model.pt"))
    for epoch, metric in enumerate(metrics, 1):
        nn.init.constant_(network.weight, epoch)
        best(validated(metric, epoch))
    return best, torch.load(folder / "model.pt", weights_only=True)["weight"].item()


@pytest.mark.parametrize(
    ("metrics", "epoch"),
    [([0.2, 0.5, 0.4], 2), ([0.5, 0.5], 1), ([0.0], 1), ([0.1, 0.2, 0.3], 3)],
)
def test_only_a_better_network_replaces_the_best(tmp_path, metrics, epoch):
    best, weight = saved_by(metrics, tmp_path)
    assert best.state_dict() == {"metric": max(metrics), "epoch": epoch}
    assert weight == epoch


def test_a_metric_that_is_no_number_is_never_the_best(tmp_path):
    best, weight = saved_by([0.5, float("nan"), 0.4], tmp_path)
    assert best.state_dict() == {"metric": 0.5, "epoch": 1}
    assert weight == 1


def test_the_best_network_is_a_flat_state_dict(tmp_path):
    saved_by([0.5], tmp_path)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert list(state) == ["weight", "bias"]
    load_weights(nn.Linear(1, 1), str(tmp_path / "model.pt"))


def test_the_former_best_holds_after_resuming(tmp_path):
    best = BestModel(nn.Linear(1, 1), str(tmp_path / "model.pt"))
    (tmp_path / "model.pt").write_bytes(b"epoch 7")
    best.load_state_dict({"metric": 0.5, "epoch": 7})
    best(validated(0.4, 8))
    assert (tmp_path / "model.pt").read_bytes() == b"epoch 7"
    best(validated(0.6, 9))
    assert best.state_dict() == {"metric": 0.6, "epoch": 9}
    assert not (tmp_path / "model.pt.previous").exists()


def test_a_best_network_that_is_gone_is_not_waited_for(tmp_path, caplog):
    best = BestModel(nn.Linear(1, 1), str(tmp_path / "model.pt"))
    best.load_state_dict({"metric": 0.5, "epoch": 7})
    assert "model.pt is gone" in caplog.text
    best(validated(0.4, 8))
    assert best.state_dict() == {"metric": 0.4, "epoch": 8}
