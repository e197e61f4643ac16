"""MONAI's own federated client drives the bundle too, as NVFlare's MONAI examples do."""

from __future__ import annotations

import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject

import bundle

pytestmark = [
    pytest.mark.slow,
    # MONAI says that this client runs what a server gives it; here it is our own folder.
    pytest.mark.filterwarnings("ignore:executing the bundle config:UserWarning"),
]


@pytest.fixture
def algo(tiny):
    settings = {**tiny, "device": torch.device("cpu"), "validation": False}
    made = MonaiAlgo(
        bundle_root=bundle.ROOT,
        local_epochs=1,
        send_weight_diff=True,
        # MonaiAlgo sets max_epochs to those of one round, after which the learning rate would be 0.
        train_kwargs={**settings, "lr_scheduler#total_iters": 10},
        # What it is sent is what it scores; evaluate.json would load a file.
        eval_kwargs={**settings, "validate#handlers": []},
    )
    made.initialize({ExtraItems.CLIENT_NAME: "site-1"})
    yield made
    made.finalize()


def test_it_trains_rounds_sends_differences_and_scores(algo):
    start = {k: v.clone() for k, v in algo.trainer.network.state_dict().items()}
    assert any(key.startswith("network.autoencoder.") for key in start)
    for number in (1, 2):
        algo.train(ExchangeObject(weights=start))
        sent = algo.get_weights()
        assert sent.weight_type == WeightType.WEIGHT_DIFF
        assert set(sent.weights) == set(start)
        assert algo.trainer.state.epoch == number
        moved = [k for k, v in sent.weights.items() if bool(v.any())]
        assert len(moved) > len(start) / 2
        start = {key: value + sent.weights[key] for key, value in start.items()}
    network = {
        key.removeprefix("network."): value
        for key, value in start.items()
        if key.startswith("network.")
    }
    assert len(network) == len(algo.evaluator.network.state_dict())
    found = algo.evaluate(ExchangeObject(weights=network)).metrics
    assert 0 <= found["mean_dice"] <= 1
    for key, value in algo.evaluator.network.state_dict().items():
        torch.testing.assert_close(value, network[key])
