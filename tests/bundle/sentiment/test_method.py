from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from bundle.methods.gmd.gradients import decouple_gradients
from bundle.modalities import all_subsets, subset_name
from bundle.sentiment import method as feature_regression
from bundle.sentiment.method import FeatureRegression
from bundle.sentiment.network import FeatureRegressor

MODALITIES = ("text", "audio", "vision")
SUBSETS = [subset_name(subset, MODALITIES) for subset in all_subsets(MODALITIES)]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return FeatureRegressor({"text": 6, "audio": 3, "vision": 4}, width=4)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    frames = {
        name: torch.randn(8, 5, count, generator=generator)
        for name, count in (("text", 6), ("audio", 3), ("vision", 4))
    }
    return {
        "frames": frames,
        "valid": {name: torch.ones(8, 5, dtype=torch.bool) for name in frames},
        "present": torch.ones(8, 3, dtype=torch.bool),
        "label": torch.randn(8, generator=generator),
    }


def predict(network, batch, subset, rows=slice(None)):
    """Predict from one subset of some samples, which all have it."""
    frames, valid = ({m: x[rows] for m, x in batch[key].items()} for key in ("frames", "valid"))
    codes = network.encode(frames, valid, batch["present"][rows])
    return network.decode([codes[name] for name in subset.split("+")])


def gradient(method):
    parameters = method.network.parameters()
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


def test_each_subset_has_its_share_of_the_mean_error(network, batch):
    losses = FeatureRegression(network).losses(batch)
    assert list(losses) == SUBSETS
    for name, loss in losses.items():
        error = (predict(network, batch, name) - batch["label"]).abs().mean()
        torch.testing.assert_close(loss, error / 7)


def test_a_sample_joins_only_the_subsets_that_it_can_form(network, batch):
    batch["present"] = torch.tensor([[True, False, False]] * 3 + [[True, True, False]] * 5)
    method = FeatureRegression(network)
    losses = method.losses(batch)
    assert list(losses) == ["text", "audio", "text+audio"]
    both = predict(network, batch, "text+audio", slice(3, None))
    error = (both - batch["label"][3:]).abs().mean()
    torch.testing.assert_close(losses["text+audio"], error / 3)
    method.backward(losses)
    assert all(p.grad is None for p in network.encoders["vision"].parameters())


def test_absent_content_changes_no_loss_and_no_gradient(network, batch):
    batch["present"][::2, 1] = False
    outcomes = []
    for junk in (0.0, float("nan"), float("inf")):
        batch["frames"]["audio"][::2] = junk
        method = FeatureRegression(deepcopy(network))
        torch.manual_seed(0)
        method.backward(method.losses(batch))
        outcomes.append(gradient(method))
    assert bool(outcomes[0].isfinite().all())
    assert torch.equal(outcomes[0], outcomes[1])
    assert torch.equal(outcomes[0], outcomes[2])


def test_it_is_the_shared_function_that_decouples(network, batch, monkeypatch):
    calls = []

    def spy(losses, parameters, **options):
        calls.append((len(losses), len(parameters)))
        return decouple_gradients(losses, parameters, **options)

    monkeypatch.setattr(feature_regression, "decouple_gradients", spy)
    method = FeatureRegression(network)
    method.backward(method.losses(batch))
    assert calls == [(7, len(list(network.parameters())))]
    assert method.pairs == 21


def test_decoupled_is_the_mean_of_the_decoupled_gradients(network, batch):
    # Half of the samples tell one thing by text alone, half the opposite by audio alone.
    batch["present"] = torch.tensor([[True, False, False], [False, True, False]] * 4)
    batch["label"] = torch.tensor([3.0, -3.0] * 4)
    method, other = FeatureRegression(deepcopy(network)), FeatureRegression(deepcopy(network))
    torch.manual_seed(5)
    method.backward(method.losses(batch))
    whole = [2 * loss for loss in other.losses(batch).values()]
    torch.manual_seed(5)
    report = decouple_gradients(whole, list(other.network.parameters()), reduction="mean")
    assert report.conflicts.tolist() == [[False, True], [True, False]]
    assert (method.conflicts, method.pairs) == (1, 1)
    torch.testing.assert_close(gradient(method), gradient(other))
    plain = FeatureRegression(deepcopy(network), decouple=False)
    plain.backward(plain.losses(batch))
    assert not torch.allclose(gradient(method), gradient(plain))
    assert plain.pairs == 0


def test_one_subset_alone_has_nothing_to_be_decoupled_from(network, batch):
    batch["present"][:, 1:] = False
    method, plain = (FeatureRegression(deepcopy(network), decouple=d) for d in (True, False))
    for some in (method, plain):
        losses = some.losses(batch)
        assert list(losses) == ["text"]
        some.backward(losses)
    torch.testing.assert_close(gradient(method), gradient(plain))
    assert method.pairs == 0


def test_a_batch_without_anything_is_refused(network, batch):
    batch["present"][:] = False
    with pytest.raises(ValueError, match="expected a sample with a modality"):
        FeatureRegression(network).losses(batch)
