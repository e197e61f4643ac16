"""Builds the global model, and keeps it at the server."""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import JobMetaKey
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_opt.pt.file_model_persistor import PTFileModelPersistor

from bundle.atomic import write_text_atomically
from bundle.training.weights import load_pretrained
from federation.protocol.changes import MADE_WITH, check_changes, made_with
from federation.protocol.identity import check_unchanged
from federation.protocol.site_text import LONGEST_NAME, one_line
from federation.protocol.stages import check_name, installed_identity, read_stages, read_workflow
from federation.server.aggregator import KEPT
from federation.server.checkpoint import export_model
from federation.server.lock import FederationLock, take_lock
from federation.server.states import LAST, Found, States, set_aside_stage
from federation.settings import find_site

logger = logging.getLogger(__name__)

SERVER = "server"
BEST = "best_FL_global_model.pt"
PRETRAINED = "pretrained.ckpt"
# A line for each job that has taken a stage up again: from which state, and what it has changed.
RESUMES = "resumes.jsonl"


class BundlePersistor(PTFileModelPersistor):
    """Builds a stage's method from the bundle's configs, and keeps its state at the server.

    The files lie in `<state_dir>/<federation>/<stage>` of the server's own settings (see
    `federation.settings`), where a job that resumes a lost one finds them; without settings, in the
    job's own folder.

    Args:
        federation: the federation's name.
        stage: the training, as `Stage.to_dict` writes it.
        resume: True = go on from the newest whole state; see `federation.server.states`.
        pretrained: an earlier stage of this federation, whose network starts the configs'
            `pretrained_part`; None = none.

    Attributes:
        resumed: True = the state that was loaded is an earlier job's.
        contributors: the sites whose updates are in the next state to be saved.

    Raises:
        ValueError: as in `Stage` and `check_name`.
    """

    _always_serialize_args = ("federation", "stage", "resume")

    def __init__(
        self,
        federation: str,
        stage: Mapping[str, Any],
        resume: bool = False,
        pretrained: str | None = None,
    ) -> None:
        super().__init__(
            global_model_file_name=LAST,
            best_global_model_file_name=BEST,
            allow_numpy_conversion=False,
            load_device="cpu",
        )
        check_name(federation, "federation")
        if pretrained is not None:
            check_name(pretrained, "pretrained")
        self.federation, self.stage = federation, stage
        self.resume, self.pretrained = resume, pretrained
        self.training = next(iter(read_stages([stage]).values()))
        self._root: Path | None = None
        self._lock: FederationLock | None = None
        self._job = "a job without a name"
        self.resumed = False
        self.contributors: Collection[str] = ()

    @property
    def folder(self) -> Path:
        """The stage's folder at the server; known once the job runs."""
        return self._root / self.training.task

    @property
    def states(self) -> States:
        """The stage's states on disk."""
        return States(self.folder)

    def _initialize(self, fl_ctx: FLContext) -> None:
        app_root = Path(fl_ctx.get_prop(FLContextKey.APP_ROOT))
        state_dir = find_site(SERVER, app_root).state_dir or app_root / "patchwork"
        self._root = state_dir / self.federation
        meta = fl_ctx.get_prop(FLContextKey.JOB_META) or {}
        # A job names itself, and the name ends in logs and in messages to others.
        name = one_line(meta.get(JobMetaKey.JOB_NAME.value, "a job"), LONGEST_NAME)
        self._job = f"{name} ({fl_ctx.get_job_id()})"
        own = read_workflow(self.training, {}).parser.get("at_server") or {}
        self.workflow = read_workflow(self.training, {"pretrained_file": None, **own})
        self.workflow.initialize()
        self.model = self.workflow.parser.get_parsed_content("method")
        super()._initialize(fl_ctx)
        self._ckpt_save_path = str(self.folder / LAST)
        self._best_ckpt_save_path = str(self.folder / BEST)

    def handle_event(self, event: str, fl_ctx: FLContext) -> None:
        """Begin and end with the job; end it where its code is no longer what is on disk."""
        super().handle_event(event, fl_ctx)
        if event == AppEventType.ROUND_STARTED:
            try:
                check_unchanged(self.training.configs)
            except (ValueError, OSError) as error:
                self.system_panic(str(error), fl_ctx)
        if event == EventType.END_RUN and self._lock is not None:
            self._lock.release()

    def load_model(self, fl_ctx: FLContext) -> ModelLearnable | None:
        """Load the newest whole state, or build the first one.

        Raises:
            ValueError: another job of the federation runs; all states are damaged; what they were
                made with has changed; or there is none, and nothing is to be trained.
        """
        # Before anything is renamed.
        self._lock = take_lock(self._root, self._job)
        self.folder.mkdir(parents=True, exist_ok=True)
        found = self.states.newest() if self.resume else None
        self.resumed = found is not None
        self.source_ckpt_file_full_name = str(self.folder / LAST) if found else None
        if found is not None:
            changed = check_changes(
                found.content.get(MADE_WITH), self._made_with(), self.training.accept_changes
            )
            self._note_resume(found, changed)
        else:
            self._start_anew()
        learnable = super().load_model(fl_ctx)
        if learnable is None:
            return None
        weights = learnable[ModelLearnableKey.WEIGHTS]
        # NVFlare's wire takes no other layout, such as channels_last.
        learnable[ModelLearnableKey.WEIGHTS] = {k: v.contiguous() for k, v in weights.items()}
        if found is None and self.training.rounds:
            self.persistence_manager.meta = {"current_round": -1}
            self.states.save(self._content(), 0)
        return learnable

    def _start_anew(self) -> None:
        if self.training.rounds == 0:
            raise ValueError(
                f"stage {self.training.task}: expected a state to score in {self.folder}, found "
                f"none. Train the federation {self.federation} first."
            )
        if self.resume:
            logger.info(f"found no {self.folder / LAST}: the federation starts at round 0")
        # What a server that was killed had taken of its last round is nobody's state.
        shutil.rmtree(self.folder / KEPT, ignore_errors=True)
        kept = set_aside_stage(self.folder)
        if kept is not None:
            logger.info(f"kept what an earlier federation of this name left, as {kept.name}")
        if self.pretrained is not None:
            self._start_from(self._root / self.pretrained)

    def _note_resume(self, found: Found, changed: Sequence[str]) -> None:
        """Write down from where a job goes on, and what it has changed."""
        for line in changed:
            logger.warning(f"the job goes on with a change: {line}")
        path = self.folder / RESUMES
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "job": self._job,
            "rounds": found.rounds,
            "state": found.path.relative_to(self.folder).as_posix(),
            "damaged": found.set_aside,
            "accepted_changes": list(changed),
        }
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        write_text_atomically(path, before + json.dumps(entry) + "\n")

    def _made_with(self) -> dict[str, Any]:
        return made_with(installed_identity(self.training), self.workflow.parser)

    def _content(self) -> dict[str, Any]:
        content = self._get_persistence_manager(None).to_persistence_dict()
        return {**content, MADE_WITH: self._made_with()}

    def save_model(self, ml: ModelLearnable, fl_ctx: FLContext) -> None:
        """Write the state after a round; it is on disk when this returns.

        Raises:
            OSError: the disk is full; the states before are intact.
        """
        self._get_persistence_manager(fl_ctx).update(ml)
        rounds = int(ml[ModelLearnableKey.META]["current_round"]) + 1
        self.states.save(self._content(), rounds, self.contributors)

    def _start_from(self, folder: Path) -> None:
        """Start the network's pre-trained part from the state of an earlier stage."""
        part = self.workflow.parser.get_parsed_content("pretrained_part")
        if part is None:
            raise ValueError(
                f"stage {self.training.task}: expected a network with a part that is pre-trained "
                f"('pretrained_part' of its configs), got none. Leave out the stage {folder.name}."
            )
        load_pretrained(part, str(folder / PRETRAINED))

    def save_best(self, learnable: ModelLearnable, fl_ctx: FLContext) -> None:
        """Keep a state as the best so far, beside the last one."""
        self._get_persistence_manager(fl_ctx).update(learnable)
        self.save_model_file(self._best_ckpt_save_path)

    def export(self, name: str) -> str:
        """Write the last state's network as a flat state dict, `name` in the stage's folder."""
        parser, network = self.workflow.parser, self.model.network
        private = parser.get_parsed_content("exchange").get("private_parameters", ())
        # What nobody trains, such as prompts, is the same at all sites without having travelled.
        trained = [f"network.{key}" for key, _ in network.named_parameters()]
        return export_model(
            self.folder / LAST,
            network,
            self.folder / name,
            parser.get_parsed_content("made_for"),
            parser.get_parsed_content("made_with"),
            [p for p in private if any(re.search(p, key) for key in trained)],
        )
