"""An optimiser and its learning rate go on, with the settings of the config that resumes them."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from bundle.training.made_with import difference, same_setting

logger = logging.getLogger(__name__)

_RATE = "learning_rate"
# How far a schedule has come, as torch's schedulers call it; the rest is its curve. Names with an
# underscore are progress, too, but for the schedulers inside another one.
_PROGRESS = ("last_epoch", "T_cur", "T_i", "best", "num_bad_epochs", "cooldown_counter")
_INSIDE = "_schedulers"


def continue_optimizer(
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    saved: Mapping[str, Any],
    saved_schedule: Mapping[str, Any] | None,
) -> list[str]:
    """Restore what an optimiser has learnt and how far its schedule has come.

    PyTorch restores the options with it, so that a new learning rate would be ignored. Here the
    options are the config's own: where a curve changes, the schedule is run again on the new one up
    to the epoch that was reached. Where nothing changes, every number is as it was.

    Args:
        optimizer: as the config builds it, not yet stepped.
        scheduler: of this optimiser, not yet stepped; None = the rate is constant.
        saved, saved_schedule: their states.

    Returns:
        What changes, one line each: '<option>: <before>, now <now>'.

    Raises:
        ValueError, KeyError: the states do not fit.
    """
    wanted = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    optimizer.load_state_dict(dict(saved))
    constant = scheduler is None or saved_schedule is None
    found: dict[str, None] = {}
    for group, options in zip(optimizer.param_groups, wanted, strict=True):
        for name in {*options} - (set() if constant else {"lr", "initial_lr"}):
            if name in group and not same_setting(name, group[name], options[name]):
                label = _RATE if name == "lr" else f"optimizer's {name}"
                found[difference(label, group[name], options[name])] = None
                group[name] = options[name]
    if constant:
        return list(found)
    return [*found, *_continue_schedule(optimizer, scheduler, wanted, saved_schedule)]


def _continue_schedule(
    optimizer: Optimizer, scheduler: LRScheduler, wanted: list[dict], saved: Mapping[str, Any]
) -> list[str]:
    new = scheduler.state_dict()
    if "metrics" in inspect.signature(scheduler.step).parameters:
        scheduler.load_state_dict(dict(saved))
        rates = [group["lr"] for group in optimizer.param_groups]
        logger.warning(
            f"the learning rate follows a metric: it goes on at {_one(rates)}, and another "
            f"{_RATE} has no effect. Start anew for another one."
        )
        return []
    if _curve(saved, new) == _curve(new, saved):
        scheduler.load_state_dict(dict(saved))
        return []
    for group, options in zip(optimizer.param_groups, wanted, strict=True):
        group.update({name: options[name] for name in ("lr", "initial_lr") if name in options})
    with warnings.catch_warnings():
        # PyTorch expects a step of the optimiser before each.
        warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler.step\(\)`")
        for _ in range(int(saved["last_epoch"])):
            scheduler.step()
    return _say_curve(_curve(saved, new), _curve(new, saved))


def _say_curve(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say what of a curve changes, once; its starting rates are the learning rate."""
    lines: dict[str, None] = {}
    for name in old:
        if name == _INSIDE:
            pairs = zip(old[name], new[name], strict=True)
            lines |= dict.fromkeys(
                line for mine, other in pairs for line in _say_curve(mine, other)
            )
        elif not same_setting(name, old[name], new[name]):
            rate = name == "base_lrs"
            label = _RATE if rate else f"lr_scheduler's {name}"
            sides = (_one(old[name]), _one(new[name])) if rate else (old[name], new[name])
            lines[difference(label, *sides)] = None
    return list(lines)


def _curve(state: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Take what of a scheduler's state is its curve, as far as another state has it, too.

    Another version of PyTorch may keep more or less in a state.
    """
    found: dict[str, Any] = {}
    for name, value in state.items():
        if name == _INSIDE and len(value) == len(other.get(name, ())):
            pairs = zip(value, other[name], strict=True)
            found[name] = [_curve(mine, theirs) for mine, theirs in pairs]
        elif name in other and not name.startswith("_") and name not in _PROGRESS:
            found[name] = value
    return found


def _one(values: list[Any]) -> Any:
    """Give one number where all groups of parameters share it."""
    return values[0] if len({*values}) == 1 else values
