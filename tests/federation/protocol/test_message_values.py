from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from federation.protocol.message_values import alike, as_state, as_tensor


@pytest.mark.parametrize("value", [torch.ones(2), np.ones(2, np.float32)])
def test_a_tensor_and_an_array_come_out_as_one_tensor_that_shares_its_memory(value):
    tensor = as_tensor(value)
    assert torch.equal(tensor, torch.ones(2))
    tensor[0] = 5
    assert value[0] == 5


def test_a_tensor_comes_without_its_gradient():
    assert not as_tensor(torch.ones(2, requires_grad=True)).requires_grad


def test_a_number_of_numpys_keeps_its_type():
    tensor = as_tensor(np.float64(2.5))
    assert (tensor.dtype, tensor.shape, float(tensor)) == (torch.float64, (), 2.5)


def test_a_reference_to_a_tensor_on_disk_is_followed():
    reference = SimpleNamespace(materialize=lambda: np.arange(3))
    assert as_tensor(reference).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "value",
    [None, "text", 3, [1.0], torch.ones(2).to_sparse(), np.array(["a"]), np.array([object()])],
)
def test_everything_else_is_no_tensor(value):
    assert as_tensor(value) is None


def test_a_tensor_is_written_as_its_model_is():
    tensor = torch.ones(2)
    assert isinstance(alike(tensor, np.zeros(2)), np.ndarray)
    assert isinstance(alike(torch.ones(()), np.float32(0)), np.ndarray)
    assert alike(tensor, torch.zeros(2)) is tensor


def test_a_state_holds_tensors_alone_and_the_first_other_value_is_named():
    state = as_state({"a": np.ones(1), "b": torch.ones(1)}, "the update")
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    message = r"the update: expected a tensor or an array under 'b', got a str"
    with pytest.raises(ValueError, match=message):
        as_state({"a": np.ones(1), "b": "text"}, "the update")
