"""The documented commands of POC mode, as they stand in the guide, with a private job."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch
from federation.simulate import prepare_sites

import bundle

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1200)]

ROOT = Path(bundle.ROOT)
PORTS = (8002, 8003)  # NVFlare's own in POC mode
SITES = "site-1:t1+t1ce+t2+flair;site-2:t2"
CASES = {"training": 4, "validation": 2, "testing": 1}
SMALL = "{filters: 4, blocks_down: [1,1,1], deep_supervision: 2, epoch_samples: 8}"


def documented() -> list[str]:
    """Read the commands from the guide."""
    text = (ROOT / "docs" / "federation.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"### The same in POC mode.*?```bash\n(.*?)```", text, re.DOTALL)
    return block.splitlines()


def is_taken(port: int) -> bool:
    with socket.socket() as own:
        return own.connect_ex(("127.0.0.1", port)) == 0


class Shell:
    """Runs lines as a reader would, one after the other, in a folder and a home of their own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment

    def run(self, line: str) -> str:
        done = subprocess.run(
            ["bash", "-c", line],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def end_what_is_left(self) -> None:
        for path in Path("/proc").glob("[0-9]*"):
            try:
                mine = str(self.folder).encode() in (path / "cmdline").read_bytes()
            except OSError:
                continue
            if mine:
                os.kill(int(path.name), signal.SIGKILL)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, environment_at):
    """The documented lines, run; the folder, and what the job's submission said."""
    if any(is_taken(port) for port in PORTS):
        pytest.skip(f"one of the ports {PORTS}, which POC mode uses, is taken")
    folder = tmp_path_factory.mktemp("poc")
    prepare_sites(folder, SITES, CASES, 32, 0)
    shell, lines = Shell(folder, environment_at(folder)), documented()
    options = f"--only private --method modality_dropout --rounds 2 --settings '{SMALL}'"
    shell.run(
        f"python {ROOT}/jobs/define.py --output_dir jobs {options} --overlays benchmark.yaml "
        "--round_timeout 600.0 --grace 300.0"
    )
    (workspace,) = (line for line in lines if line.startswith("export "))
    name, value = workspace.removeprefix("export ").split("=")
    shell.environment[name] = value
    try:
        for line in lines[lines.index(workspace) + 1 : -1]:
            here = line.replace("/data/", f"{folder}/sites/").replace("modality_aware", "private")
            told = shell.run(here)
            if "job submit" in line:
                wait_for_job(shell, re.search(r"job_id: (\S+)", told).group(1))
        assert lines[-1] == "nvflare poc stop"
        shell.run(lines[-1])
        yield folder
    finally:
        shell.end_what_is_left()


def wait_for_job(shell: Shell, job: str) -> None:
    deadline = time.monotonic() + 600
    while True:
        (line,) = (x for x in shell.run("nvflare job list").splitlines() if job in x)
        if "FINISHED" in line:
            assert "COMPLETED" in line, line
            return
        assert time.monotonic() < deadline, line
        time.sleep(3)  # each question costs a second of CPU time


@pytest.fixture
def train(finished):
    return finished / "poc" / "example_project" / "prod_00" / "server" / "state/private/train"


def test_a_private_job_leaves_a_finite_model(train):
    assert all(bool(v.isfinite().all()) for v in torch.load(train / "model.pt").values())


def test_every_round_tells_what_each_site_has_spent_of_its_privacy(train):
    spent = []
    for number in (0, 1):
        report = json.loads((train / f"round_{number:04}.json").read_text())
        told = {site: share["privacy"] for site, share in report["accepted"].items()}
        assert sorted(told) == ["site-1", "site-2"]
        assert {(t["delta"], t["releases"]) for t in told.values()} == {(1e-5, number + 1)}
        spent.append(told["site-1"]["epsilon"])
    assert 0 < spent[0] < spent[1] < 12.3


def test_the_account_stays_at_the_site(finished):
    accounts = list(finished.rglob("privacy_account.json"))
    assert len(accounts) == 2
    assert not [path for path in accounts if "server" in path.parts]
