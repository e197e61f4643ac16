"""A round: contributions are taken whole or refused whole, and committed all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from federation.protocol.contribution import Contribution, check_contribution
from federation.protocol.exchange import Exchange, Kind, Part, block_weights
from federation.protocol.identity import Identity
from federation.server.coverage import Coverage, Share

# Adding -0.0 leaves every number as it is, bit for bit; adding 0.0 turns -0.0 into 0.0.
_UNMOVED = -0.0


class Commit(NamedTuple):
    """The result of a round.

    Attributes:
        update: differences by key, in the types of the state; a key that nobody holds is not there.
        coverage: who had which part in it.
    """

    update: dict[str, Tensor]
    coverage: Coverage


class Round:
    """Collect the contributions of one round.

    Nothing is added up before `commit`, so that a refused contribution changes nothing. The order
    of arrival does not matter, not even to the last bit: sites are added in the order of their
    names.

    Args:
        exchange: the rules for the method.
        state: the method's state at the server, by the keys of `exchange`; only shapes and types
            are read.
        sites: the sites that were asked; None = any site may contribute.
        number: the round.
        identity: the job's bundle; None = any.
        norm_bound: largest L2 norm of a contribution's parameters; None = any. Noise for privacy
            adds to it: choose it above.

    Source: design.md section 6.
    """

    def __init__(
        self,
        exchange: Exchange,
        state: Mapping[str, Tensor],
        sites: Sequence[str] | None = None,
        number: int = 0,
        identity: Identity | None = None,
        norm_bound: float | None = None,
    ) -> None:
        self.exchange, self.state, self.number = exchange, state, number
        self.sites = None if sites is None else sorted(sites)
        self.identity, self.norm_bound = identity, norm_bound
        self.accepted: dict[str, Contribution] = {}
        self.refused: dict[str, str] = {}

    def offer(self, given: Contribution) -> str | None:
        """Take a contribution, or refuse it.

        Returns:
            None = taken; else why not.
        """
        try:
            self._check(given)
        except ValueError as error:
            return self.refuse(given.site, str(error))
        self.accepted[given.site] = given
        # A site may send again what was refused at first.
        self.refused.pop(given.site, None)
        return None

    def refuse(self, site: str, reason: str) -> str:
        """Note why a site's contribution is refused; an accepted one of before stays."""
        self.refused[site] = reason
        return reason

    def _check(self, given: Contribution) -> None:
        if self.sites is not None and given.site not in self.sites:
            raise ValueError(f"expected one of the sites {self.sites}, got {given.site!r}")
        if given.site in self.accepted:
            raise ValueError("it has contributed to this round before")
        if given.round is not None and given.round != self.number:
            raise ValueError(f"it answers round {given.round}, expected {self.number}")
        check_contribution(given, self.exchange, self.state, self.identity, self.norm_bound)

    def commit(self) -> Commit:
        """Combine the accepted contributions; without any, nothing moves."""
        taken = [self.accepted[site] for site in sorted(self.accepted)]
        update = {}
        for key, part in self.exchange.parts.items():
            senders = [given for given in taken if key in given.update]
            if senders:
                update[key] = self._combine(key, part, senders)
        return Commit(update, self._coverage(taken))

    def _combine(self, key: str, part: Part, senders: list[Contribution]) -> Tensor:
        """Add up or average one tensor, in double precision."""
        own = self.state[key]
        total = torch.zeros(own.shape, dtype=torch.float64)
        weights = torch.zeros((), dtype=torch.float64)
        for given in senders:
            weight = self._weight(part, own.shape, given)
            total += weight * given.update[key].double()
            weights = weights + weight
        if part.kind != Kind.ADDITIVE:
            total = torch.where(weights > 0, total / weights.where(weights > 0, 1.0), _UNMOVED)
        if not own.is_floating_point():
            total = total.round()
        return total.to(own.dtype)

    def _weight(self, part: Part, shape: torch.Size, given: Contribution) -> Tensor:
        if part.is_statistic:
            return torch.ones((), dtype=torch.float64)
        if part.axis is not None:
            return block_weights(part, shape, given.cases, self.exchange.modalities)
        name = None if part.modality is None else self.exchange.modalities[part.modality]
        cases = given.all_cases if name is None else given.cases[name]
        return torch.tensor(cases, dtype=torch.float64)

    def _coverage(self, taken: list[Contribution]) -> Coverage:
        modalities = self.exchange.modalities
        unheld = [m for m in modalities if not any(given.cases.get(m) for given in taken)]
        frozen = [
            key
            for key, part in self.exchange.parts.items()
            if part.modality is not None and modalities[part.modality] in unheld
        ]
        blocks = [key for key, part in self.exchange.parts.items() if part.axis is not None]
        return Coverage(
            round=self.number,
            modalities=modalities,
            accepted={given.site: self._share(given) for given in taken},
            refused=dict(sorted(self.refused.items())),
            silent=sorted(set(self.sites or ()) - set(self.accepted) - set(self.refused)),
            unheld=unheld,
            frozen_keys=frozen,
            frozen_blocks=blocks if unheld else [],
        )

    def _share(self, given: Contribution) -> Share:
        return Share(
            cases=dict(given.cases),
            all_cases=given.all_cases,
            tensors=len(given.update),
            bytes=given.bytes,
            norm=given.norm(self.exchange),
            privacy=dict(given.privacy) if given.privacy else None,
        )


def moved(state: Mapping[str, Tensor], update: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a new state with an update applied; what it does not name is the very same tensor."""
    return {key: value + update[key] if key in update else value for key, value in state.items()}
