"""The trainer at a site: NVFlare's Client API around the bundle's own configs.

    python -m federation.site.client ARGUMENTS

`federation.site.executor.BundleTrainer` starts it; ARGUMENTS is JSON that it writes. A site never
runs a config that was sent: the job names configs of the bundle that is installed here, whose
hash must be the one that the job was made with.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import nvflare.client as flare
from nvflare.app_common.abstract.fl_model import FLModel

from bundle import root_of
from bundle.atomic import make_folder
from federation.protocol.contribution import Contribution
from federation.protocol.identity import check_same, check_unchanged, read_identity
from federation.protocol.message_values import as_state
from federation.protocol.messages import (
    COUNTED_SITES,
    IDENTITY,
    RUN,
    STAGE,
    VALIDATE,
    refusal,
    to_message,
)
from federation.protocol.stages import Stage, check_name, installed_identity, read_stages
from federation.settings import Site, find_site
from federation.site.local_training import LocalTraining, peak_memory_mib
from federation.site.patient_names import identifiers, presentable
from federation.site.state import RunWords, SiteState
from federation.site.sums import Statistics, add_statistics, check_noise_protects, leaving

logger = logging.getLogger(__name__)


class Client:
    """Answers the tasks of a job at one site, if the site's own rules allow it.

    Args:
        site: the site's own settings.
        federation: the federation's name, under which the site keeps its state.
        stages: the job's trainings.
    """

    def __init__(self, site: Site, federation: str, stages: Sequence[Mapping[str, Any]]) -> None:
        self.site, self.federation = site, check_name(federation, "federation")
        self.stages = read_stages(stages)
        self._current: tuple[str, LocalTraining, SiteState] | None = None
        self._words = RunWords()
        # For the next contribution.
        self._notes: list[str] = []

    def answer(self, task: str, message: FLModel) -> FLModel:
        """Do a task, and return what is sent back: a contribution, scores, or why there is none.

        A failed task leaves the site ready for the next one. The site's log says what went wrong;
        the answer names no patient and no path.
        """
        try:
            if task == VALIDATE:
                return self._validate(message)
            return self._train(self._stage(task), message)
        except Exception as error:
            cause = root_of(error)
            logger.exception(
                f"{self.site.name} failed in the task {task}, and sends the reason only"
            )
            # The next task builds the training anew, from the checkpoint: this one is half done.
            self._current = None
            gc.collect()
            return refusal(presentable(cause, self._names()))

    def _stage(self, name: str) -> Stage:
        if name not in self.stages:
            raise ValueError(f"expected one of the tasks {[VALIDATE, *self.stages]}, got {name!r}")
        return self.stages[name]

    def _open(self, stage: Stage, message: FLModel) -> LocalTraining:
        """Return the stage's training; build it where this process has none, with its state.

        Raises:
            ValueError: the server or the job has another bundle, this one has changed on disk
                since the process started, the site's rules do not allow it, or the word of the
                federation's run is none or has changed.
        """
        check_unchanged(stage.configs)
        identity = installed_identity(stage)
        expected = (message.meta or {}).get(IDENTITY)
        if expected is not None:
            check_same(read_identity(expected), identity)
        run = self._run(stage.task, message)
        if self._current is None or self._current[0] != stage.task:
            self._current = None
            gc.collect()
            self._check_there_are_cases(self._listed())
            folder = self._folder(stage)
            make_folder(folder, private=True)
            training, state = LocalTraining(stage, self.site, folder), SiteState(folder)
            # What is listed may have been left out as bad.
            self._check_there_are_cases(training.all_cases)
            check_noise_protects(training, self.site.rules)
            self._notes += state.give_to(training.take_up, run)
            self._current = stage.task, training, state
        return self._current[1]

    def _run(self, stage: str, message: FLModel) -> str:
        return self._words.check(stage, (message.meta or {}).get(RUN))

    def _listed(self) -> int | None:
        """Count the training cases of the datalist; None = it cannot be read here.

        The configs complain of an empty list too, but their message names a file, so that the
        server would not be told.
        """
        content = self._datalist()
        return len(content.get("training") or ()) if isinstance(content, Mapping) else None

    def _check_there_are_cases(self, count: int | None) -> None:
        if count == 0:
            raise ValueError("expected training cases in the site's datalist, got none")
        if count is not None:
            self.site.rules.check_joining(count)

    def _datalist(self) -> Any:
        """Read the site's datalist as it is; None = there is none, or it cannot be read."""
        path = self.site.datalist
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path else None
        except (OSError, ValueError):
            return None

    def _folder(self, stage: Stage) -> Path:
        root = self.site.state_dir or Path.cwd() / "patchwork"
        return root / self.federation / stage.task

    def _train(self, stage: Stage, message: FLModel) -> FLModel:
        started, number = time.monotonic(), _round_of(stage, message)
        training = self._open(stage, message)
        received = as_state(message.params, "the global model")
        training.load_global(received)
        sums = Statistics()
        if self.site.name not in (message.meta or {}).get(COUNTED_SITES, ()):
            sums = add_statistics(training, self.site.rules, received, number)
        if sums.waits:
            logger.info(f"{self.site.name} trains in later rounds: the statistics come first")
        else:
            training.train(number)
        left = leaving(training, self.site.rules, received, sums.collected)
        self._notes += [*sums.notes, *self._keep(training, message)]
        given = Contribution(
            site=self.site.name,
            update=training.exchange.difference(left, received, training.cases),
            cases=training.cases,
            all_cases=training.all_cases,
            identity=installed_identity(stage),
            round=number,
        )
        facts = {
            "collected": sums.collected,
            "seconds": round(time.monotonic() - started, 2),
            "peak_memory_mib": peak_memory_mib(),
            # A round that failed may have noted the same.
            "notes": list(dict.fromkeys(self._notes)),
        }
        self._notes = []
        return to_message(given, facts)

    def _keep(self, training: LocalTraining, message: FLModel) -> list[str]:
        """Write the site's state; a full disk does not cost the round."""
        stage, _, state = self._current
        try:
            run = self._run(stage, message)
            state.save(run, message.current_round or 0, training.own_state())
        except OSError as error:
            logger.error(str(error))
            return ["could not write its state; the one before is intact"]
        return []

    def _validate(self, message: FLModel) -> FLModel:
        stage = self._stage(str((message.meta or {}).get(STAGE)))
        training = self._open(stage, message)
        training.load_global(as_state(message.params, "the global model"))
        rules = self.site.rules
        rules.check_scoring(training.cases_in(stage.section))
        dice = rules.enough_scored(training.score())
        return FLModel(metrics={"dice": dice, "peak_memory_mib": peak_memory_mib()})

    def _names(self) -> Collection[str] | None:
        """List what the site's datalist calls its patients; None = nobody knows."""
        content = self._datalist()
        try:
            return None if content is None else identifiers(content)
        except (ValueError, AttributeError):
            return None


def _round_of(stage: Stage, message: FLModel) -> int:
    """Tell the round; what the server says is a number of the job, or nothing is worked at.

    Raises:
        ValueError: it is none.
    """
    number = 0 if message.current_round is None else message.current_round
    if type(number) is not int or not 0 <= number < max(1, stage.rounds):
        raise ValueError(
            f"expected one of the {stage.rounds} rounds of the stage {stage.task}, counted from 0, "
            f"got {number!r:.50}"
        )
    return number


def main(arguments: Mapping[str, Any], make: Callable[..., Client] = Client) -> None:
    """Answer tasks until the job ends.

    Args:
        arguments: those of `Client` but the site.
        make: makes the client; for tests.
    """
    flare.init()
    client: Client | None = None
    while flare.is_running():
        message = flare.receive()
        if message is None:
            break
        if client is None:
            try:
                client = make(find_site(flare.get_site_name()), **arguments)
            except Exception as error:
                logger.exception("this site cannot take part in the job")
                flare.send(refusal(presentable(error, ())))
                continue
        flare.send(client.answer(flare.get_task_name(), message))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
