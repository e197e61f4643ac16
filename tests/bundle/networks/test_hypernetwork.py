from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bundle.modalities import BRATS_MODALITIES, all_subsets, presence, subset_code
from bundle.networks.hypernetwork import Hypernetwork

EVERY = torch.stack([presence(s, BRATS_MODALITIES) for s in all_subsets(BRATS_MODALITIES)])


def prompts(subsets: int = 15) -> Tensor:
    return torch.randn(subsets, subsets - 1, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def trained() -> Hypernetwork:
    """One with prompts, whose last layer is no longer zero."""
    torch.manual_seed(0)
    network = Hypernetwork(4, outputs=7)
    network.install(prompts())
    torch.nn.init.normal_(network.output.weight)
    torch.nn.init.normal_(network.output.bias)
    return network


@pytest.mark.parametrize("modalities", [2, 3, 4, 8])
def test_at_first_nothing_is_changed_for_any_subset(modalities):
    network = Hypernetwork(modalities, outputs=5, hidden=16)
    network.install(prompts(2**modalities - 1))
    present = torch.eye(modalities, dtype=torch.bool)
    changes = network(torch.cat([present, torch.ones(1, modalities, dtype=torch.bool)]))
    assert torch.equal(changes, torch.zeros(modalities + 1, 5))


def test_each_subset_is_written_from_the_row_of_its_code(trained):
    changes = trained(EVERY)
    for row, code in enumerate(subset_code(EVERY).tolist()):
        prompt = trained.prompts[code - 1]
        torch.testing.assert_close(changes[row], trained.output(_hidden(trained, prompt)))
    assert len({tuple(row) for row in changes.tolist()}) == 15


def _hidden(network: Hypernetwork, prompt: Tensor) -> Tensor:
    return torch.nn.functional.silu(network.hidden(prompt))


def test_a_change_of_one_row_changes_one_subset(trained):
    before = trained(EVERY)
    trained.prompts[8] += 1  # code 9: the first and the fourth modality
    changed = (trained(EVERY) != before).any(1)
    assert EVERY[changed].tolist() == [[True, False, False, True]]


@pytest.mark.parametrize("shape", [(7, 6), (15, 15), (15, 512), (14, 15)])
def test_a_bank_of_another_shape_is_refused(shape):
    network = Hypernetwork(4, outputs=5)
    with pytest.raises(ValueError, match=r"shape \(15, 14\), .*, got \(\d+, \d+\)\. Make a bank"):
        network.install(torch.ones(shape))
    assert not bool(network.prompts.any())


def test_prompts_are_kept_with_the_weights_but_not_learnt(trained):
    other = Hypernetwork(4, outputs=7)
    other.load_state_dict(trained.state_dict())
    assert torch.equal(other(EVERY), trained(EVERY))
    assert "prompts" in trained.state_dict()
    assert "prompts" not in dict(trained.named_parameters())


def test_installing_takes_a_copy(trained):
    bank = prompts()
    trained.install(bank)
    before = trained(EVERY)
    bank.zero_()
    assert torch.equal(trained(EVERY), before)


def test_the_first_step_moves_the_last_layer_and_the_second_all():
    torch.manual_seed(0)
    network = Hypernetwork(4, outputs=5)
    network.install(prompts())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (network(EVERY) - 1).square().sum().backward()
        optimizer.step()
    assert all(bool(p.grad.any()) for p in network.parameters())
