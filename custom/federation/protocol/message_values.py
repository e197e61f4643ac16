"""Values of a message: tensors, NumPy arrays, or references to tensors on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# A subclass may answer every question about itself as it likes.
_TENSORS = (Tensor, nn.Parameter)


def as_tensor(value: Any) -> Tensor | None:
    """Return a value of a message as a plain tensor on the CPU that shares its memory if it can.

    Args:
        value: a tensor, a NumPy array or number, or NVFlare's reference to a tensor on disk.

    Returns:
        The tensor; None if it is something else: a subclass of tensors, one without values (sparse,
        quantised, on the device "meta"), or an array whose type or layout PyTorch lacks.
    """
    # NVFlare's references, where the server keeps what it receives on disk.
    materialize = getattr(value, "materialize", None)
    if callable(materialize):
        value = materialize()
    if isinstance(value, Tensor):
        return value.detach().cpu() if type(value) in _TENSORS and _is_dense(value) else None
    if isinstance(value, np.ndarray | np.generic):
        return _of_array(value)
    return None


def _is_dense(value: Tensor) -> bool:
    return value.layout == torch.strided and not value.is_quantized and not value.is_meta


def _of_array(value: np.ndarray | np.generic) -> Tensor | None:
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        # PyTorch warns of an array that it must not write to.
        value = value.copy()
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError):
        # No such type; or another byte order, or negative strides.
        return None


def alike(tensor: Tensor, model: Any) -> Any:
    """Return a tensor as the same kind of object as `model`: an array where that is one."""
    return tensor.numpy() if isinstance(model, np.ndarray | np.generic) else tensor


def as_state(values: Mapping[str, Any], whose: str) -> dict[str, Tensor]:
    """Return a state whose every value is a tensor.

    Raises:
        ValueError: one is not; the message starts with `whose`.
    """
    state = {key: as_tensor(value) for key, value in values.items()}
    for key, value in state.items():
        if value is None:
            raise ValueError(
                f"{whose}: expected a tensor or an array under {key!r}, "
                f"got a {type(values[key]).__name__}"
            )
    return state
