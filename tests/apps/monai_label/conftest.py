"""MONAI Label's app of ours in this process, with a small bundle and without a server."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

import bundle
from bundle.delivery.label_server import OUR_APP, find_stock_app
from bundle.delivery.package import NAME

CONFIGS = Path(bundle.ROOT) / "configs"
SMALL = {"filters": 4, "blocks_down": [1, 1], "deep_supervision": 1, "roi_size": [8, 8, 8]}
SMALL |= {"num_workers": 0, "val_interval": 1, "cache_dir": None}
SHAPE = (8, 8, 8)


def load_module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def app_code() -> Iterator[ModuleType]:
    """The app's main module, beside MONAI Label's own; its other modules can be imported then."""
    pytest.importorskip("monailabel")
    sys.path.insert(0, str(OUR_APP))
    try:
        load_module("stock_main", find_stock_app() / "main.py")
        yield load_module("patchwork_main", OUR_APP / "main.py")
    finally:
        sys.path.remove(str(OUR_APP))


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory) -> Path:
    """A bundle's folder with a network of some thousand weights that nobody trained."""
    root = tmp_path_factory.mktemp("app") / "model" / NAME
    # MONAI would set up the log anew, out of pytest's sight.
    leave = shutil.ignore_patterns("logging.conf")
    shutil.copytree(CONFIGS, root / "configs", ignore=leave)
    for name in ("train.json", "inference.json"):
        config = json.loads((CONFIGS / name).read_text()) | SMALL
        (root / "configs" / name).write_text(json.dumps(config))
    torch.manual_seed(0)
    parser = ConfigParser()
    parser.read_config(str(root / "configs" / "inference.json"))
    (root / "models").mkdir()
    network = parser.get_parsed_content("network_def")
    torch.save(network.state_dict(), root / "models" / "model.pt")
    return root


@pytest.fixture
def write_scan(tmp_path) -> Callable[..., Path]:
    """Give write(name, seed): a volume (8, 8, 8) of the studies, with a brain in its middle."""

    def write(name: str, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Path:
        voxels = np.zeros(shape, np.float32)
        inside = (slice(1, 7),) * 3
        voxels[inside] = np.random.default_rng(seed).uniform(1, 2, voxels[inside].shape)
        path = tmp_path / "studies" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
        return path

    return write


@pytest.fixture
def write_label(tmp_path) -> Callable[..., Path]:
    """Give write(name): a label (8, 8, 8) with some tumour; a name with a folder is submitted."""

    def write(name: str, value: int = 2, shape: tuple[int, ...] = SHAPE) -> Path:
        labels = np.zeros(shape, np.uint8)
        labels[2:4, 2:4, 2:4] = value
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(labels, np.eye(4)), path)
        return path

    return write


@pytest.fixture
def make_app(app_code, small_bundle, tmp_path, monkeypatch) -> Callable[..., Any]:
    """Give make(root): the app, showing tmp_path/studies; nothing watches the folder.

    Its results are written by nibabel: ITK, which MONAI Label takes, crashes beside other libraries
    that a test process has loaded.
    """

    def write(voxels, file, affine, *_):
        nib.save(nib.Nifti1Image(voxels, affine), file)

    monkeypatch.setattr("monailabel.transform.writer.write_itk", write)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(app_code.settings, "MONAI_LABEL_DATASTORE_AUTO_RELOAD", False)
    monkeypatch.setattr(app_code.settings, "MONAI_LABEL_SESSIONS", False)
    monkeypatch.setattr(app_code.settings, "MONAI_LABEL_INFER_CONCURRENCY", -1)

    def make(root: Path = small_bundle) -> Any:
        conf = {"models": NAME, "sam2": "false", "zoo_source": "ngc"}
        return app_code.PatchworkApp(str(root.parents[1]), str(tmp_path / "studies"), conf)

    return make
