"""Whether what a site has kept of a training fits the training that is to go on with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_OF_OPTIMIZER = ("state", "param_groups")


def check_own_state(
    content: Mapping[str, Any], private: Mapping[str, Tensor], optimizer: Optimizer
) -> None:
    """Refuse what `load_state_dict` would take, and a training would stumble over later.

    Args:
        content: what `LocalTraining.own_state` once returned: `private` and `optimizer`.
        private: the method's private tensors.
        optimizer: of the training.

    Raises:
        ValueError: a part is missing, is of another method or size, or is not finite.
    """
    _check_private(content.get("private"), private)
    _check_optimizer(content.get("optimizer"), optimizer)


def _check_private(kept: Any, own: Mapping[str, Tensor]) -> None:
    if not isinstance(kept, Mapping) or set(kept) != set(own):
        raise ValueError("expected this method's private tensors, got others")
    for key, value in own.items():
        _check_tensor(f"private {key}", kept[key], value.shape)


def _check_optimizer(kept: Any, optimizer: Optimizer) -> None:
    parts = kept if isinstance(kept, Mapping) else {}
    moments, groups = (parts.get(name) for name in _OF_OPTIMIZER)
    if not isinstance(moments, Mapping) or not isinstance(groups, list):
        raise ValueError("expected the state of an optimiser, got something else")
    lengths = [len(g.get("params") or ()) if isinstance(g, Mapping) else None for g in groups]
    if lengths != [len(group["params"]) for group in optimizer.param_groups]:
        raise ValueError("expected the state of this optimiser, got that of other parameters")
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    for number, values in moments.items():
        if type(number) is not int or not 0 <= number < len(parameters):
            raise ValueError(f"the optimiser has no parameter {number!r:.100}")
        if not isinstance(values, Mapping):
            raise ValueError(f"expected the optimiser's values of parameter {number}")
        for name, value in values.items():
            if value is not None:
                _check_moment(str(name), value, parameters[number].shape)


def _check_moment(name: str, value: Any, shape: torch.Size) -> None:
    """Check one number, such as the count of steps, or one for each number of the parameter."""
    if name != "step":
        _check_tensor(f"the optimiser's {name}", value, shape)
        return
    is_number = isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)
    if not is_number or not 0 <= float(value) < math.inf:
        raise ValueError("expected the optimiser's number of steps")


def _check_tensor(what: str, value: Any, shape: torch.Size) -> None:
    if not isinstance(value, Tensor) or value.shape != shape:
        raise ValueError(f"{what}: expected a tensor of shape {tuple(shape)}, got another")
    if value.is_floating_point() and not bool(value.isfinite().all()):
        raise ValueError(f"{what}: expected finite numbers, got others")
