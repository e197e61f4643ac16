"""A round: contributions are taken whole or refused whole, and committed all at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from federation.protocol.contribution import (
    Contribution,
    check_contribution,
    group_of,
    total_norm,
)
from federation.protocol.exchange import Exchange, Kind, Part
from federation.protocol.identity import Identity
from federation.protocol.site_text import LONGEST_REASON, one_line
from federation.server.agreement import Agreement, clipping, outliers
from federation.server.averaging import CLIPPED, Voice, combine
from federation.server.counts import Counts, believed, kept_share, shares
from federation.server.coverage import Coverage, Share
from federation.server.kept import DamagedError, Folder, Held
from federation.server.statistics_check import adds, check_statistics, largest_recounted
from federation.server.trust import Trust


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
            are read, and statistics.
        sites: the sites that were asked; None = any site may contribute.
        number: the round.
        identity: the job's bundle; None = any.
        norm_bound: see `Trust`; for callers that need nothing else of it.
        trust: how far sites are believed; None = all that they claim counts.
        folder: where contributions are kept until the commit, see `kept.Folder`; None = in memory.
        method: the method, whose parts check the statistics that they own; None = nobody does.
        counted: the sites whose additive statistics are in the model; they add nothing to them.

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
        trust: Trust | None = None,
        folder: str | Path | None = None,
        method: nn.Module | None = None,
        counted: Collection[str] = (),
    ) -> None:
        self.exchange, self.state, self.number = exchange, state, number
        self.sites = None if sites is None else sorted(sites)
        self.identity, self.method, self.counted = identity, method, frozenset(counted)
        self.trust = trust or Trust(norm_bound, case_factor=None)
        self.accepted: dict[str, Contribution] = {}
        self.refused: dict[str, str] = {}
        self._norms: dict[str, dict[str, float]] = {}
        self._adding: set[str] = set()
        self._elections: dict[str, float] = {}
        self._folder = None if folder is None else Folder(folder)

    def offer(self, given: Contribution) -> str | None:
        """Take a contribution, or refuse it.

        Returns:
            None = taken; else why not.
        """
        try:
            self._check(given)
            kept = self._keep(given)
        except ValueError as error:
            return self.refuse(given.site, str(error))
        except OSError as error:
            reason = f"the server could not keep it on its disk ({error.strerror or error})"
            return self.refuse(given.site, reason)
        self._norms[given.site] = given.group_norms(self.exchange)
        self._note_statistics(given)
        self.accepted[given.site] = kept
        # A site may send again what was refused at first.
        self.refused.pop(given.site, None)
        return None

    def refuse(self, site: str, reason: str) -> str:
        """Note why a site's contribution is refused; an accepted one of before stays."""
        self.refused[site] = one_line(reason, LONGEST_REASON)
        return self.refused[site]

    def _check(self, given: Contribution) -> None:
        if self.sites is not None and given.site not in self.sites:
            raise ValueError(f"expected one of the sites {self.sites}, got {given.site!r}")
        listed = self.trust.site_cases
        if listed is not None and given.site not in listed:
            raise ValueError(f"the coordinator's list of sites has {sorted(listed)} alone")
        if given.site in self.accepted:
            raise ValueError("it has contributed to this round before")
        if given.round is not None and given.round != self.number:
            raise ValueError(f"it answers round {given.round}, expected {self.number}")
        norm_bound = self.trust.norm_bound
        check_contribution(given, self.exchange, self.state, self.identity, norm_bound)
        if given.site in self.counted and adds(given, self.exchange):
            raise ValueError("its statistics are in the model, and it would add to them once more")
        check_statistics(self.method, given, self.exchange, self.state)

    def _note_statistics(self, given: Contribution) -> None:
        if adds(given, self.exchange):
            self._adding.add(given.site)
        # Who has none, because nobody has held an election yet, says nothing of their size.
        if largest := largest_recounted(given, self.exchange, self.state):
            self._elections[given.site] = largest

    @property
    def adding(self) -> set[str]:
        """The sites whose accepted contributions add to the additive statistics."""
        return self._adding & set(self.accepted)

    def _keep(self, given: Contribution) -> Contribution:
        """Keep the tensors until the commit; what is returned holds none itself."""
        if self._folder is None:
            return replace(given, update=Held(given.update))
        kept = self._folder.keep(given.site, given.update)
        return replace(given, update=kept, wire_bytes=given.bytes)

    def check_kept(self) -> None:
        """Drop the contributions whose files somebody has changed, before they are counted."""
        for site, given in list(self.accepted.items()):
            try:
                given.update.check_untouched()
            except DamagedError as error:
                self._drop(site, error)

    def _drop(self, site: str, error: DamagedError) -> None:
        del self.accepted[site], self._norms[site]
        self.refuse(site, str(error))

    def discard(self) -> None:
        """Remove what is kept of the contributions; the round cannot be committed any more."""
        if self._folder is not None:
            self._folder.clear()

    def commit(self) -> Commit:
        """Combine the accepted contributions; without any, nothing moves.

        A contribution of which something else is read than was written is dropped whole, and the
        others are combined anew.
        """
        while True:
            agreement = Agreement()
            try:
                update = self._combine(agreement)
            except DamagedError as error:
                self._drop(error.site, error)
                continue
            coverage = self._coverage(agreement)
            self.discard()
            return Commit(update, coverage)

    def _counts(self) -> dict[str, Counts]:
        claimed = {s: Counts(c.all_cases, c.cases) for s, c in sorted(self.accepted.items())}
        return believed(claimed, self.trust.site_cases, self.trust.case_factor)

    def _combine(self, agreement: Agreement) -> dict[str, Tensor]:
        counts, update = self._counts(), {}
        clips = clipping(self._norms) if self.trust.robust == CLIPPED else {}
        sums = self._shares_of_sums(counts)
        for key, part in self.exchange.parts.items():
            voices = [
                self._voice(site, part, counts[site], clips, sums)
                for site in sorted(self.accepted)
                if key in self.accepted[site].update
            ]
            if voices:
                own, modalities = self.state[key], self.exchange.modalities
                update[key] = combine(
                    key, part, own, voices, modalities, self.trust.robust, agreement
                )
        return update

    def _shares_of_sums(self, counts: Mapping[str, Counts]) -> dict[Kind, dict[str, float]]:
        """Tell which share of each site's sums counts: they are capped as its cases are."""
        claimed = {site: Counts(c.all_cases, c.cases) for site, c in self.accepted.items()}
        elections = {s: size for s, size in self._elections.items() if s in self.accepted}
        return {
            Kind.ADDITIVE: {site: kept_share(claimed[site], counts[site]) for site in claimed},
            Kind.RECOUNTED: shares(elections, self.trust.case_factor),
        }

    def _voice(
        self,
        site: str,
        part: Part,
        counts: Counts,
        clips: Mapping[str, Mapping[str, float]],
        sums: Mapping[Kind, Mapping[str, float]],
    ) -> Voice:
        group = group_of(part, self.exchange.modalities)
        if group is None:
            scale = sums.get(part.kind, {}).get(site, 1.0)
        else:
            scale = clips.get(site, {}).get(group, 1.0)
        return Voice(site, self.accepted[site].update, counts, scale)

    def _coverage(self, agreement: Agreement) -> Coverage:
        modalities = self.exchange.modalities
        taken = [self.accepted[site] for site in sorted(self.accepted)]
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
            accepted=self._shares(taken, agreement),
            refused=dict(sorted(self.refused.items())),
            silent=sorted(set(self.sites or ()) - set(self.accepted) - set(self.refused)),
            unheld=unheld,
            frozen_keys=frozen,
            frozen_blocks=blocks if unheld else [],
        )

    def _shares(self, taken: list[Contribution], agreement: Agreement) -> dict[str, Share]:
        counts, cosines = self._counts(), agreement.cosines()
        marks = outliers(cosines, self._norms)
        return {
            given.site: Share(
                cases=dict(given.cases),
                all_cases=given.all_cases,
                tensors=len(given.update),
                bytes=given.bytes,
                norm=total_norm(self._norms[given.site]),
                privacy=dict(given.privacy) if given.privacy else None,
                cosine=cosines.get(given.site),
                marks=marks.get(given.site, []),
                used_cases=dict(counts[given.site].cases),
                used_all_cases=counts[given.site].all_cases,
            )
            for given in taken
        }


def moved(state: Mapping[str, Tensor], update: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a new state with an update applied; what it does not name is the very same tensor."""
    return {key: value + update[key] if key in update else value for key, value in state.items()}
