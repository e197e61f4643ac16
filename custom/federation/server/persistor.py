"""Builds the global model, and keeps it at the server."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey
from nvflare.app_opt.pt.file_model_persistor import PTFileModelPersistor

from bundle.training.weights import load_pretrained
from federation.protocol.stages import check_name, read_stages, read_workflow
from federation.server.checkpoint import export_model
from federation.settings import find_site

logger = logging.getLogger(__name__)

SERVER = "server"
LAST, BEST = "FL_global_model.pt", "best_FL_global_model.pt"
PRETRAINED = "pretrained.ckpt"


class BundlePersistor(PTFileModelPersistor):
    """Builds a stage's method from the bundle's configs, and keeps its state at the server.

    The files lie in `<state_dir>/<federation>/<stage>` of the server's own settings (see
    `federation.settings`), where a job that resumes a lost one finds them; without settings, in the
    job's own folder.

    Args:
        federation: the federation's name.
        stage: the training, as `Stage.to_dict` writes it.
        resume: True = go on from the last round that was committed.
        pretrained: an earlier stage of this federation, whose network starts the configs'
            `pretrained_part`; None = none.

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

    @property
    def folder(self) -> Path:
        """The stage's folder at the server; known once the job runs."""
        return self._root / self.training.task

    def _initialize(self, fl_ctx: FLContext) -> None:
        app_root = Path(fl_ctx.get_prop(FLContextKey.APP_ROOT))
        state_dir = find_site(SERVER, app_root).state_dir or app_root / "patchwork"
        self._root = state_dir / self.federation
        self.folder.mkdir(parents=True, exist_ok=True)
        own = read_workflow(self.training, {}).parser.get("at_server") or {}
        self.workflow = read_workflow(self.training, {"pretrained_file": None, **own})
        self.workflow.initialize()
        self.model = self.workflow.parser.get_parsed_content("method")
        super()._initialize(fl_ctx)
        self._ckpt_save_path = str(self.folder / LAST)
        self._best_ckpt_save_path = str(self.folder / BEST)

    def load_model(self, fl_ctx: FLContext) -> ModelLearnable | None:
        """Load the last committed state, or build the first one."""
        last = self.folder / LAST
        self.source_ckpt_file_full_name = str(last) if self.resume and last.is_file() else None
        if self.source_ckpt_file_full_name is None:
            if self.resume:
                logger.info(f"found no {last} to resume: the federation starts at round 0")
            self._set_aside()
            if self.pretrained is not None:
                self._start_from(self._root / self.pretrained)
        learnable = super().load_model(fl_ctx)
        if learnable is not None:
            weights = learnable[ModelLearnableKey.WEIGHTS]
            # NVFlare's wire takes no other layout, such as channels_last.
            learnable[ModelLearnableKey.WEIGHTS] = {k: v.contiguous() for k, v in weights.items()}
        return learnable

    @property
    def resumed(self) -> bool:
        """True = the state that was loaded is of an earlier job's last round."""
        return self.source_ckpt_file_full_name is not None

    def _set_aside(self) -> None:
        """Keep what an earlier federation of the same name left, as `.previous`."""
        if any(self.folder.iterdir()):
            previous = self.folder.with_name(f"{self.folder.name}.previous")
            shutil.rmtree(previous, ignore_errors=True)
            self.folder.rename(previous)
            self.folder.mkdir()

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
