"""The server's aggregator, as NVFlare's workflows call it, around a `Round`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator
from torch import nn

from federation.protocol.contribution import Contribution
from federation.protocol.exchange import Exchange, ExchangeRules
from federation.protocol.identity import Identity, read_identity
from federation.protocol.message_values import alike, as_state
from federation.protocol.messages import read_message, sender
from federation.protocol.site_text import LONGEST_NAME, one_line, reason_of
from federation.server.counts import FACTOR
from federation.server.coverage import Coverage
from federation.server.round import Commit, Round
from federation.server.trust import Trust

ACCEPTED_SITES = "accepted_sites"
# Beside the reports; contributions lie in it until their round is committed.
KEPT = "contributions"


class ModalityAggregator(ModelAggregator):
    """Weighs each modality's parameters by the cases that have it; refuses broken contributions.

    Arguments are plain values, because NVFlare writes them into the job's configuration. The
    controller calls `begin` before each round.

    Args:
        modalities: the vocabulary, in channel order.
        rules: the other arguments of `ExchangeRules`, by name; None = everything is shared.
        identity: the job's bundle, `Identity` as a dict; None = any.
        norm_bound: largest L2 norm of a contribution's parameters; None = any.
        report_dir: where each round's coverage is written, and contributions are kept until their
            round is committed; None = the coverage is in the log alone, contributions in memory.
        site_cases: the coordinator's list of sites and their cases, as a mapping or as pairs; see
            `trust.Trust`, as are the next two.
        case_factor: how many times the median of the sites one may weigh, without such a list.
        robust: none, clipped or trimmed.

    Raises:
        ValueError: as in `ExchangeRules`, `read_identity` and `Trust`.
        TypeError: `rules` names something else.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        rules: Mapping[str, Any] | None = None,
        identity: Mapping[str, str] | None = None,
        norm_bound: float | None = None,
        report_dir: str | None = None,
        site_cases: Mapping[str, int] | Sequence[tuple[str, int]] | None = None,
        case_factor: float | None = FACTOR,
        robust: str = "none",
    ) -> None:
        super().__init__()
        self.modalities, self.rules, self.identity = modalities, rules, identity
        self.norm_bound, self.report_dir = norm_bound, report_dir
        self.site_cases, self.case_factor, self.robust = site_cases, case_factor, robust
        listed = None if site_cases is None else dict(site_cases)
        self._trust = Trust(norm_bound, listed, case_factor, robust)
        self._rules = ExchangeRules(modalities, **(rules or {}))
        self._identity = None if identity is None else read_identity(identity)
        self._model: Mapping[str, Any] | None = None
        self._exchange: Exchange | None = None
        self._round: Round | None = None
        self._coverage: Coverage | None = None

    def expect(self, identity: Identity) -> None:
        """Accept contributions of this bundle alone, unless the configuration names another."""
        if self.identity is None:
            self._identity = identity

    def is_listed(self, site: str) -> bool:
        """True = the coordinator's list of sites has this one, or there is no list."""
        listed = self._trust.site_cases
        return listed is None or site in listed

    def begin(
        self,
        model: Mapping[str, Any],
        number: int,
        sites: Sequence[str] | None = None,
        method: nn.Module | None = None,
        counted: Collection[str] = (),
    ) -> None:
        """Start a round, and drop the contributions of one that was not aggregated.

        Args:
            model: the global model's parameters.
            number: the round.
            sites: the sites that are asked; None = any site may contribute.
            method: the method, whose parts check the statistics that they own; None = nobody does.
            counted: the sites whose additive statistics are in the model.

        Raises:
            ValueError: as in `Exchange`.
        """
        state = as_state(model, "the global model")
        if self._exchange is None or set(state) != set(self._exchange.parts):
            self._exchange = Exchange(self._rules, state)
        self.reset_stats()
        self._model = model
        self._round = Round(
            self._exchange,
            state,
            sites,
            number,
            self._identity,
            trust=self._trust,
            folder=None if self.report_dir is None else Path(self.report_dir) / KEPT,
            method=method,
            counted=counted,
        )

    def accept_model(self, model: FLModel) -> bool:
        """Take a contribution whole, or refuse it whole and log why.

        Returns:
            True = taken.

        Raises:
            RuntimeError: no round has begun.
        """
        current = self._current
        site = sender(model) or "an unknown sender"
        try:
            reason = current.offer(read_message(model))
        except Exception as error:
            # Whatever a site sends must stop neither the round nor the other sites.
            reason = current.refuse(site, reason_of(error))
        name = one_line(site, LONGEST_NAME)
        if reason is None:
            self.info(f"round {current.number}: accepted the contribution of {name}")
        else:
            self.warning(f"round {current.number}: refused the contribution of {name}: {reason}")
        return reason is None

    def refuse(self, site: str, reason: str) -> None:
        """Note why a site does not contribute to the round."""
        current = self._current
        told, name = current.refuse(site, reason), one_line(site, LONGEST_NAME)
        self.warning(f"round {current.number}: {name} does not contribute: {told}")

    def check_kept(self) -> None:
        """Drop the contributions that somebody has changed on the disk, and log it."""
        current = self._current
        before = set(current.accepted)
        current.check_kept()
        for site in sorted(before - set(current.accepted)):
            self.warning(
                f"round {current.number}: dropped the contribution of "
                f"{one_line(site, LONGEST_NAME)}: {current.refused[site]}"
            )

    def discard(self) -> None:
        """Remove from the disk what the current round has taken, which is not to be aggregated."""
        self._current.discard()

    @property
    def accepted(self) -> Mapping[str, Contribution]:
        """What has been taken in the current round, by site."""
        return {} if self._round is None else dict(self._round.accepted)

    @property
    def refused(self) -> Mapping[str, str]:
        """Why something was not taken in the current round, by site."""
        return {} if self._round is None else dict(self._round.refused)

    @property
    def adding(self) -> set[str]:
        """The sites whose contributions of the current round add to the statistics."""
        return set() if self._round is None else self._round.adding

    def aggregate_model(self) -> FLModel:
        """Return the round's update as differences, and end the round; `report` tells of it.

        Its metadata names the sites whose contributions are in it, so that a site whose was not can
        tell.
        """
        current, model = self._current, self._model
        commit: Commit = current.commit()
        self._coverage = commit.coverage
        self._round = None
        return FLModel(
            ParamsType.DIFF,
            {key: alike(value, model[key]) for key, value in commit.update.items()},
            current_round=current.number,
            meta={ACCEPTED_SITES: sorted(commit.coverage.accepted)},
        )

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Leave no contribution behind when the job ends, however it ends."""
        super().handle_event(event_type, fl_ctx)
        if event_type == EventType.END_RUN:
            self.reset_stats()

    def reset_stats(self) -> None:
        """Drop the round, and what is kept of its contributions."""
        if self._round is not None:
            self._round.discard()
        self._round = None

    @property
    def _current(self) -> Round:
        if self._round is None:
            raise RuntimeError(
                "expected a round to be under way, got none. Let the controller call "
                "begin(model, number, sites) before each round."
            )
        return self._round

    def report(self) -> None:
        """Report the coverage of the last round; call it once that round's state is on disk."""
        coverage, self._coverage = self._coverage, None
        if coverage is None:
            return
        self.info(coverage.to_markdown())
        if self.report_dir is None:
            return
        try:
            coverage.save(self.report_dir)
        except OSError as error:
            # The log above has the report; the round does not depend on it.
            self.error(f"round {coverage.round}: could not write its report ({error})")
