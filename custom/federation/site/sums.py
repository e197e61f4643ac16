"""What leaves a site of sums over its cases: what its rules allow, else zeros.

A sum over few cases tells of each of them: who knows all but one reads that one off it exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from federation.protocol.exchange import Kind
from federation.rules import Rules
from federation.site.local_training import LocalTraining

# What the coordinator is told.
WITHHELD = "sends no statistics: fewer of its cases have the same modalities than it asks for"


class Statistics(NamedTuple):
    """What a site does about additive statistics in a round.

    Attributes:
        collected: True = they leave with this contribution.
        waits: True = the round goes by without training, which needs those of the others.
        notes: what the coordinator should know.
    """

    collected: bool = False
    waits: bool = False
    notes: tuple[str, ...] = ()


def adds_up(training: LocalTraining) -> bool:
    """Tell whether the stage has statistics that every site adds to."""
    return any(part.kind == Kind.ADDITIVE for part in training.exchange.parts.values())


def check_noise_protects(training: LocalTraining, rules: Rules) -> None:
    """Refuse a stage whose sums would need far more noise than an update, where noise must be.

    Raises:
        ValueError: so it is.
    """
    if rules.needs_private and adds_up(training):
        raise ValueError(
            "the site takes part in private trainings only, and this stage adds up statistics, "
            "which noise does not protect"
        )


def add_statistics(
    training: LocalTraining, rules: Rules, received: Mapping[str, Tensor], number: int
) -> Statistics:
    """Add a site's statistics to the global ones, in which they are not yet, if they may leave.

    A site that withholds them trains all the same: with those of the others, or with its own where
    every site withholds them.

    Args:
        training: has received the global state.
        rules: the site's own.
        received: the global state.
        number: the round, counted from 0.

    Raises:
        ValueError: the method has such statistics, and does not count them.
    """
    if not adds_up(training):
        return Statistics()
    exchange = training.exchange
    sums = exchange.of_kind(Kind.ADDITIVE, received)
    empty = not any(bool(value.any()) for value in sums.values())
    among = training.countable(rules.least_summed)
    if not among:
        # In the first round the others send theirs. Later there will be none to wait for.
        return Statistics(waits=empty and number == 0, notes=(WITHHELD,))
    if not training.count_statistics(among):
        raise ValueError(
            "expected the method to count its additive statistics, but its add_statistics() "
            "returned False"
        )
    training.method.load_state_dict(exchange.add(training.method.state_dict(), received))
    return Statistics(collected=True, waits=empty)


def leaving(
    training: LocalTraining, rules: Rules, received: Mapping[str, Tensor], collected: bool
) -> dict[str, Tensor]:
    """Return the state whose difference to the received one leaves the site.

    Sums that must not leave are as they were received, whatever the method has made of them: it may
    have filled an empty bank for itself.

    Args:
        training, rules, received: as in `add_statistics`.
        collected: see `Statistics`.
    """
    state = dict(training.method.state_dict())
    if not collected:
        state |= training.exchange.of_kind(Kind.ADDITIVE, received)
    scored = [training.cases_in(section) for section in ("validation", training.stage.section)]
    if any(0 < count < rules.least_cases_scores for count in scored):
        state |= training.exchange.of_kind(Kind.RECOUNTED, received)
    return state
