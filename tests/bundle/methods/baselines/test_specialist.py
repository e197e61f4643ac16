from __future__ import annotations

import pytest
import torch
from torch import nn

from bundle.methods.baselines.specialist import Specialist
from bundle.modalities import BRATS_MODALITIES


class Recorder(nn.Module):
    """A network that notes which modalities it was to see."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen = []

    def deep_logits(self, image, present):
        self.seen.append(present)
        return [self.weight * image[:, :3]]


class FirstLevel(nn.Module):
    def forward(self, logits, label):
        return ((logits[0] - label) ** 2).mean()


@pytest.fixture
def method():
    return Specialist(Recorder(), {"square": FirstLevel()}, BRATS_MODALITIES, "flair+t1")


def batch(present):
    image = torch.full((len(present), 4, 2, 2, 2), 3.0)
    return {
        "image": image,
        "present": torch.tensor(present),
        "label": torch.ones(len(present), 3, 2, 2, 2, dtype=torch.uint8),
    }


def test_every_case_is_seen_with_exactly_the_subset(method):
    losses = method.losses(batch([[True] * 4, [True, False, True, True]]))
    assert method.network.seen[0].tolist() == [[True, False, False, True]] * 2
    assert losses.keys() == {"square"}
    assert losses["square"].item() == 4
    method.backward(losses)
    assert method.network.weight.grad.item() == 2 * 3 * (3 - 1)


def test_a_case_that_lacks_a_part_of_the_subset_is_refused(method):
    with pytest.raises(ValueError, match=r"all of t1\+flair, got others in item \[1\]"):
        method.losses(batch([[True] * 4, [True, True, True, False]]))


def test_an_unknown_modality_is_named():
    with pytest.raises(ValueError, match="unknown modality 'pet'"):
        Specialist(Recorder(), {}, BRATS_MODALITIES, "t1+pet")
