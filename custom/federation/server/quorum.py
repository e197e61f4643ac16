"""When a round has waited long enough.

NVFlare's `broadcast_model(min_responses, timeout, wait_time_after_min_received)` counts answers. An
answer may be a refusal, or be refused; a round needs contributions that were accepted, and enough
of them from sites that have each modality.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Quorum:
    """How many sites a round needs, and how long it waits for the others.

    Attributes:
        sites: contributions that a round needs to be committed.
        holders: of each modality, how many contributions from sites that have it are waited for.
            A modality that falls short when the time is over keeps its parameters, if nobody has
            it, or moves by those who have.
        timeout: seconds after which a round ends, whoever is missing.
        grace: seconds that the others have left once `sites` and `holders` are reached.

    Raises:
        ValueError: a number below its range.
    """

    sites: int = 1
    holders: int = 1
    timeout: float = 3600.0
    grace: float = 60.0

    def __post_init__(self) -> None:
        if self.sites < 1 or self.holders < 0 or self.timeout <= 0 or self.grace < 0:
            raise ValueError(
                "expected a quorum of at least 1 site, holders of at least 0, a timeout above 0 "
                f"and a grace of at least 0, got {self}"
            )

    def enough(self, accepted: int) -> bool:
        """True = a round with so many contributions is committed."""
        return accepted >= self.sites

    def reached(
        self,
        accepted: Sequence[Mapping[str, int]],
        modalities: Sequence[str],
        rare: Mapping[str, int],
    ) -> bool:
        """Say whether a round may go on without those who are missing, once the grace is over.

        Args:
            accepted: of each contribution, {modality: cases that have it}.
            modalities: the vocabulary.
            rare: {modality: sites that have it and may still contribute, or have}, where fewer
                than `holders` are; see `Attendance.within_reach`.
        """
        if not self.enough(len(accepted)):
            return False
        held = {name: sum(bool(cases.get(name)) for cases in accepted) for name in modalities}
        return all(
            count >= min(self.holders, rare.get(name, self.holders)) for name, count in held.items()
        )

    def over(self, now: float, started: float, reached_at: float | None) -> bool:
        """True = the round has waited long enough; times in seconds of one clock."""
        if now - started >= self.timeout:
            return True
        return reached_at is not None and now - reached_at >= self.grace


class Attendance:
    """Who was silent when it was last asked: nobody waits for what only such a site could bring.

    A site that was asked and neither contributed nor said why not is silent, until it answers
    anything: a round, a request for scores, or a round that is over. A refusal is an answer.
    """

    def __init__(self) -> None:
        self._silent: set[str] = set()

    def note(self, asked: Iterable[str], answered: Collection[str]) -> None:
        """Note the end of a round."""
        self._silent |= set(asked)
        self._silent -= set(answered)

    def heard(self, site: str) -> None:
        """Note that a site has answered."""
        self._silent.discard(site)

    def awaits(self, asked: Iterable[str], answered: Iterable[str]) -> bool:
        """True = somebody has not answered yet who was not silent before."""
        return bool(set(asked) - self._silent - set(answered))

    def within_reach(
        self,
        holders: Mapping[str, Collection[str]],
        modalities: Sequence[str],
        asked: Iterable[str],
        lost: Iterable[str],
    ) -> dict[str, int]:
        """Count the sites of each modality that a round may wait for.

        Args:
            holders: {modality: sites that have contributed to it}.
            modalities: the vocabulary.
            asked: sites that were asked in this round.
            lost: sites that have answered in this round without contributing to it.
        """
        there = set(asked) - self._silent - set(lost)
        return {name: len(there & set(holders.get(name, ()))) for name in modalities}
