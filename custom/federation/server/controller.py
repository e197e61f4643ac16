"""The server's workflow: rounds that outlast whoever fails, and that can be taken up again."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_common.workflows.fedavg import FedAvg

from federation.protocol.contribution import Contribution
from federation.protocol.messages import (
    COUNTED_SITES,
    IDENTITY,
    RUN,
    STAGE,
    VALIDATE,
    read_refusal,
    sender,
)
from federation.protocol.scoring import Sums, read_sums, standing
from federation.protocol.site_text import LONGEST_NAME, LONGEST_REASON, one_line, reason_of
from federation.protocol.stages import check_name, installed_identity
from federation.server.aggregator import ACCEPTED_SITES, KEPT, ModalityAggregator
from federation.server.quorum import Attendance, Quorum
from federation.server.round_log import RoundLog
from federation.server.states import FOLDER

BEST_SCORE = "best_score"
# What is at the server for the next job alone.
_NOT_HANDED_OUT = ("*.previous*", "*.damaged*", FOLDER, KEPT)


class ModalityFedAvg(FedAvg):
    """Asks every site in every round, and commits the contributions that come in time.

    A site that fails stops nobody else: its reason is logged, and it is asked again in the next
    round. A round that gets too few contributions is asked again; after `attempts` the job stops,
    and all finished rounds are kept. The state of a round is on disk before the next one begins.

    Args:
        aggregator: takes and weighs the contributions.
        persistor_id: of the stage's `BundlePersistor`.
        stage: the stage's name, which is the name of the task too.
        num_rounds: how many rounds the federation has in all, the resumed ones included; 0 = the
            model is validated and nothing else.
        min_sites: contributions that a round needs.
        min_holders: see `Quorum.holders`.
        round_timeout: seconds, see `Quorum.timeout`.
        grace: seconds, see `Quorum.grace`.
        attempts: how often a round is asked that gets too few contributions.
        validate_interval: rounds between two validations at the sites; 0 = never, but after the
            last one.
        validate_last: False = not even then, as for a pre-training.
        export: name of the flat state dict that the last round leaves in the stage's folder, which
            ends in .pt or .ckpt.
        task_check_period: seconds between two looks at what has come.

    Raises:
        ValueError: as in `Quorum`, or a stage or export that is no mere name.
    """

    _always_serialize_args = (
        *("stage", "num_rounds", "min_sites", "min_holders", "round_timeout", "grace"),
        *("attempts", "validate_interval"),
    )

    def __init__(
        self,
        aggregator: ModalityAggregator,
        persistor_id: str,
        stage: str,
        num_rounds: int,
        min_sites: int = 1,
        min_holders: int = 1,
        round_timeout: float = 3600.0,
        grace: float = 60.0,
        attempts: int = 3,
        validate_interval: int = 0,
        validate_last: bool = True,
        export: str = "model.pt",
        task_check_period: float = 0.05,
    ) -> None:
        check_name(stage, "stage")
        if Path(export).suffix not in (".pt", ".ckpt"):
            raise ValueError(
                f"export: expected a name that ends in .pt or .ckpt, got {export!r:.100}"
            )
        check_name(export.removesuffix(Path(export).suffix), "export")
        super().__init__(
            aggregator=aggregator,
            persistor_id=persistor_id,
            num_rounds=num_rounds,
            ignore_result_error=True,
            task_name=stage,
            task_check_period=task_check_period,
        )
        self.quorum = Quorum(min_sites, min_holders, round_timeout, grace)
        self.stage, self.attempts = stage, attempts
        self.min_sites, self.min_holders = min_sites, min_holders
        self.round_timeout, self.grace = round_timeout, grace
        self.validate_interval, self.validate_last = validate_interval, validate_last
        self.export = export
        self._lock = threading.Lock()
        self._failed: dict[str, str] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._scores: dict[str, Sums] = {}
        self._unscored: dict[str, str] = {}
        self._holders: dict[str, set[str]] = {}
        self._attendance, self._asked = Attendance(), []
        self._left_out: set[str] = set()
        self._best: float | None = None

    def run(self) -> None:
        """Run the rounds that are left, then validate and export."""
        try:
            model = self.load_model()
        except ValueError as error:
            self.panic(str(error))
            return
        if model is None:
            return
        factor = self.aggregator.case_factor
        self.log = RoundLog(self.persistor.folder, self.aggregator.modalities, factor)
        self.aggregator.report_dir = str(self.persistor.folder)
        first = self._first_round(model)
        self.current_round = first
        if first >= self.num_rounds and self.validate_last:
            # Nothing is left to train: score the model as it is.
            self._validate(model, self.num_rounds)
            if not any(self._scores.values()):
                self.panic(f"no site has scored the model: {self._unscored or 'no site has cases'}")
                return
        for number in range(first, self.num_rounds):
            self.current_round = number
            model = self._round(model)
            if model is None:
                return
            if self._is_due(number + 1):
                self._validate(model, number + 1)
        if self.num_rounds:
            self.info(f"wrote {self.persistor.export(self.export)} to {self.export}")
        self._hand_out()

    def _first_round(self, model: FLModel) -> int:
        """Find the first round to run, and give a new federation its `RUN` word."""
        meta = dict(model.meta or {})
        first = int(meta["current_round"]) + 1 if self.persistor.resumed else 0
        meta.setdefault(RUN, uuid.uuid4().hex)
        meta.setdefault(COUNTED_SITES, [])
        meta[STAGE] = self.stage
        identity = installed_identity(self.persistor.training)
        self.aggregator.expect(identity)
        meta[IDENTITY] = identity._asdict()
        model.meta = meta
        self._best = meta.get(BEST_SCORE)
        if first:
            self.info(
                f"stage {self.stage}: the job goes on with round {first} of {self.num_rounds}"
            )
        return first

    def _is_due(self, rounds: int) -> bool:
        """Say whether the model is scored after so many rounds."""
        if rounds == self.num_rounds:
            return self.validate_last
        return self.validate_interval > 0 and rounds % self.validate_interval == 0

    def _round(self, model: FLModel) -> FLModel | None:
        """Ask for a round until it has its quorum; None = it has not, and the job has ended."""
        for attempt in range(1, self.attempts + 1):
            started = time.monotonic()
            if not self._ask_for_round(model):
                return None
            accepted, refused = self.aggregator.accepted, self.aggregator.refused
            enough = self.quorum.enough(len(accepted))
            reached = self._commit(model) if enough else None
            # Not before the state is on disk.
            self._note_round(attempt, reached is not None, started, accepted, refused)
            if enough:
                return reached
            self.warning(
                f"round {self.current_round}, attempt {attempt} of {self.attempts}: "
                f"expected at least {self.min_sites} contributions, got {len(accepted)}. Refused: "
                f"{dict(refused)}. The model stays as it was"
            )
        self.panic(
            f"round {self.current_round} got fewer than {self.min_sites} contributions "
            f"{self.attempts} times. The state of before is in "
            f"{self.persistor.folder}. Resume the job when the sites are back."
        )
        return None

    def _note_round(
        self,
        attempt: int,
        committed: bool,
        started: float,
        accepted: Mapping[str, Contribution],
        refused: Mapping[str, str],
    ) -> None:
        """Write a round into the log; a full disk costs the line."""
        try:
            self.log.note_round(
                self.current_round, attempt, committed, started, self._facts, accepted, refused
            )
        except OSError as error:
            self.error(f"round {self.current_round} is not in the log of rounds: {error}")

    def _ask_for_round(self, model: FLModel) -> bool:
        """Collect one attempt's contributions in the aggregator; False = the job was aborted."""
        sites = self._sites()
        self._set_round(model)
        self.event(AppEventType.ROUND_STARTED)
        with self._lock:
            self._failed, self._facts, self._asked = {}, {}, list(sites)
            method = getattr(self.persistor, "model", None)
            counted = model.meta.get(COUNTED_SITES, ())
            self.aggregator.begin(model.params, self.current_round, sites, method, counted)
        going_on = self._ask(self.stage, model, sites, self._take, self._has_quorum)
        # NVFlare's context of the last answer would keep it in memory through the commit.
        self.fl_ctx.set_prop(FLContextKey.TASK_RESULT, None, private=True, sticky=False)
        with self._lock:
            for site, reason in self._failed.items():
                if site not in self.aggregator.accepted:
                    self.aggregator.refuse(site, reason)
            self.aggregator.check_kept()
            accepted = self.aggregator.accepted
            self._attendance.note(sites, {*accepted, *self.aggregator.refused})
            if not going_on or not self.quorum.enough(len(accepted)):
                self.aggregator.discard()
        return going_on

    def _sites(self) -> list[str]:
        """Name the sites that are asked: with a list of the coordinator, those of it alone."""
        connected = self.sample_clients(None)
        sites = [site for site in connected if self.aggregator.is_listed(site)]
        others = set(connected) - set(sites) - self._left_out
        if others:
            self._left_out |= others
            told = ", ".join(one_line(site, LONGEST_NAME) for site in sorted(others))
            self.warning(f"not in the coordinator's list of sites, and never asked: {told}")
        return sites

    def _set_round(self, model: FLModel) -> None:
        model.current_round, model.start_round = self.current_round, 0
        model.total_rounds = self.num_rounds
        self.fl_ctx.set_prop(
            AppConstants.CURRENT_ROUND, self.current_round, private=True, sticky=False
        )

    def _ask(
        self,
        task: str,
        model: FLModel,
        sites: list[str],
        callback: Callable[[FLModel], bool],
        reached: Callable[[], bool],
    ) -> bool:
        """Send a task to all sites, and wait as the quorum says; False = the job was aborted."""
        if not sites:
            return not self.abort_signal.triggered
        started, reached_at = time.monotonic(), None
        self.broadcast_model(model, task, targets=sites, blocking=False, callback=callback)
        while self.get_num_standing_tasks():
            if self.abort_signal.triggered:
                return False
            now = time.monotonic()
            if reached_at is None and reached():
                reached_at = now
            if self.quorum.over(now, started, reached_at):
                self.info(f"task {task}: the server waits no longer for the other sites")
                self.cancel_all_tasks()
                break
            time.sleep(self._task_check_period)
        while self.get_num_standing_tasks() and not self.abort_signal.triggered:
            time.sleep(self._task_check_period)
        return not self.abort_signal.triggered

    def _has_quorum(self) -> bool:
        with self._lock:
            accepted, names = self.aggregator.accepted, self.aggregator.modalities
            answered = {*accepted, *self.aggregator.refused, *self._failed}
            enough = self.quorum.enough(len(accepted))
            if enough and not self._attendance.awaits(self._asked, answered):
                return True
            # Before the first round nobody knows who has what.
            rare = (
                self._attendance.within_reach(
                    self._holders, names, self._asked, answered - set(accepted)
                )
                if self._holders
                else {}
            )
            return self.quorum.reached([given.cases for given in accepted.values()], names, rare)

    def _take(self, message: FLModel) -> bool:
        """Take one site's answer to a round."""
        site = sender(message) or "an unknown sender"
        with self._lock:
            reason = read_refusal(message)
            if reason is not None:
                self.aggregator.refuse(site, reason)
                return False
            taken = self.aggregator.accept_model(message)
            if taken:
                self._facts[site] = dict(self.aggregator.accepted[site].facts)
            return taken

    def process_result_of_unknown_task(
        self,
        client: Client,
        task_name: str,
        client_task_id: str,
        result: Shareable,
        fl_ctx: FLContext,
    ) -> None:
        """Drop an answer that comes too late; whoever sends it is not silent."""
        with self._lock:
            self._attendance.heard(client.name)
        self.info(f"task {task_name}: the answer of {client.name} came too late and is dropped")

    def _accept_train_result(
        self, client_name: str, result: Shareable, fl_ctx: FLContext, is_unknown_task: bool = False
    ) -> bool:
        """Note whose trainer failed, or whose message is none: the report says who is missing.

        NVFlare would only log a message that it cannot convert, and one whose return code cannot
        be compared would end the task for all sites.
        """
        try:
            # NVFlare compares it and prints it.
            code = result.get_return_code()
            if code and one_line(code, LONGEST_NAME) != code:
                raise ValueError("expected a short word as its return code")
            reason = f"its trainer failed ({code})"
            fine = super()._accept_train_result(client_name, result, fl_ctx, is_unknown_task)
            if fine:
                FLModelUtils.from_shareable(result)
        except Exception as error:
            fine, reason = False, f"its message cannot be read ({reason_of(error)})"
        if not fine and not is_unknown_task:
            with self._lock:
                self._failed[client_name] = one_line(reason, LONGEST_REASON)
        return fine

    def _commit(self, model: FLModel) -> FLModel | None:
        """Update the global model, and write it to disk before anything else happens.

        Returns:
            The new model; None = it could not be written, and the job has ended.
        """
        with self._lock:
            accepted, adding = self.aggregator.accepted, self.aggregator.adding
            result = self._get_aggregated_result()
        # One whose kept contribution was damaged meanwhile is not in it.
        accepted = {site: accepted[site] for site in result.meta[ACCEPTED_SITES]}
        for site, given in accepted.items():
            for name, cases in given.cases.items():
                if cases:
                    self._holders.setdefault(name, set()).add(site)
        # What a site says of itself does not let it add its sums twice.
        said = {site for site, facts in self._facts.items() if facts.get("collected")}
        counted = (said | adding) & set(accepted)
        kept = {
            key: model.meta[key] for key in (RUN, STAGE, IDENTITY, BEST_SCORE) if key in model.meta
        }
        result.meta |= kept
        result.meta[COUNTED_SITES] = sorted({*model.meta.get(COUNTED_SITES, ()), *counted})
        model = self.update_model(model, result)
        self.persistor.contributors = sorted(accepted)
        try:
            self.save_model(model)
        except OSError as error:
            self.panic(
                f"round {self.current_round} was not saved: {error} The state of before is whole, "
                f"in {self.persistor.folder}. Make room there, and resume the job."
            )
            return None
        self.aggregator.report()
        return model

    def _validate(self, model: FLModel, rounds: int) -> None:
        """Let the sites score the global model on their own held-out cases; keep the best model."""
        self._set_round(model)
        self._scores, self._unscored, self._failed = {}, {}, {}
        sites = self._asked = self._sites()
        if not self._ask(VALIDATE, model, sites, self._take_scores, self._has_scores):
            return
        self._unscored = {**self._failed, **self._unscored}
        found = standing(self._scores)
        self.log.note_validation(rounds, self._scores, found, self._unscored)
        self.info(f"scores after {rounds} rounds: {found}")
        worst = found["worst"]
        # A mean hides a site that gains nothing from the federation: the worst one counts half.
        score = None if worst is None else (found["mean"] + worst) / 2
        if score is not None and self.num_rounds and (self._best is None or score > self._best):
            self._best = model.meta[BEST_SCORE] = score
            learnable = make_model_learnable(model.params, model.meta)
            self.persistor.save_best(learnable, self.fl_ctx)
            self.info(f"this is the best model so far: {score:.4f}, average of mean and worst site")

    def _has_scores(self) -> bool:
        answered = {*self._scores, *self._unscored, *self._failed}
        if not self._attendance.awaits(self._asked, answered):
            return True
        return self.quorum.enough(len(self._scores))

    def _take_scores(self, message: FLModel) -> bool:
        site, reason = sender(message) or "an unknown sender", read_refusal(message)
        self._attendance.heard(site)
        if site not in self._asked:
            reason = "it was not asked for scores"
        if reason is None:
            try:
                dice = (message.metrics or {}).get("dice")
                self._scores[site] = read_sums(
                    dice, self.aggregator.modalities, site, self._regions()
                )
                return True
            except Exception as error:
                # Whatever a site sends must not end the job.
                reason = reason_of(error)
        self._unscored[site] = one_line(reason, LONGEST_REASON)
        self.warning(f"no scores from {one_line(site, LONGEST_NAME)}: {self._unscored[site]}")
        return False

    def _regions(self) -> list[str] | None:
        """Name the job's regions; None = nothing says them."""
        workflow = getattr(self.persistor, "workflow", None)
        return None if workflow is None else list(workflow.parser.get_parsed_content("regions"))

    def _hand_out(self) -> None:
        """Copy model and reports into the job's folder, which its submitter can download."""
        source, target = Path(self.persistor.folder), Path(self.get_run_dir()) / self.stage
        if source.resolve() == target.resolve() or not source.is_dir():
            return
        shutil.copytree(
            source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_NOT_HANDED_OUT)
        )
