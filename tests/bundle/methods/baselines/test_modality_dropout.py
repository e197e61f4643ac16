from __future__ import annotations

import pytest
import torch
from torch import nn

from bundle.methods.baselines.modality_dropout import ModalityDropout
from bundle.networks.unet import UNet


class Recorder(nn.Module):
    """A network that notes which modalities it was to see."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def deep_logits(self, image, present):
        self.seen.append(present)
        return [image[:, :3]]


def seeded_losses(method, batch):
    torch.manual_seed(3)
    return method.losses(batch)


@pytest.fixture
def batch(batch):
    return batch(torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1]], dtype=torch.bool), side=8)


@pytest.fixture
def method(criteria):
    torch.manual_seed(0)
    return ModalityDropout(
        UNet(4, 3, filters=4, blocks_down=(1, 1, 1), deep_supervision=2), criteria
    )


def test_losses_are_one_finite_scalar_a_criterion(method, batch):
    losses = method.losses(batch)
    assert list(losses) == ["dice", "cross_entropy"]
    for term in losses.values():
        assert term.shape == ()
        assert term.dtype == torch.float32
        assert bool(term.isfinite())


def test_the_sum_of_the_losses_reaches_every_parameter(method, batch):
    method.backward(method.losses(batch))
    gradients = {name: p.grad for name, p in method.named_parameters()}
    # A level's head has a gradient only where it is supervised; here every level is.
    assert [name for name, grad in gradients.items() if grad is None] == []
    assert all(bool(grad.isfinite().all()) for grad in gradients.values())


def test_a_step_down_the_gradient_lowers_the_loss_of_the_same_subsets(method, batch):
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05)
    before = seeded_losses(method, batch)
    method.backward(before)
    optimizer.step()
    assert sum(seeded_losses(method, batch).values()) < sum(before.values())


def test_each_case_keeps_a_random_subset_of_its_own_present_modalities(criteria, batch):
    method = ModalityDropout(Recorder(), criteria)
    torch.manual_seed(0)
    for _ in range(200):
        method.losses(batch)
    seen = torch.stack(method.network.seen)
    assert bool(seen.any(2).all())
    assert not bool((seen & ~batch["present"]).any())
    assert len({tuple(row) for row in seen[:, 0].tolist()}) == 15
    assert len({tuple(row) for row in seen[:, 1].tolist()}) == 3


def test_the_global_seed_fixes_the_draws(criteria, batch):
    method = ModalityDropout(Recorder(), criteria)
    for _ in range(2):
        torch.manual_seed(7)
        for _ in range(10):
            method.losses(batch)
    first, second = method.network.seen[:10], method.network.seen[10:]
    assert torch.equal(torch.stack(first), torch.stack(second))


def test_the_voxels_of_an_absent_modality_change_no_loss(method, batch):
    junk = batch["image"].clone()
    junk[~batch["present"]] = 1e6
    expected = seeded_losses(method, batch)
    for name, term in seeded_losses(method, {**batch, "image": junk}).items():
        assert torch.equal(term, expected[name])


def test_the_deployed_networks_weights_are_apart_from_the_criteria(method):
    assert set(method.network.state_dict()) == {
        name.removeprefix("network.") for name in method.state_dict()
    }
