from __future__ import annotations

import pytest
import torch

from bundle.inference.precision import half_is_fast


@pytest.mark.parametrize("amx", [True, False])
def test_a_cpu_is_fast_if_it_has_amx(monkeypatch, amx):
    found = {"amx_bf16": amx, "avx512_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert half_is_fast("cpu") is amx
    assert half_is_fast(torch.device("cuda")) is True


def test_an_unknown_cpu_stays_with_single_precision(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert half_is_fast("cpu") is False
    assert half_is_fast("cuda:1") is True
