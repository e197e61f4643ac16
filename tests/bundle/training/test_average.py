"""The moving average of the weights: what it is, when it is in the network, and its state."""

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from bundle.training.average import AverageMoved, AverageValidated, WeightAverage
from bundle.training.best import BestModel, FinalModel


def network(value=0.0):
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def train(layer, average, values, epochs=1):
    """Set the weight to each value in turn, as an optimiser would."""

    def step(engine, value):
        nn.init.constant_(layer.weight, value)

    engine = Engine(step)
    AverageMoved(average).attach(engine)
    engine.run(values, max_epochs=epochs)
    return engine


def test_it_is_the_exponential_average_from_the_first_step_on():
    layer = network()
    average = WeightAverage(layer, decay=0.75)
    train(layer, average, [4.0, 8.0, 8.0])
    # 4, then 0.75 * 4 + 0.25 * 8 = 5, then 0.75 * 5 + 0.25 * 8.
    assert average.model.module.weight.item() == pytest.approx(5.75)
    assert layer.weight.item() == 8.0


def test_the_network_has_it_while_it_is_deployed_and_its_own_weights_after():
    layer = network()
    average = WeightAverage(layer, decay=0.5)
    train(layer, average, [2.0, 4.0])
    with average.deployed():
        assert layer.weight.item() == 3.0
    assert layer.weight.item() == 4.0
    with pytest.raises(KeyError), average.deployed():
        raise KeyError
    assert layer.weight.item() == 4.0


def test_without_a_decay_or_a_step_nothing_is_exchanged():
    layer = network(7.0)
    for average in (WeightAverage(layer), WeightAverage(layer, decay=0.9)):
        with average.deployed():
            assert layer.weight.item() == 7.0
    off = WeightAverage(layer)
    train(layer, off, [1.0])
    assert off.model is None


def test_a_validation_sees_and_saves_the_average(tmp_path):
    layer = network()
    average = WeightAverage(layer, decay=0.5)
    train(layer, average, [2.0, 4.0])
    seen = []
    validator = Engine(lambda engine, _: seen.append(layer.weight.item()))
    validator.state.metrics = {"dice": 0.5}
    validator.state.key_metric_name = "dice"
    AverageValidated(average).attach(validator)
    best = BestModel(layer, str(tmp_path / "model.pt"))
    best.attach(validator)
    validator.run([0])
    assert seen == [3.0]
    assert torch.load(tmp_path / "model.pt", weights_only=True)["weight"].item() == 3.0
    assert layer.weight.item() == 4.0


def test_a_validation_that_fails_leaves_the_networks_own_weights():
    layer = network()
    average = WeightAverage(layer, decay=0.5)
    train(layer, average, [2.0, 4.0])

    def fail(engine, _):
        raise RuntimeError("no luck")

    validator = Engine(fail)
    AverageValidated(average).attach(validator)
    with pytest.raises(RuntimeError, match="no luck"):
        validator.run([0])
    assert layer.weight.item() == 4.0


def test_the_last_network_is_the_average(tmp_path):
    layer = network()
    average = WeightAverage(layer, decay=0.5)
    engine = train(layer, average, [2.0, 4.0])
    FinalModel(BestModel(layer, str(tmp_path / "model.pt")), average)(engine)
    assert torch.load(tmp_path / "model.pt", weights_only=True)["weight"].item() == 3.0


def test_a_training_that_goes_on_has_the_average_of_one_that_was_not_stopped():
    whole, layer = network(), network()
    uninterrupted = WeightAverage(whole, decay=0.75)
    train(whole, uninterrupted, [1.0, 2.0, 5.0])
    first = WeightAverage(layer, decay=0.75)
    train(layer, first, [1.0, 2.0])
    second = WeightAverage(layer, decay=0.75)
    second.load_state_dict(first.state_dict())
    train(layer, second, [5.0])
    expected = uninterrupted.model.module.weight
    assert torch.equal(second.model.module.weight, expected)


def test_a_decay_out_of_range_is_refused():
    for decay in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"average_decay: expected 0 \(off\) to below 1"):
            WeightAverage(network(), decay)
