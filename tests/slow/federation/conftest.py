"""Federations: in one process with the real parts and wire format, and with certificates."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from federation.filters.half_precision import FullPrecision, HalfPrecision
from federation.job import read_rules, statistics_of
from federation.kit import prepare
from federation.protocol.messages import COUNTED_SITES, RUN, STAGE, read_facts, read_refusal
from federation.protocol.stages import Stage
from federation.rules import Rules
from federation.server.aggregator import ModalityAggregator
from federation.server.persistor import BundlePersistor
from federation.settings import Site
from federation.simulate import prepare_sites
from federation.site.client import Client
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_opt.pt.decomposers import TensorDecomposer
from nvflare.fuel.utils import fobs

import bundle
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
        # Nobody can be recognised in a phantom's cases.
        return Site(name, ids, tmp_path / "state" / name, Rules(statistics_of_few=True))

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
        meta = {COUNTED_SITES: self.counted, RUN: "0" * 32, STAGE: self.stage.task}
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
        self.aggregator.begin(self.state, self.number, list(self.clients), self.persistor.model)
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
        self.aggregator.report()
        self.state = {k: v + update[k] if k in update else v for k, v in self.state.items()}
        self.number += 1
        return before


@pytest.fixture
def federate(tmp_path: Path) -> Callable[..., Federation]:
    """Give federate(stage, sites, half=False): a federation in this process."""

    def make(stage: Stage, sites: Sequence[Site], half: bool = False) -> Federation:
        return Federation(stage, sites, tmp_path / "server", half)

    return make


ROOT = Path(bundle.ROOT)
SERVER, ADMIN, MEMBER = "localhost", "admin@coordination.org", "member@hospital-2.org"
DEPLOYED = {"training": 4, "validation": 2, "testing": 1}
# Seconds between two questions through NVFlare's command, each of which costs a second of CPU time.
ASKING = 3
DEPLOYED_SMALL = "{filters: 4, blocks_down: [1,1,1], deep_supervision: 2, epoch_samples: 16}"


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for own in sockets:
        own.bind(("127.0.0.1", 0))
    ports = [own.getsockname()[1] for own in sockets]
    for own in sockets:
        own.close()
    return ports


def _environment(home: Path, *places: Path) -> dict[str, str]:
    """Variables for a process with a home of its own, and with `places` first on Python's path."""
    found = {
        **os.environ,
        # NVFlare keeps settings in the home folder, and starts `python3`.
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, [*places, ROOT, ROOT / "custom"])),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    found.pop("PATCHWORK_SITE", None)
    return found


@pytest.fixture(scope="session")
def environment_at() -> Callable[..., dict[str, str]]:
    """Give the variables of a started process, by its home folder."""
    return _environment


class Deployment:
    """A server and sites with certificates, as daemons of their own, in a home of their own.

    Args:
        folder: gets all of it.
        sites: name -> modalities, such as "t1+t2"; names of jobs/project.yml.
        cases: of the made-up data's sections.
        path: a folder that comes first on every participant's Python path.
    """

    def __init__(
        self,
        folder: Path,
        sites: Mapping[str, str],
        cases: Mapping[str, int] = DEPLOYED,
        path: Path | None = None,
    ) -> None:
        self.folder, self.sites, self.cases = folder, dict(sites), cases
        self.kits = folder / "deployment" / "patchwork" / "prod_00"
        self.environment = _environment(folder / "home", *([path] if path else []))
        self.small = DEPLOYED_SMALL
        self.daemons: list[subprocess.Popen] = []
        self.session: subprocess.Popen | None = None
        (folder / "home").mkdir()

    def run(self, *words: str, fine: bool = True) -> str:
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=600, cwd=ROOT
        )
        assert not fine or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def nvflare(self, *words: str, who: str = ADMIN, fine: bool = True) -> str:
        return self.run("nvflare", *words, "--startup-kit", str(self.kits / who), fine=fine)

    def provision(self) -> None:
        text = (ROOT / "jobs" / "project.yml").read_text(encoding="utf-8")
        for old, new in zip(("8102", "8103"), free_ports(2), strict=True):
            text = text.replace(old, str(new))
        project = self.folder / "project.yml"
        project.write_text(text, encoding="utf-8")
        self.run("nvflare", "provision", "-p", str(project), "-w", str(self.folder / "deployment"))

    def prepare(self) -> None:
        plan = ";".join(f"{name}:{modalities}" for name, modalities in self.sites.items())
        prepare_sites(self.folder, plan, self.cases, 32, 0)
        prepare(str(self.kits / SERVER))
        for site in self.sites:
            datalist = str(self.folder / "sites" / f"{site}.json")
            prepare(str(self.kits / site), datalist_file=datalist, cache_dir="null")

    def start(self, *names: str, **variables: str) -> None:
        """Start participants, with these variables in their environment."""
        for name in names:
            words = ["bash", str(self.kits / name / "startup" / "sub_start.sh")]
            with (self.folder / f"{name}.out").open("ab") as log:
                environment = {**self.environment, **variables}
                daemon = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
            self.daemons.append(daemon)

    def wait_for_sites(self, count: int) -> None:
        """Wait until so many sites are registered and do nothing."""
        self.wait_for(
            lambda: self.status().count("no_jobs") == count, 240, "sites to register", ASKING
        )

    def status(self) -> str:
        return self.nvflare("system", "status", fine=False)

    def write_job(self, federation: str, *options: str, name: str = "modality_aware") -> Path:
        """Write a small job with the documented command; return its folder."""
        target = Path(tempfile.mkdtemp(dir=self.folder))
        words = ["--output_dir", str(target), "--only", name, "--federation", federation]
        usual = {"--overlays": "benchmark.yaml", "--settings": self.small}
        usual |= {"--pretrain_rounds": "0", "--min_sites": "2"}
        usual |= {"--grace": "300.0", "--round_timeout": "600.0"}
        # An option may be given once.
        words += [word for pair in usual.items() if pair[0] not in options for word in pair]
        self.run("python", "jobs/define.py", *words, *options)
        return target / name

    def submit(self, folder: Path, who: str = ADMIN, fine: bool = True) -> str:
        told = self.nvflare("job", "submit", "-j", str(folder), who=who, fine=fine)
        found = re.search(r"job_id: (\S+)", told)
        return found.group(1) if found else told

    def ask(self, method: str, *words: Any) -> dict[str, Any]:
        """Call a method of the administrator's session: `answer`, or `error` and its text."""
        if self.session is None:
            script = str(Path(__file__).with_name("admin_session.py"))
            self.session = subprocess.Popen(
                [sys.executable, script, ADMIN, str(self.kits / ADMIN)],
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        self.session.stdin.write(json.dumps([method, *words]) + "\n")
        self.session.stdin.flush()
        for line in self.session.stdout:
            # NVFlare may print something in between.
            with contextlib.suppress(ValueError):
                return json.loads(line)
        raise AssertionError("the administrator's session has ended")

    def job_status(self, job: str) -> str:
        return str(self.ask("get_job_status", job).get("answer"))

    def wait_for_job(self, job: str) -> None:
        self.wait_for(lambda: "FINISHED" in self.job_status(job), 600, "the job to finish")

    def state(self, federation: str) -> Path:
        """Where the server keeps a federation's stages."""
        return self.kits / SERVER / "state" / federation

    def processes(self, *words: str) -> list[int]:
        """List the processes that name this deployment's own folder and these words."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                place = os.readlink(path / "cwd")
            except OSError:
                continue
            mine = str(self.kits) in command or place.startswith(str(self.kits))
            mine &= self.session is None or int(path.name) != self.session.pid
            if mine and all(word in f"{command} {place}" for word in words):
                found.append(int(path.name))
        return found

    def kill(self, *words: str) -> int:
        """Kill these processes, and what they start meanwhile; return how many there were."""
        killed: set[int] = set()
        deadline = time.monotonic() + 60
        while found := self.processes(*words):
            assert time.monotonic() < deadline, f"processes {found} of {words} do not end"
            for process in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            killed |= set(found)
            time.sleep(0.5)
        # To a start script, a daemon that nobody has waited for still runs.
        for daemon in self.daemons:
            if daemon.pid in killed:
                daemon.wait(timeout=60)
        return len(killed)

    def stop(self) -> None:
        if self.session is not None:
            self.session.kill()
            self.session.communicate()
        self.kill()
        for daemon in self.daemons:
            daemon.wait(timeout=60)

    @staticmethod
    def wait_for(
        condition: Callable[[], bool], seconds: float, what: str, pause: float = 1
    ) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
            time.sleep(pause)


@pytest.fixture(scope="module")
def deploy(tmp_path_factory) -> Iterator[Callable[..., Deployment]]:
    """Give deploy(sites, **others): a prepared deployment; what it starts ends with the module."""
    if shutil.which("nvflare", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("the command nvflare is not in this environment")
    made: list[Deployment] = []

    def make(sites: Mapping[str, str], **others: Any) -> Deployment:
        made.append(Deployment(tmp_path_factory.mktemp("deployed"), sites, **others))
        made[-1].provision()
        made[-1].prepare()
        return made[-1]

    yield make
    for deployment in made:
        deployment.stop()
