"""Whether the sums that a site sends can be sums over cases; the module that owns them knows."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from federation.protocol.contribution import Contribution
from federation.protocol.exchange import Exchange, Kind

# What is sent is a difference from the global sums: it carries their rounding.
_ROUNDING = 1e-9


def check_statistics(
    method: nn.Module | None,
    given: Contribution,
    exchange: Exchange,
    state: Mapping[str, Tensor],
) -> None:
    """Let each part of the method check the sums that it declares in `additive_statistics`.

    A part that has a method `check_statistics(sums, rounding, cases)` is asked; it raises
    ValueError. It is given what the site has counted: the difference of additive sums, and of
    recounted ones the site's own sums, which are the global ones plus the difference.

    Args:
        method: the server's; None = nothing is checked.
        given: what came; its tensors are of the right form.
        exchange: the rules for the method.
        state: the method's state at the server.

    Raises:
        ValueError: the sums of a part are inconsistent.
    """
    if method is None:
        return
    cases = [given.cases.get(name, 0) for name in exchange.modalities]
    for prefix, module in method.named_modules():
        check = getattr(module, "check_statistics", None)
        if check is None:
            continue
        keys = {n: f"{prefix}.{n}" if prefix else n for n in module.additive_statistics}
        if all(key in given.update for key in keys.values()):
            sums = {n: _counted(key, given, exchange, state) for n, key in keys.items()}
            rounding = {n: _rounding(given.update[key], state[key]) for n, key in keys.items()}
            check(sums, rounding, cases)


def adds(given: Contribution, exchange: Exchange) -> bool:
    """True = it adds to the additive statistics: who has nothing to add sends exact zeros."""
    return any(
        bool(value.any()) for value in exchange.of_kind(Kind.ADDITIVE, given.update).values()
    )


def largest_recounted(
    given: Contribution, exchange: Exchange, state: Mapping[str, Tensor]
) -> float:
    """Return the largest of a site's recounted sums; who has counted none has the global ones."""
    sent = exchange.of_kind(Kind.RECOUNTED, given.update)
    own = [_counted(key, given, exchange, state) for key in sent]
    return max((float(value.abs().max()) for value in own if value.numel()), default=0.0)


def _counted(
    key: str, given: Contribution, exchange: Exchange, state: Mapping[str, Tensor]
) -> Tensor:
    """Return what the site has counted, float64."""
    update = given.update[key].double()
    if exchange.parts[key].kind == Kind.RECOUNTED:
        return update + state[key].double()
    return update


def _rounding(moved: Tensor, own: Tensor) -> float:
    """Bound what rounding may have added to a number of the difference."""
    if not own.numel():
        return 0.0
    scale = float(moved.double().abs().max()) + float(own.double().abs().max())
    # Sums in single precision are rounded a billion times as much.
    return scale * (_ROUNDING if own.itemsize == 8 else 1e-5)
