"""MONAI Label's app for bundles, which knows cases and asks for the one that is hardest to tell.

`python -m bundle label` copies MONAI Label's own app into a folder, its `main.py` under the name
`stock_main.py`, and the files of this folder beside it. All that the own app can do stays as it is.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import stock_main
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.utils.async_tasks.utils import processes, tasks
from patchwork_batch import CarefulBatch
from patchwork_next import MostDisagreement
from patchwork_scoring import NAME, Disagreement
from patchwork_studies import Studies
from patchwork_training import OneGpuTraining
from patchwork_turns import Turns

logger = logging.getLogger(__name__)


# MONAI Label looks for a class with MONAILabelApp among its own bases.
class PatchworkApp(stock_main.MyApp, MONAILabelApp):
    """The stock app plus one scoring method and one strategy, both called `disagreement`."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.turns = Turns(Path(app_dir) / ".readers.lock")
        super().__init__(app_dir, studies, conf)

    def init_datastore(self) -> Datastore:
        """Show the folder's scans without hidden files and labels; servers as MONAI Label does."""
        configs = {Path(path): _config(Path(path)) for path in self.models.values()}
        ours = [(path, config) for path, config in configs.items() if config.get("modalities")]
        if not ours or self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        root, config = ours[0]
        with _importable(root):
            endings = _endings(config)
        return Studies(
            self.studies,
            config["modalities"],
            endings,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """Refuse weights that fit the network in part."""
        infers = super().init_infers()
        for task in infers.values():
            if _knows_modalities(task):
                task.load_strict = True
        return infers

    def init_trainers(self) -> dict[str, TrainTask]:
        """Train our bundle on one GPU."""
        trainers = super().init_trainers()
        ours = {n: t for n, t in trainers.items() if _knows_modalities(self._infers.get(n))}
        return trainers | {n: OneGpuTraining(t.bundle_path, self.conf) for n, t in ours.items()}

    def init_batch_infer(self) -> Callable[..., dict[str, Any]]:
        """Go on after an image that fails."""
        return CarefulBatch()

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Add the score, of the first model that knows modalities."""
        methods = super().init_scoring_methods()
        for task in filter(_knows_modalities, self._infers.values()):
            endings = _endings(task.bundle_config.config)
            return methods | {NAME: Disagreement(task, endings, self.turns)}
        return methods

    def init_strategies(self) -> dict[str, Strategy]:
        """Add the strategy."""
        strategies = super().init_strategies()
        for task in filter(_knows_modalities, self._infers.values()):
            return strategies | {NAME: MostDisagreement(_endings(task.bundle_config.config))}
        return strategies

    def info(self) -> dict[str, Any]:
        """Tell also how far the scoring is."""
        info = super().info()
        method = self._scoring_methods.get(NAME)
        if method is not None:
            info["scoring"][NAME] |= method.progress(self.datastore())
            info["scoring"][NAME]["running"] = bool(processes("scoring"))
        return info

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Segment a case; a scoring that runs waits before its next case."""
        with self.turns.reading():
            return super().infer(request, datastore)

    def async_scoring(self, method: str | None, params: Any = None) -> Any:
        """Score in a process of its own, unless that would find nothing to do.

        MONAI Label asks for it at the start, after each training and with each next case.
        """
        ours = self._scoring_methods.get(NAME)
        if method is None and ours is not None and len(self._scoring_methods) == 1:
            count = len(ours.open_sources(self.datastore()))
            # One that runs looks for new cases after each, so another would find nothing.
            busy = any(task["status"] in ("SUBMITTED", "RUNNING") for task in tasks("scoring"))
            if busy or not count:
                return {}
            logger.info(f"{NAME}: {count} cases get a score beside other work; see GET /scoring/")
        return super().async_scoring(method, params)


def _config(root: Path) -> dict[str, Any]:
    path = root / "configs" / "inference.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _knows_modalities(task: Any) -> bool:
    return isinstance(task, BundleInferTask) and bool(task.bundle_config.get("modalities"))


def _endings(config: dict[str, Any]) -> dict[str, str]:
    from bundle.data.filenames import file_endings

    more = [config["suffixes"]] if config.get("suffixes") else []
    return file_endings(config["modalities"], *more)


@contextmanager
def _importable(root: Path) -> Iterator[None]:
    """Let Python find the code beside the model, as MONAI Label does while it reads a config."""
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
