from __future__ import annotations

import pytest
import torch

from bundle.modalities import all_subsets
from bundle.sentiment.network import FeatureRegressor

FEATURES = {"text": 6, "audio": 3, "vision": 4}
MODALITIES = tuple(FEATURES)
FRAMES = {"text": 5, "audio": 8, "vision": 7}
COMPLETE = torch.ones(3, 3, dtype=torch.bool)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return FeatureRegressor(FEATURES, width=16).eval()


@pytest.fixture
def frames():
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(3, FRAMES[name], count, generator=generator)
        for name, count in FEATURES.items()
    }


@pytest.fixture
def valid():
    lengths = torch.tensor([2, 5, 4])
    return {name: torch.arange(count) < lengths[:, None] for name, count in FRAMES.items()}


def predict(network, frames, valid, subset=MODALITIES):
    codes = network.encode(frames, valid, COMPLETE)
    return network.decode([codes[name] for name in subset])


@pytest.mark.parametrize("junk", [1e6, float("nan"), float("inf")])
def test_what_the_padding_holds_changes_nothing(network, frames, valid, junk):
    other = {
        name: some.masked_fill(~valid[name][:, :, None], junk) for name, some in frames.items()
    }
    assert torch.equal(predict(network, other, valid), predict(network, frames, valid))


def test_how_much_padding_there_is_changes_nothing(network, frames, valid):
    longer = {name: torch.nn.functional.pad(x, (0, 0, 3, 4), value=7) for name, x in frames.items()}
    marks = {name: torch.nn.functional.pad(x, (3, 4)) for name, x in valid.items()}
    expected = predict(network, frames, valid)
    torch.testing.assert_close(predict(network, longer, marks), expected)
    assert expected.shape == (3,)


@pytest.mark.parametrize("junk", [1e6, float("nan"), float("inf")])
def test_what_an_absent_modality_holds_changes_nothing(network, frames, valid, junk):
    codes = network.encode(frames, valid, COMPLETE)
    for subset in all_subsets(MODALITIES)[:-1]:
        present = torch.tensor([name in subset for name in MODALITIES]).expand(3, 3)
        other = {m: x if m in subset else torch.full_like(x, junk) for m, x in frames.items()}
        found = network.encode(other, valid, present)
        for name, code in found.items():
            assert torch.equal(code, codes[name] if name in subset else torch.zeros(3, 16))


def test_a_modality_that_is_given_does_count(network, frames, valid):
    for name in MODALITIES:
        other = {**frames, name: frames[name] + 1}
        changed = ~torch.isclose(predict(network, other, valid), predict(network, frames, valid))
        assert bool(changed.all())


def test_a_frame_that_counts_does_count(network, frames, valid):
    other = {**frames, "audio": frames["audio"].clone()}
    other["audio"][1, 4] += 1  # the last of five
    changed = ~torch.isclose(predict(network, other, valid), predict(network, frames, valid))
    assert changed.tolist() == [False, True, False]


def test_presence_is_each_samples_own_and_absent_branches_are_not_computed(network, frames, valid):
    rows = []
    for name, encoder in network.encoders.items():
        encoder.register_forward_hook(lambda m, i, o, name=name: rows.append((name, len(o))))
    present = torch.tensor([[True, False, True], [True, False, True], [True, False, False]])
    found = network.encode(frames, valid, present)
    assert rows == [("text", 3), ("vision", 2)]
    for index, (name, code) in enumerate(network.encode(frames, valid, COMPLETE).items()):
        expected = code.masked_fill(~present[:, index, None], 0)
        torch.testing.assert_close(found[name], expected)


def test_the_fusion_is_the_mean_of_what_is_given(network, frames, valid):
    text, _, vision = network.encode(frames, valid, COMPLETE).values()
    expected = network.head((text + vision) / 2).squeeze(1)
    torch.testing.assert_close(network.decode([text, vision]), expected)
