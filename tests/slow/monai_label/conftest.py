"""A real MONAI Label server, started from the packaged bundle as a stranger would start it."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

import bundle
from bundle.delivery.label_server import LabelServer
from bundle.delivery.package import NAME, package
from bundle.delivery.trained_model import Trained
from bundle.phantom.data_set import write_phantom

CONFIGS = Path(bundle.ROOT) / "configs"
START_SECONDS = 240
OVERLAY = """
filters: 4
blocks_down: [1, 1, 1]
deep_supervision: 2
spacing: [2.0, 2.0, 2.0]
roi_size: [32, 32, 32]
window_batch: 4
num_workers: 0
val_interval: 1
"""
# What each case has. The last is neither isotropic nor stored along the body's axes in order.
SCANS = {
    "Phantom_0000": ("t1", "t1ce", "t2", "flair"),
    "Phantom_0001": ("t1ce", "flair"),
    "Phantom_0002": ("t2",),
    "Phantom_0800": ("t1", "t2"),
    "BraTS2021_00800": ("t1", "t1ce", "flair"),
}


# What lies among the scans and is none: of macOS, a label, and the only scan of a case, cut off.
HIDDEN, LABEL, BROKEN = "._Phantom_0000_t1", "Phantom_0000_seg", "Broken_0009_t1"


class Running:
    """A server's process and its REST interface.

    Attributes:
        url: where it answers.
        studies: the folder that it shows.
        root: the copy of the bundle that it serves.
    """

    def __init__(self, server: LabelServer, home: Path, models: str = NAME) -> None:
        self.studies, self.root = Path(server.studies), server.app / "model" / NAME
        self.url = f"http://127.0.0.1:{server.port}"
        self.log = home / "server.log"
        home.mkdir(parents=True)
        # Sessions and logs go to the home folder; no scoring by itself while other things run.
        changed = {"HOME": str(home), "MONAI_LABEL_AUTO_UPDATE_SCORING": "false"}
        changed |= {"MONAI_LABEL_DATASTORE_AUTO_RELOAD": "false", "PYTHONWARNINGS": "ignore"}
        without = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [models if word == NAME else word for word in server.command()],
                cwd=server.app,
                env=without | changed,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> Running:
        """Wait until it answers."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if requests.get(f"{self.url}/info/", timeout=5).ok:
                    return self
            except requests.ConnectionError:
                time.sleep(0.5)
        raise AssertionError("the server did not start:\n" + self.log.read_text()[-4000:])

    def stop(self) -> None:
        """Stop it, if it still runs."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        """Send a request and return the answer, good or bad."""
        return requests.request(method, f"{self.url}/{path}", timeout=300, **more)

    def infer(self, params: dict[str, Any] | None = None, files: Any = None, **query: str):
        """Ask for a segmentation; return the answer."""
        data = {"params": json.dumps(params or {})}
        query = {"output": "image"} | query
        return self.call("POST", f"infer/{NAME}", params=query, data=data, files=files)

    def segment(self, params: dict[str, Any] | None = None, files: Any = None, **query: str):
        """Ask for a segmentation; return it as an image."""
        answer = self.infer(params, files, **query)
        assert answer.status_code == 200, answer.text + self.log.read_text()[-4000:]
        return nib.Nifti1Image.from_bytes(gzip.decompress(answer.content))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def cases(tmp_path_factory) -> Path:
    """A folder of complete cases, each with a label, one folder a case."""
    folder = tmp_path_factory.mktemp("cases")
    write_phantom(folder, {"training": 3, "validation": 0, "testing": 1}, anatomy="simple", size=32)
    odd = {"spacing_mm": (2.0, 2.0, 4.0), "orientation": "PSL", "naming": "brats2021"}
    write_phantom(
        folder, {"training": 0, "validation": 0, "testing": 1}, anatomy="simple", size=32, **odd
    )
    return folder


@pytest.fixture(scope="session")
def make_studies(cases):
    """Give make(folder): the scans of `SCANS` side by side, as MONAI Label stores them."""

    def make(folder: Path) -> Path:
        folder.mkdir(parents=True)
        for case, modalities in SCANS.items():
            for name in modalities:
                (found,) = cases.rglob(f"{case}_{name}.nii.gz")
                shutil.copy(found, folder)
        return folder

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    """The weights of a small network that nobody trained, and the overlay that fits them."""
    folder = tmp_path_factory.mktemp("weights")
    overlay = folder / "small.yaml"
    overlay.write_text(OVERLAY)
    made = Trained(folder / "model.pt", (overlay,))
    torch.manual_seed(0)
    parser = ConfigParser(config=made.config("inference.json"))
    network = parser.get_parsed_content("network_def")
    torch.nn.init.normal_(network.hypernetwork.output.weight, std=0.05)
    torch.save(network.state_dict(), made.weights)
    note = {**parser.get_parsed_content("made_for"), "prompts": {"source": "presence"}}
    (folder / "model.json").write_text(json.dumps(note))
    return made


@pytest.fixture(scope="session")
def unpacked(trained, tmp_path_factory) -> Path:
    """The packaged bundle, unpacked in an empty folder."""
    folder = tmp_path_factory.mktemp("unpacked")
    overlays = [str(path) for path in trained.overlays]
    path = package(folder / "bundle.zip", str(trained.weights), overlays)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder / NAME


def lay_out(unpacked: Path, folder: Path, studies: Path, app: str) -> LabelServer:
    """Do what `python -m bundle label` does, in a process that knows the unpacked bundle only."""
    port = free_port()
    command = [sys.executable, "-m", "bundle", "label", "out", "--app", app, "--port", str(port)]
    command += ["--studies", str(studies), "--start", "false"]
    folder.mkdir()
    environment = os.environ | {"PYTHONPATH": str(unpacked), "PYTHONWARNINGS": "ignore"}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = dict(re.findall(r"^(app|studies): (.*)$", ran.stdout, re.MULTILINE))
    return LabelServer(Path(found["app"]), found["studies"], port)


def add_strange_files(studies: Path, cases: Path) -> None:
    """Put among the scans what is no scan, or no more."""
    (studies / f"{HIDDEN}.nii.gz").write_bytes(b"Mac OS X")
    (label,) = cases.rglob(f"{LABEL}.nii.gz")
    shutil.copy(label, studies)
    cut = (studies / "Phantom_0000_t1.nii.gz").read_bytes()[:2000]
    (studies / f"{BROKEN}.nii.gz").write_bytes(cut)


def make_strict(config: Path) -> None:
    """Let a server refuse what is odd, where the other one warns."""
    content = json.loads(config.read_text()) | {"strict": True}
    config.write_text(json.dumps(content))


def start_two_copies(stock: Running, folder: Path) -> Running:
    """Start the stock app with the same bundle twice, under two names."""
    app, other = folder / "app", stock.root.parents[1]
    shutil.copytree(other, app, ignore=shutil.ignore_patterns("model", "logs"))
    for name in ("first", "second"):
        shutil.copytree(stock.root, app / "model" / name)
    server = LabelServer(app, str(folder / "studies"), free_port())
    return Running(server, folder / "home", models="first,second")


@pytest.fixture(scope="session")
def starting(unpacked, make_studies, cases, tmp_path_factory) -> Iterator[dict[str, Running]]:
    """Start all the servers that the tests need at once; each is waited for when it is used."""
    folder = tmp_path_factory.mktemp("servers")
    servers: dict[str, Running] = {}
    try:
        for app in ("monaibundle", "patchwork"):
            studies = make_studies(folder / app / "studies")
            if app == "patchwork":
                add_strange_files(studies, cases)
            server = lay_out(unpacked, folder / app / "work", studies, app)
            if app == "patchwork":
                make_strict(server.app / "model" / NAME / "configs" / "inference.json")
            servers[app] = Running(server, folder / app / "home")
        servers["clash"] = start_two_copies(servers["monaibundle"], folder / "clash")
        yield servers
    finally:
        for running in servers.values():
            running.stop()


@pytest.fixture(scope="session")
def reference(trained, make_studies, tmp_path_factory) -> dict[str, np.ndarray]:
    """What `monai.bundle` makes of the same scans: label maps by case."""
    folder = tmp_path_factory.mktemp("reference")
    workflow = ConfigWorkflow(
        config_file=[str(CONFIGS / "inference.json"), *map(str, trained.overlays)],
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=str(CONFIGS / "logging.conf"),
        workflow_type="infer",
        dataset_dir=str(make_studies(folder / "studies")),
        ckpt_dir=str(trained.weights.parent),
        output_dir=str(folder / "out"),
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return {
        case: np.asanyarray(nib.load(folder / "out" / f"{case}_pred.nii.gz").dataobj)
        for case in SCANS
    }


@pytest.fixture(scope="session")
def stock(starting, reference) -> Running:
    """MONAI Label's own app, with the unpacked bundle."""
    return starting["monaibundle"].wait()


@pytest.fixture(scope="session")
def patchwork(starting) -> Running:
    """Our extension of that app."""
    return starting["patchwork"].wait()
