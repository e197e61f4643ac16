from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from bundle.methods.base import Method


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))

    def forward(self, image, present=None):
        return image * self.weight if present is None else image * self.weight * present


def test_backward_uses_the_sum_of_the_terms():
    method = Method(Network())
    weight = method.network.weight
    method.backward({"square": weight**2, "five": 5 * weight})
    assert weight.grad.item() == 2 * 3.0 + 5


def test_forward_is_the_deployed_networks():
    method = Method(Network())
    assert method(torch.tensor(2.0)).item() == 6
    assert method(torch.tensor(2.0), torch.tensor(False)).item() == 0


def test_a_method_without_losses_names_itself():
    class Lazy(Method):
        pass

    with pytest.raises(NotImplementedError, match=r"Lazy must define losses\(batch\)"):
        Lazy(Network()).losses({})


def test_attaching_does_nothing_by_default():
    engine = Engine(lambda engine, batch: None)
    Method(Network()).attach(engine)
    assert engine.run([0], max_epochs=1).iteration == 1
