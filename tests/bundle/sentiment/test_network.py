from __future__ import annotations

import pytest
import torch

from bundle.modalities import all_subsets, presence
from bundle.sentiment.network import FeatureRegressor

FEATURES = {"text": 6, "audio": 3, "vision": 4}
MODALITIES = tuple(FEATURES)
FRAMES = {"text": 5, "audio": 8, "vision": 7}


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


@pytest.mark.parametrize("junk", [1e6, float("nan"), float("inf")])
def test_what_the_padding_holds_changes_nothing(network, frames, valid, junk):
    other = {
        name: some.masked_fill(~valid[name][:, :, None], junk) for name, some in frames.items()
    }
    assert torch.equal(network(other, valid), network(frames, valid))


def test_how_much_padding_there_is_changes_nothing(network, frames, valid):
    longer = {name: torch.nn.functional.pad(x, (0, 0, 3, 4), value=7) for name, x in frames.items()}
    marks = {name: torch.nn.functional.pad(x, (3, 4)) for name, x in valid.items()}
    torch.testing.assert_close(network(longer, marks), network(frames, valid))
    assert network(frames, valid).shape == (3,)


@pytest.mark.parametrize("junk", [1e6, float("nan"), float("inf")])
def test_what_an_absent_modality_holds_changes_nothing(network, frames, valid, junk):
    for subset in all_subsets(MODALITIES)[:-1]:
        present = presence(subset, MODALITIES).expand(3, 3)
        other = {m: x if m in subset else torch.full_like(x, junk) for m, x in frames.items()}
        assert torch.equal(network(other, valid, present), network(frames, valid, present))


def test_a_present_modality_does_count(network, frames, valid):
    for name in MODALITIES:
        other = {**frames, name: frames[name] + 1}
        assert not torch.isclose(network(other, valid), network(frames, valid)).any()


def test_a_frame_that_counts_does_count(network, frames, valid):
    other = {**frames, "audio": frames["audio"].clone()}
    other["audio"][1, 4] += 1  # the last of five
    changed = ~torch.isclose(network(other, valid), network(frames, valid))
    assert changed.tolist() == [False, True, False]


def test_presence_is_each_samples_own(network, frames, valid):
    present = torch.tensor([[True, False, True], [False, True, False], [True, True, True]])

    def one(row):
        rows = slice(row, row + 1)
        return network(
            {name: x[rows] for name, x in frames.items()},
            {name: x[rows] for name, x in valid.items()},
            present[rows],
        )

    alone = torch.cat([one(row) for row in range(3)])
    torch.testing.assert_close(network(frames, valid, present), alone)


def test_absent_branches_are_not_computed(network, frames, valid):
    rows = []
    for name, encoder in network.encoders.items():
        encoder.register_forward_hook(lambda m, i, o, name=name: rows.append((name, len(o))))
    network(frames, valid, torch.tensor([[True, False, True]] * 2 + [[True, False, False]]))
    assert rows == [("text", 3), ("vision", 2)]


def test_without_presence_what_has_frames_is_present(network, frames, valid):
    valid["audio"][1] = False
    present = torch.ones(3, 3, dtype=torch.bool)
    present[1, 1] = False
    assert torch.equal(network(frames, valid), network(frames, valid, present))


def test_the_fusion_is_the_mean_of_what_is_kept(network, frames, valid):
    present = torch.ones(3, 3, dtype=torch.bool)
    codes = network.encode(frames, valid, present)
    text, _, vision = codes.values()
    expected = network.head((text + vision) / 2).squeeze(1)
    keep = presence(("text", "vision"), MODALITIES).expand(3, 3)
    torch.testing.assert_close(network.decode(list(codes.values()), keep), expected)
    torch.testing.assert_close(network.decode([text, vision]), expected)


def test_nothing_to_predict_from_is_refused(network, frames, valid):
    with pytest.raises(ValueError, match="at least one present modality"):
        network(frames, valid, torch.zeros(3, 3, dtype=torch.bool))
    valid["audio"][1] = False
    with pytest.raises(ValueError, match="each with frames that count"):
        network(frames, valid, torch.ones(3, 3, dtype=torch.bool))
