"""The documented way with certificates: provision, prepare, start, submit, download."""

from __future__ import annotations

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
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from federation.kit import prepare
from federation.round_log import ROUNDS, VALIDATIONS, read_log
from federation.secrecy import identifiers
from federation.simulate import prepare_sites

import bundle
from bundle.data.datalist import load_datalist
from bundle.modalities import BRATS_MODALITIES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(bundle.ROOT)
SITES = {"site-1": "t1+t1ce+t2+flair", "site-2": "t2"}
SETTINGS = "{filters: 4, blocks_down: [1,1,1], deep_supervision: 2, epoch_samples: 16}"
CASES = {"training": 4, "validation": 2, "testing": 1}
ADMIN, MEMBER = "admin@coordination.org", "member@hospital-2.org"


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for own in sockets:
        own.bind(("127.0.0.1", 0))
    ports = [own.getsockname()[1] for own in sockets]
    for own in sockets:
        own.close()
    return ports


class Deployment:
    """A server and two sites with certificates, as daemons of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kits = folder, folder / "deployment" / "patchwork" / "prod_00"
        self.environment = {
            **os.environ,
            # NVFlare keeps settings in the home folder, and starts `python3`.
            "HOME": str(folder / "home"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "custom")]),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        self.environment.pop("PATCHWORK_SITE", None)
        self.daemons: list[subprocess.Popen] = []
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
        plan = ";".join(f"{name}:{modalities}" for name, modalities in SITES.items())
        prepare_sites(self.folder, plan, CASES, 32, 0)
        prepare(str(self.kits / "localhost"))
        for site in SITES:
            datalist = str(self.folder / "sites" / f"{site}.json")
            prepare(str(self.kits / site), datalist_file=datalist, cache_dir="null")

    def start(self) -> None:
        for name in ("localhost", *SITES):
            words = ["bash", str(self.kits / name / "startup" / "sub_start.sh")]
            with (self.folder / f"{name}.out").open("wb") as log:
                daemon = subprocess.Popen(words, env=self.environment, stdout=log, stderr=log)
            self.daemons.append(daemon)
        wait_for(lambda: self.status().count("no_jobs") == len(SITES), 240, "sites to register")

    def status(self) -> str:
        return self.nvflare("system", "status", fine=False)

    def submit(self, folder: Path, who: str = ADMIN, fine: bool = True) -> str:
        told = self.nvflare("job", "submit", "-j", str(folder), who=who, fine=fine)
        found = re.search(r"job_id: (\S+)", told)
        return found.group(1) if found else told

    def job_status(self, job: str) -> str:
        lines = self.nvflare("job", "list", fine=False).splitlines()
        return next((line for line in lines if job in line), "")

    def state(self, federation: str) -> Path:
        return self.kits / "localhost" / "state" / federation

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
            if mine and all(word in f"{command} {place}" for word in words):
                found.append(int(path.name))
        return found

    def stop(self) -> None:
        for name in ("localhost", *SITES):
            (self.kits / name / "shutdown.fl").touch()
        for _ in range(3):
            for process in self.processes():
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(1)
        for daemon in self.daemons:
            daemon.wait(timeout=60)


def wait_for(condition, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(2)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory) -> Iterator[Deployment]:
    if shutil.which("nvflare", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("the command nvflare is not in this environment")
    made = Deployment(tmp_path_factory.mktemp("deployed"))
    made.provision()
    made.prepare()
    made.start()
    yield made
    made.stop()


def write_job(deployment: Deployment, federation: str, *options: str) -> Path:
    target = Path(tempfile.mkdtemp(dir=deployment.folder))
    words = ["--output_dir", str(target), "--only", "modality_aware", "--federation", federation]
    small = ["--overlays", "benchmark.yaml", "--settings", SETTINGS, "--pretrain_rounds", "0"]
    waits = ["--min_sites", "2", "--round_timeout", "600.0", "--grace", "300.0"]
    deployment.run("python", "jobs/define.py", *words, *small, *waits, *options)
    return target / "modality_aware"


@pytest.fixture(scope="module")
def finished(deployment) -> tuple[str, Path]:
    """A job that has finished although a trainer was killed in it: its id, the server's folder."""
    job = deployment.submit(write_job(deployment, "first", "--rounds", "4"))
    folder = deployment.state("first") / "train"
    wait_for(lambda: len(read_log(folder / ROUNDS)) >= 1, 300, "the first round")
    trainers = deployment.processes("federation.client", "site-1")
    assert len(trainers) == 1
    os.kill(trainers[0], signal.SIGKILL)
    wait_for(lambda: "FINISHED" in deployment.job_status(job), 600, "the job to finish")
    return job, folder


def test_the_job_finishes_with_every_site_in_every_round(deployment, finished):
    job, folder = finished
    assert "FINISHED:COMPLETED" in deployment.job_status(job)
    rounds = read_log(folder / ROUNDS)
    assert [entry["round"] for entry in rounds] == [0, 1, 2, 3]
    assert all(sorted(entry["sites"]) == list(SITES) for entry in rounds)
    scores = read_log(folder / VALIDATIONS)[-1]
    assert {site: len(dice) for site, dice in scores["dice"].items()} == {"site-1": 15, "site-2": 1}


def test_the_killed_trainer_was_replaced(deployment, finished):
    logs = [path.read_text() for path in (deployment.kits / "site-1").rglob("log.txt")]
    assert any("the trainer has died" in text for text in logs)
    assert not any(
        "the trainer has died" in p.read_text()
        for p in (deployment.kits / "site-2").rglob("log.txt")
    )


def test_the_result_comes_home_with_the_job(deployment, finished):
    job, folder = finished
    target = deployment.folder / "download"
    deployment.nvflare("job", "download", job, "-o", str(target))
    (model,) = target.rglob("model.pt")
    state = torch.load(model, weights_only=True)
    assert all(bool(value.isfinite().all()) for value in state.values())
    own = torch.load(folder / "model.pt", weights_only=True)
    assert all(torch.equal(value, own[key]) for key, value in state.items())
    assert list(target.rglob("coverage.md"))


def test_the_job_carried_no_code(deployment, finished):
    job, _ = finished
    for site in SITES:
        (run,) = (deployment.kits / site).glob(job)
        assert list(run.rglob("config_fed_client.json"))
        assert not list(run.rglob("custom/*"))


def test_no_patient_and_no_sites_path_is_at_the_server(deployment, finished):
    names: set[bytes] = set()
    for site in SITES:
        path = deployment.folder / "sites" / f"{site}.json"
        found = identifiers(load_datalist(path, BRATS_MODALITIES))
        names |= {name.encode() for name in found if len(name) > 3}
        names.add(str(deployment.kits / site).encode())
    assert len(names) > 8
    server = deployment.kits / "localhost"
    files = [p for p in server.rglob("*") if p.is_file() and "startup" not in p.parts]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert not [name for name in names if name in content], path


def test_a_lost_federation_goes_on_with_the_next_round(deployment, finished):
    _, folder = finished
    word = torch.load(folder / "FL_global_model.pt", weights_only=True)["meta_props"]["run"]
    again = write_job(deployment, "first", "--rounds", "5", "--resume")
    job = deployment.submit(again)
    wait_for(lambda: "FINISHED" in deployment.job_status(job), 600, "the job to finish")
    assert [entry["round"] for entry in read_log(folder / ROUNDS)] == [0, 1, 2, 3, 4]
    after = torch.load(folder / "FL_global_model.pt", weights_only=True)["meta_props"]
    assert (after["run"], after["current_round"]) == (word, 4)


def test_who_may_not_submit_is_refused(deployment):
    told = deployment.submit(ROOT / "jobs" / "fedavg", who=MEMBER, fine=False)
    assert "not authorized" in told


def test_a_job_that_brings_code_does_not_run(deployment):
    folder = write_job(deployment, "code", "--rounds", "1")
    custom = folder / "app" / "custom"
    custom.mkdir()
    (custom / "federation.py").write_text("raise SystemExit('ran')\n")
    told = deployment.submit(folder, fine=False)
    if re.fullmatch(r"[0-9a-f-]{36}", told):
        wait_for(lambda: "FINISHED" in deployment.job_status(told), 300, "the job to be refused")
        status = deployment.job_status(told)
        assert "COMPLETED" not in status, status
    else:
        assert "byoc" in told.lower(), told
    assert not (deployment.state("code") / "train" / ROUNDS).exists()


def test_the_server_knows_only_this_machine(deployment):
    content = json.loads((deployment.kits / "localhost/startup/fed_server.json").read_text())
    assert "localhost" in json.dumps(content["servers"][0]["service"])
    resources = json.loads((deployment.kits / "localhost/local/resources.json").read_text())
    text = json.dumps(resources)
    assert "/tmp/nvflare" not in text
