"""Half precision on the wire, for the tensors that keep their accuracy with it.

NVFlare's own ModelQuantizer cannot leave keys out, clips large numbers silently, loses small ones,
and cannot be imported without bitsandbytes, not even for 16 bits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from torch import Tensor

from federation.protocol.message_values import alike, as_tensor
from federation.protocol.messages import WIRE_BYTES
from federation.protocol.patterns import check_patterns

# {key: exponent} in the metadata: the tensor travels multiplied by 2 ** exponent.
HALVED = "half_precision"
# The largest number of a tensor comes to lie between 2^14 and 2^15; half precision ends at 65504.
_TOP = 15
# float32 spans 2^-149 to 2^128; no tensor of it needs more.
_LARGEST_EXPONENT = 200
_KINDS = (DataKind.WEIGHTS, DataKind.WEIGHT_DIFF)


def halve(value: Tensor) -> tuple[Tensor, int]:
    """Scale a tensor by a power of two that suits half precision, and round it.

    Args:
        value: float32, finite.

    Returns:
        float16 of the same shape, and the exponent of the power.
    """
    largest = float(value.abs().max()) if value.numel() else 0.0
    exponent = _TOP - math.frexp(largest)[1]
    return (value.double() * 2.0**exponent).half(), exponent


def restore(value: Tensor, exponent: int) -> Tensor:
    """Undo `halve`: float32, off by at most 2^-11 of each number or 2^-39 of the largest."""
    return (value.double() * 2.0**-exponent).float()


class HalfPrecision(DXOFilter):
    """Filter of what leaves: float32 tensors become float16; put it last.

    It does not change other types (statistics travel as float64, counters as integers), tensors
    with numbers that are not finite, which the receiver must see, and those that are named.

    Args:
        spared: patterns (searched in the key) of what keeps its precision, additive statistics
            above all, which a global model holds in their own type.

    Raises:
        ValueError: as in `check_patterns`.
    """

    def __init__(self, spared: Sequence[str] = ()) -> None:
        super().__init__([*_KINDS], [*_KINDS])
        self.spared = spared
        check_patterns(spared, "spared")
        self._spared = [re.compile(pattern) for pattern in spared]

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """Return a smaller copy; the message's own tensors may be the model's and stay."""
        data, exponents = dict(dxo.data), {}
        for key, value in dxo.data.items():
            tensor = as_tensor(value)
            if tensor is not None and self._bears(key, tensor):
                small, exponents[key] = halve(tensor)
                data[key] = alike(small, value)
        meta = _without_history(dxo.meta)
        meta |= {HALVED: exponents, WIRE_BYTES: _bytes(data.values())}
        return DXO(dxo.data_kind, data=data, meta=meta)

    def _bears(self, key: str, value: Tensor) -> bool:
        return (
            value.dtype == torch.float32
            and not any(pattern.search(key) for pattern in self._spared)
            and bool(value.isfinite().all())
        )


class FullPrecision(DXOFilter):
    """Filter of what arrives: undoes `HalfPrecision`; other messages pass as they are.

    A scale that makes no sense is ignored. The tensor then stays float16, which the receiver
    refuses.
    """

    def __init__(self) -> None:
        super().__init__([*_KINDS], [*_KINDS])

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:
        """Return a copy in float32; None = nothing to do."""
        exponents = dxo.meta.get(HALVED)
        if not isinstance(exponents, Mapping):
            return None
        data = dict(dxo.data)
        for key, exponent in exponents.items():
            tensor = as_tensor(data.get(key))
            if tensor is not None and tensor.dtype == torch.float16 and _makes_sense(exponent):
                data[key] = alike(restore(tensor, exponent), data[key])
        meta = {key: value for key, value in _without_history(dxo.meta).items() if key != HALVED}
        return DXO(dxo.data_kind, data=data, meta=meta)


def _makes_sense(exponent: Any) -> bool:
    return type(exponent) is int and abs(exponent) <= _LARGEST_EXPONENT


def _without_history(meta: Mapping[str, Any]) -> dict[str, Any]:
    # NVFlare copies the history into what a filter returns; a shared list would double.
    return {key: value for key, value in meta.items() if key != MetaKey.FILTER_HISTORY}


def _bytes(values: Iterable[Any]) -> int:
    tensors = (as_tensor(value) for value in values)
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
