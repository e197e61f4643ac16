from __future__ import annotations

import numpy as np
import pytest
import torch
from federation.filters.half_precision import HALVED, FullPrecision, HalfPrecision, halve, restore
from federation.protocol.messages import WIRE_BYTES
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_context import FLContext


def passed(part, data, meta=None, kind=DataKind.WEIGHT_DIFF):
    return from_shareable(part.process(DXO(kind, data, meta).to_shareable(), FLContext()))


def there_and_back(data, spared=()):
    small = passed(HalfPrecision(spared), data)
    return small, passed(FullPrecision(), small.data, small.meta)


@pytest.mark.parametrize("scale", [1e-38, 1e-8, 1.0, 3e4, 7e4, 1e30, 3e38])
def test_the_error_is_bounded_whatever_the_size(scale):
    value = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)).clamp(-1, 1) * scale
    back = restore(*halve(value)).double()
    error = (back - value.double()).abs()
    largest = float(value.double().abs().max())
    # float32 has subnormal numbers of its own below 1e-38.
    bound = torch.maximum(value.double().abs() * 2**-11, torch.tensor(largest * 2**-39)) + 2**-149
    assert bool((error <= bound).all())
    assert float(error.max()) > 0


def test_small_numbers_that_plain_half_precision_loses_survive():
    value = torch.tensor([1e-9, -3e-10])
    assert value.half().tolist() == [0, 0]
    torch.testing.assert_close(restore(*halve(value)), value, rtol=2**-11, atol=0)


def test_zeros_powers_of_two_and_nothing_come_back_exactly():
    for value in (torch.zeros(3), torch.tensor([-0.0, 0.5, -1024.0, 2.0**-20]), torch.zeros(0)):
        back = restore(*halve(value))
        assert back.numpy().tobytes() == value.numpy().tobytes()


def test_the_whole_range_of_half_precision_is_used():
    value = torch.tensor([1.0, 2.0**-38])
    assert torch.equal(restore(*halve(value)), value)


def test_types_come_back_and_the_wire_is_half_as_long():
    data = {"w": torch.randn(10, 10), "v": np.float32(0.25) * np.ones(4, np.float32)}
    small, back = there_and_back(data)
    assert small.data["w"].dtype == torch.float16
    assert small.data["v"].dtype == np.float16
    assert small.meta[WIRE_BYTES] == 2 * 104
    assert back.data["w"].dtype == torch.float32
    assert back.data["v"].tolist() == [0.25] * 4
    assert back.data["v"].dtype == np.float32
    assert HALVED not in back.meta
    assert back.meta[WIRE_BYTES] == 2 * 104


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor([1 / 3], dtype=torch.float64),
        torch.tensor(2**40 + 1),
        torch.tensor([True]),
        torch.tensor([1 / 3, torch.nan]),
        torch.tensor([1 / 3, torch.inf]),
    ],
)
def test_other_types_and_what_is_not_finite_are_spared(value):
    small, back = there_and_back({"x": value, "w": torch.ones(1)})
    for there in (small, back):
        assert there.data["x"].numpy().tobytes() == value.numpy().tobytes()
        assert there.data["x"].dtype == value.dtype
    assert list(small.meta[HALVED]) == ["w"]


def test_statistics_by_name_are_spared():
    data = {"dice_sums": torch.tensor([1 / 3]), "network.w": torch.tensor([1 / 3])}
    small, back = there_and_back(data, spared=["^dice_sums$"])
    assert torch.equal(back.data["dice_sums"], data["dice_sums"])
    assert not torch.equal(back.data["network.w"], data["network.w"])
    assert small.data["dice_sums"].dtype == torch.float32


def test_the_models_own_tensors_stay():
    data = {"w": torch.tensor([1 / 3])}
    before = data["w"].clone()
    small, _ = there_and_back(data)
    assert data["w"].dtype == torch.float32
    assert torch.equal(data["w"], before)
    assert small.data is not data


def test_a_global_model_is_halved_too():
    small = passed(HalfPrecision(), {"w": torch.ones(2)}, kind=DataKind.WEIGHTS)
    assert small.data["w"].dtype == torch.float16


def test_nvflares_history_is_not_doubled_and_other_metadata_stay():
    small = passed(HalfPrecision(), {"w": torch.ones(2)}, {"mine": 1})
    back = passed(FullPrecision(), small.data, small.meta)
    assert back.meta["mine"] == 1
    assert back.meta[MetaKey.FILTER_HISTORY] == ["HalfPrecision", "FullPrecision"]


@pytest.mark.parametrize(
    "exponents", [None, "x", {"w": "1"}, {"w": 10**6}, {"other": 1}, {"w": 0.5}]
)
def test_metadata_that_make_no_sense_leave_the_tensor_for_the_check_of_types(exponents):
    value = torch.ones(2).half()
    back = passed(FullPrecision(), {"w": value}, {HALVED: exponents})
    assert back.data["w"].dtype == torch.float16


def test_a_pattern_must_be_one():
    with pytest.raises(ValueError, match="spared: expected a regular expression"):
        HalfPrecision(["("])
