"""The server's aggregator, as NVFlare's workflows call it, around a `Round`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator

from federation.protocol.contribution import Contribution
from federation.protocol.exchange import Exchange, ExchangeRules
from federation.protocol.identity import Identity, read_identity
from federation.protocol.message_values import alike, as_state
from federation.protocol.messages import read_message, sender
from federation.server.coverage import Coverage
from federation.server.round import Commit, Round

ACCEPTED_SITES = "accepted_sites"


class ModalityAggregator(ModelAggregator):
    """Weighs each modality's parameters by the cases that have it; refuses broken contributions.

    Arguments are plain values, because NVFlare writes them into the job's configuration. The
    controller calls `begin` before each round.

    Args:
        modalities: the vocabulary, in channel order.
        rules: the other arguments of `ExchangeRules`, by name; None = everything is shared.
        identity: the job's bundle, `Identity` as a dict; None = any.
        norm_bound: largest L2 norm of a contribution's parameters; None = any.
        report_dir: where each round's coverage is written; None = in the log alone.

    Raises:
        ValueError: as in `ExchangeRules` and `read_identity`.
        TypeError: `rules` names something else.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        rules: Mapping[str, Any] | None = None,
        identity: Mapping[str, str] | None = None,
        norm_bound: float | None = None,
        report_dir: str | None = None,
    ) -> None:
        super().__init__()
        self.modalities, self.rules, self.identity = modalities, rules, identity
        self.norm_bound, self.report_dir = norm_bound, report_dir
        self._rules = ExchangeRules(modalities, **(rules or {}))
        self._identity = None if identity is None else read_identity(identity)
        self._model: Mapping[str, Any] | None = None
        self._exchange: Exchange | None = None
        self._round: Round | None = None

    def expect(self, identity: Identity) -> None:
        """Accept contributions of this bundle alone, unless the configuration names another."""
        if self.identity is None:
            self._identity = identity

    def begin(
        self, model: Mapping[str, Any], number: int, sites: Sequence[str] | None = None
    ) -> None:
        """Start a round, and drop the contributions of one that was not aggregated.

        Args:
            model: the global model's parameters.
            number: the round.
            sites: the sites that are asked; None = any site may contribute.

        Raises:
            ValueError: as in `Exchange`.
        """
        state = as_state(model, "the global model")
        if self._exchange is None or set(state) != set(self._exchange.parts):
            self._exchange = Exchange(self._rules, state)
        self._model = model
        self._round = Round(self._exchange, state, sites, number, self._identity, self.norm_bound)

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
        except ValueError as error:
            reason = current.refuse(site, str(error))
        if reason is None:
            self.info(f"round {current.number}: accepted the contribution of {site}")
        else:
            self.warning(f"round {current.number}: refused the contribution of {site}: {reason}")
        return reason is None

    def refuse(self, site: str, reason: str) -> None:
        """Note why a site does not contribute to the round."""
        current = self._current
        current.refuse(site, reason)
        self.warning(f"round {current.number}: {site} does not contribute: {reason}")

    @property
    def accepted(self) -> Mapping[str, Contribution]:
        """What has been taken in the current round, by site."""
        return {} if self._round is None else dict(self._round.accepted)

    @property
    def refused(self) -> Mapping[str, str]:
        """Why something was not taken in the current round, by site."""
        return {} if self._round is None else dict(self._round.refused)

    def aggregate_model(self) -> FLModel:
        """Return the round's update as differences, and end the round; report its coverage.

        Its metadata names the sites whose contributions are in it, so that a site whose was not can
        tell.
        """
        current, model = self._current, self._model
        commit: Commit = current.commit()
        self._report(commit.coverage)
        self._round = None
        return FLModel(
            ParamsType.DIFF,
            {key: alike(value, model[key]) for key, value in commit.update.items()},
            current_round=current.number,
            meta={ACCEPTED_SITES: sorted(commit.coverage.accepted)},
        )

    def reset_stats(self) -> None:
        """Drop the round; NVFlare's interface asks for it."""
        self._round = None

    @property
    def _current(self) -> Round:
        if self._round is None:
            raise RuntimeError(
                "expected a round to be under way, got none. Let the controller call "
                "begin(model, number, sites) before each round."
            )
        return self._round

    def _report(self, coverage: Coverage) -> None:
        self.info(coverage.to_markdown())
        for site, share in coverage.accepted.items():
            if share.privacy:
                self.info(f"privacy of {site}: {share.privacy.get('statement')}")
        if self.report_dir is not None:
            coverage.save(self.report_dir)
