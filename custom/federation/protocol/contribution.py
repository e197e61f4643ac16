"""What a site sends in a round, and whether the server may take it: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bundle.modalities import check_known
from federation.protocol.exchange import Exchange, Kind, Part
from federation.protocol.facts import described
from federation.protocol.identity import Identity, check_same

# A sound training stays far below. Numbers up to this one can be added up over all sites.
LARGEST_NUMBER = 1e30
# A double counts up to here one by one, whatever sites add up.
LARGEST_COUNTER = 2**52
MOST_CASES = 10**9
# The group of parameters that serve all modalities; each modality's own are a group too.
SHARED = "shared"


@dataclass(frozen=True)
class Contribution:
    """One site's part in one round.

    Attributes:
        site: who sent it, as the server knows it.
        update: differences by key, see `Exchange.difference`.
        cases: {modality: how many of the site's training cases have it}.
        all_cases: how many training cases the site has.
        identity: the bundle that it runs; None = unknown.
        round: the round that it answers; None = unknown.
        wire_bytes: the size of the message; None = the size of `update`.
        privacy: what the site claims about its privacy; nobody else can tell.
        facts: what else it tells of its round.
    """

    site: str
    update: Mapping[str, Tensor]
    cases: Mapping[str, int]
    all_cases: int
    identity: Identity | None = None
    round: int | None = None
    wire_bytes: int | None = None
    privacy: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """How many bytes travelled."""
        return self.wire_bytes or sum(value.nbytes for value in self.update.values())

    def norm(self, exchange: Exchange) -> float:
        """L2 norm of the update of the parameters, without statistics and counters."""
        return total_norm(self.group_norms(exchange))

    def group_norms(self, exchange: Exchange) -> dict[str, float]:
        """L2 norm of each group of parameters that was sent, see `group_of`."""
        squares: dict[str, list[float]] = {}
        for key, value in self.update.items():
            group = group_of(exchange.parts[key], exchange.modalities)
            if group is not None:
                norm = float(torch.linalg.vector_norm(value.double()))
                squares.setdefault(group, []).append(norm**2)
        return {group: sum(some) ** 0.5 for group, some in squares.items()}


def group_of(part: Part, modalities: Sequence[str]) -> str | None:
    """Name the group of a parameter: its modality, or `SHARED`, tensors with blocks included.

    Returns:
        None for what is no parameter.
    """
    if part.kind != Kind.PARAMETER:
        return None
    return SHARED if part.modality is None else modalities[part.modality]


def total_norm(by_group: Mapping[str, float]) -> float:
    """L2 norm of a whole update, of the norms of its groups."""
    return sum(norm**2 for norm in by_group.values()) ** 0.5


def check_contribution(
    given: Contribution,
    exchange: Exchange,
    state: Mapping[str, Tensor],
    identity: Identity | None = None,
    norm_bound: float | None = None,
) -> None:
    """Check a contribution as a whole.

    Args:
        given: what came.
        exchange: the rules for the method.
        state: the method's state at the server; only shapes and types are read.
        identity: the job's bundle; None = any.
        norm_bound: largest L2 norm of the parameters' update; None = any.

    Raises:
        ValueError: why it must be refused; the first reason that was found.
    """
    _check_identity(given, identity)
    _check_cases(given, exchange)
    _check_keys(given, exchange)
    for key, value in given.update.items():
        _check_value(key, value, exchange.parts[key], state[key])
    norm = given.norm(exchange)
    if norm_bound is not None and norm > norm_bound:
        raise ValueError(f"the update's norm is {norm:.6g}, expected at most {norm_bound:.6g}")


def _check_identity(given: Contribution, expected: Identity | None) -> None:
    if expected is None:
        return
    if given.identity is None:
        raise ValueError("it does not say which bundle it was made with")
    check_same(expected, given.identity)


def _check_cases(given: Contribution, exchange: Exchange) -> None:
    check_known(given.cases, exchange.modalities, "case counts")
    counts = [given.all_cases, *given.cases.values()]
    # bool is an int to Python, and not to us.
    fine = all(type(count) is int and 0 <= count <= MOST_CASES for count in counts)
    if not fine or max(counts) > given.all_cases:
        told = ", ".join(f"{name}: {described(count)}" for name, count in given.cases.items())
        raise ValueError(
            f"expected case counts from 0 to all_cases, and at most {MOST_CASES}, got {{{told}}} "
            f"of {described(given.all_cases)}"
        )
    if not any(given.cases.values()):
        raise ValueError("expected at least one case with a scan, got none")


def _check_keys(given: Contribution, exchange: Exchange) -> None:
    held, sent = exchange.held(given.cases), given.update
    unknown = sorted(set(sent) - set(exchange.parts))
    if unknown:
        raise ValueError(f"the model has no {_some(unknown)}")
    private = [key for key in sent if exchange.parts[key].kind == Kind.PRIVATE]
    if private:
        raise ValueError(f"it holds private tensors: {_some(private)}")
    foreign = sorted(set(sent) - set(held))
    if foreign:
        raise ValueError(
            f"it holds parameters of modalities that it has no cases of: {_some(foreign)}"
        )
    missing = [key for key in held if key not in sent]
    if missing:
        raise ValueError(f"{len(missing)} of {len(held)} tensors are missing: {_some(missing)}")


def _check_value(key: str, value: Any, part: Part, own: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{key!r} is a {type(value).__name__}, expected a tensor")
    if value.shape != own.shape:
        raise ValueError(f"{key!r} has shape {tuple(value.shape)}, expected {tuple(own.shape)}")
    expected = expected_type(part, own)
    if value.dtype != expected:
        raise ValueError(f"{key!r} holds {value.dtype}, expected {expected}")
    if not bool(value.isfinite().all()):
        kind = "NaN" if bool(value.isnan().any()) else "infinite numbers"
        raise ValueError(f"{key!r} holds {kind}")
    if value.numel() and float(value.double().abs().max()) > LARGEST_NUMBER:
        raise ValueError(f"{key!r} holds numbers beyond {LARGEST_NUMBER:g}")
    if part.kind == Kind.COUNTER:
        _check_counter(key, value, own)


def _check_counter(key: str, moved: Tensor, own: Tensor) -> None:
    if not moved.numel():
        return
    if int(moved.min()) < -LARGEST_COUNTER or int(moved.max()) > LARGEST_COUNTER:
        raise ValueError(f"{key!r} holds counts beyond {LARGEST_COUNTER}")
    if bool(((own >= 0) & (own + moved < 0)).any()):
        raise ValueError(f"{key!r} would count below 0")


def expected_type(part: Part, own: Tensor) -> torch.dtype:
    """Tell the type in which the difference of a tensor travels; see `Exchange.difference`."""
    if part.is_statistic:
        return torch.float64
    return torch.int64 if part.kind == Kind.COUNTER else own.dtype


def _some(keys: Collection[str]) -> str:
    """Name the first of many."""
    first = repr(next(iter(keys)))
    return first if len(keys) == 1 else f"{first} and {len(keys) - 1} more"
