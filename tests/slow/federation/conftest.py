"""A federation in one process: the real configs, clients, filters, aggregator and wire format."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from federation.aggregator import ModalityAggregator
from federation.client import Client
from federation.job import read_rules, statistics_of
from federation.messages import COUNTED_SITES, RUN, STAGE, read_facts, read_refusal
from federation.persistor import BundlePersistor
from federation.precision import FullPrecision, HalfPrecision
from federation.site import Site
from federation.stages import Stage
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_opt.pt.decomposers import TensorDecomposer
from nvflare.fuel.utils import fobs

from bundle.data.datalist import SECTIONS, load_datalist, write_datalist
from bundle.modalities import BRATS_MODALITIES

SMALL = {"filters": 4, "blocks_down": [1, 1, 1], "deep_supervision": 2, "epoch_samples": 4}
PATCHES = {"patch": 8, "descriptor_patch": 4}


@pytest.fixture
def stage() -> Callable[..., Stage]:
    """Give stage(task, overlays, **settings): a small stage on top of train.json."""

    def make(task: str, overlays: Sequence[str], rounds: int = 2, **settings: Any) -> Stage:
        configs = ["train.json", *overlays, "benchmark.yaml"]
        return Stage(task, configs, rounds, 1, {**SMALL, **settings})

    return make


@pytest.fixture
def share(phantom: Path, tmp_path: Path) -> Callable[..., Site]:
    """Give share(name, cases, modalities): a site with these training cases of the phantom."""

    def make(name: str, cases: Sequence[int], modalities: Sequence[str] | str = "all") -> Site:
        kept = BRATS_MODALITIES if modalities == "all" else modalities
        datalist = load_datalist(str(phantom), BRATS_MODALITIES)
        for item in (item for section in SECTIONS for item in datalist[section]):
            item["image"] = {m: item["image"][m] for m in kept}
        datalist["training"] = [datalist["training"][index] for index in cases]
        path = tmp_path / f"{name}.json"
        write_datalist(datalist, path)
        ids = {"datalist_file": str(path), "cache_dir": None}
        return Site(name, ids, tmp_path / "state" / name)

    return make


class Federation:
    """Rounds of a stage, with everything real but the network cable and the processes.

    Messages go through NVFlare's own serialisation; what travelled is kept in `sent`.
    """

    def __init__(self, stage: Stage, sites: Sequence[Site], folder: Path, half: bool) -> None:
        self.stage, self.sites, self.half = stage, list(sites), half
        self.clients = {site.name: self.client(site) for site in sites}
        self.modalities, self.rules = read_rules(stage)
        self.aggregator = ModalityAggregator(self.modalities, self.rules, report_dir=str(folder))
        self.aggregator.fl_ctx = FLContext()
        context = FLContext()
        context.set_prop(FLContextKey.APP_ROOT, str(folder), private=True, sticky=False)
        self.persistor = BundlePersistor("test", stage.to_dict())
        self.persistor._initialize(context)
        self.state = dict(self.persistor.load_model(context)[ModelLearnableKey.WEIGHTS])
        self.counted: list[str] = []
        self.sent: dict[str, bytes] = {}
        self.refusals: dict[str, str] = {}
        self.number = 0

    def client(self, site: Site) -> Client:
        """Start a new trainer at a site, as NVFlare does for each task."""
        return Client(site, "test", [self.stage.to_dict()])

    def message(self) -> FLModel:
        """Return what the server sends, as it arrives."""
        meta = {COUNTED_SITES: self.counted, RUN: "run", STAGE: self.stage.task}
        model = FLModel(
            ParamsType.FULL, copy.deepcopy(self.state), current_round=self.number, meta=meta
        )
        return self._travel(model, None)

    def _travel(self, model: FLModel, sender: str | None) -> FLModel:
        fobs.register(TensorDecomposer)
        shareable = FLModelUtils.to_shareable(model)
        context = FLContext()
        if self.half:
            shareable = HalfPrecision(statistics_of(self.rules)).process(shareable, context)
        written = fobs.dumps(shareable)
        if sender is not None:
            self.sent[sender] = written
        shareable = fobs.loads(written)
        if self.half:
            shareable = FullPrecision().process(shareable, context)
        return FLModelUtils.from_shareable(shareable)

    def round(self, only: Sequence[str] | None = None) -> Mapping[str, torch.Tensor]:
        """Run a round with all clients or some; return the global state before it."""
        before = copy.deepcopy(self.state)
        self.aggregator.begin(self.state, self.number, list(self.clients))
        for name, client in self.clients.items():
            if only is not None and name not in only:
                continue
            answer = self._travel(client.answer(self.stage.task, self.message()), name)
            answer.meta["client_name"] = name
            reason = read_refusal(answer)
            if reason is not None:
                self.refusals[name] = reason
                self.aggregator.refuse(name, reason)
            elif self.aggregator.accept_model(answer) and read_facts(answer)["collected"]:
                self.counted.append(name)
        self.refusals |= self.aggregator.refused
        update = self.aggregator.aggregate_model().params
        self.state = {k: v + update[k] if k in update else v for k, v in self.state.items()}
        self.number += 1
        return before


@pytest.fixture
def federate(tmp_path: Path) -> Callable[..., Federation]:
    """Give federate(stage, sites, half=False): a federation in this process."""

    def make(stage: Stage, sites: Sequence[Site], half: bool = False) -> Federation:
        return Federation(stage, sites, tmp_path / "server", half)

    return make
