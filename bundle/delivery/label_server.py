"""A folder from which MONAI Label serves this bundle without a network, and the server itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import bundle
from bundle.data.datalist import load_datalist
from bundle.delivery.package import NAME, contents
from bundle.delivery.trained_model import find_trained
from bundle.modalities import BRATS_MODALITIES
from bundle.phantom.gaps import phantom_with_gaps

ROOT = Path(bundle.ROOT)
# Ours extends MONAI Label's own app for bundles; either serves the bundle.
OUR_APP = ROOT / "apps" / "monai_label"
STOCK_APP = "monaibundle"
APPS = ("patchwork", STOCK_APP)
# The server answers on this machine only: it knows no passwords.
HOST = "127.0.0.1"
PHANTOM_CASES = {"training": 3, "validation": 0, "testing": 5}


@dataclass(frozen=True)
class LabelServer:
    """An app's folder and the studies that it shows.

    Attributes:
        app: the folder with `main.py` and `model/<bundle>`.
        studies: the folder with one file for each scan, or a DICOMweb server's address.
        port: where the server listens, on this machine only.
    """

    app: Path
    studies: str
    port: int = 8000

    def command(self) -> list[str]:
        """Return the words that start the server; no network is asked for anything."""
        start = [sys.executable, "-m", "monailabel.main", "start_server"]
        places = ["--app", str(self.app), "--studies", self.studies]
        # The default source of models is asked at the start, and SAM2 is fetched then.
        offline = ["--conf", "zoo_source", "ngc", "--conf", "sam2", "false"]
        address = ["--host", HOST, "--port", str(self.port)]
        return [*start, *places, "--conf", "models", NAME, *offline, *address]

    def run(self) -> int:
        """Serve until it is stopped; return the exit status."""
        # MONAI Label calls programs by name: they must be those of this Python.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        with subprocess.Popen(self.command(), cwd=self.app, env=os.environ | {"PATH": path}) as run:
            try:
                return run.wait()
            except KeyboardInterrupt:
                return run.wait()


def prepare(
    folder: str | Path,
    weights: str | None = None,
    overlays: Sequence[str] = (),
    studies: str | None = None,
    app: str = APPS[0],
    port: int = 8000,
) -> LabelServer:
    """Lay out everything that MONAI Label wants to find.

    Args:
        folder: gets `<app>/` with a copy of the bundle in `model/`, and `studies/`. Weights that
            a training in MONAI Label left in that copy stay.
        weights, overlays: see `bundle.delivery.trained_model.find_trained`.
        studies: the scans to show, a folder or the address of a DICOMweb server, http(s)://...;
            None = made-up ones, in `folder`.
        app: "patchwork" = MONAI Label's app for bundles plus a strategy of ours for the next case
            to label; "monaibundle" = MONAI Label's app as it is.
        port: where to listen.

    Returns:
        What can be started.

    Raises:
        FileNotFoundError: no weights, no such studies, or MONAI Label came without its apps.
        ImportError: the extra `label` is not installed.
        ValueError: no such app, or weights that do not fit the configs.
    """
    if app not in APPS:
        raise ValueError(f"app: expected one of {list(APPS)}, got {app!r}")
    stock = find_stock_app()
    trained = find_trained(weights, overlays)
    remote = studies is not None and studies.startswith(("http://", "https://"))
    if studies is not None and not remote and not Path(studies).is_dir():
        raise FileNotFoundError(
            f"studies: expected a folder with scans or an address, http(s)://..., found no folder "
            f"{studies}."
        )
    place = Path(folder).resolve() / app
    _copy_app(stock, place, ours=app != STOCK_APP)
    _copy_bundle(place / "model" / NAME, contents(trained))
    if studies is None:
        shown = place.parent / "studies"
        write_studies(shown, place.parent / "phantom")
        studies = str(shown)
    return LabelServer(place, studies if remote else str(Path(studies).resolve()), port)


def find_stock_app() -> Path:
    """Return the folder of MONAI Label's own app for bundles.

    Raises:
        ImportError: MONAI Label is not installed.
        FileNotFoundError: it is, but without its apps.
    """
    found = find_spec("monailabel")
    if found is None or found.origin is None:
        raise ImportError(
            "serving needs MONAI Label 0.8.5, which is not installed. Run "
            "python -m pip install -c constraints.txt -e '.[label]'"
        )
    prefixes = [Path(found.origin).parents[4], Path(sys.prefix), Path.home() / ".local"]
    places = [prefix / "monailabel" / "sample-apps" / STOCK_APP for prefix in prefixes]
    for place in places:
        if (place / "main.py").is_file():
            return place
    raise FileNotFoundError(
        f"expected MONAI Label's app {STOCK_APP} in {' or '.join(map(str, places))}, found none. "
        "Some installers leave it out: install monailabel with pip."
    )


def write_studies(folder: Path, phantom: Path) -> None:
    """Write made-up cases that lack modalities, as MONAI Label stores them: no folders.

    A case is the files that share a prefix. Two have a label, which MONAI Label keeps under the
    name of one of the case's scans, so that a training can be tried out.

    Args:
        folder: gets the scans, and the labels in `labels/final`; existing files stay.
        phantom: where the cases are made.
    """
    sections = [name for name, count in PHANTOM_CASES.items() if count]
    path = phantom_with_gaps(str(phantom), 0.4, sections, counts=PHANTOM_CASES)
    datalist = load_datalist(Path(path), BRATS_MODALITIES)
    labels = folder / "labels" / "final"
    labels.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for item in datalist[section]:
            files = [Path(file) for file in item["image"].values()]
            copies = {file: folder / file.name for file in files}
            if section == "training":
                copies[Path(item["label"])] = labels / files[-1].name
            for source, target in copies.items():
                if not target.exists():
                    shutil.copyfile(source, target)


def _copy_app(stock: Path, place: Path, ours: bool) -> None:
    leave = shutil.ignore_patterns("__pycache__", "logs", "model")
    shutil.copytree(stock, place, ignore=leave, dirs_exist_ok=True)
    if ours:
        (place / "main.py").rename(place / "stock_main.py")
        for path in OUR_APP.glob("*.py"):
            shutil.copyfile(path, place / path.name)


def _copy_bundle(root: Path, files: dict[str, bytes]) -> None:
    trained_here = (root / "models" / "model.pt").is_file()
    for name, content in files.items():
        if trained_here and name.startswith("models/"):
            continue
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
