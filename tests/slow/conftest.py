"""A tiny phantom and the settings that let the real configs run on it in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

import bundle
from bundle.phantom.data_set import write_phantom

CONFIGS = Path(bundle.ROOT) / "configs"
SIZE = 32


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The datalist of a 32-cubed phantom: 4 training, 2 validation, 2 testing cases."""
    sections = {"training": 4, "validation": 2, "testing": 2}
    return write_phantom(tmp_path_factory.mktemp("phantom"), sections, anatomy="simple", size=SIZE)


@pytest.fixture
def tiny(phantom: Path, tmp_path: Path) -> dict[str, Any]:
    """Overrides of the configs' own ids: small crops, a small network, two epochs, no GPU."""
    return {
        "datalist_file": str(phantom),
        "dataset_dir": str(phantom.parent),
        "output_dir": str(tmp_path / "out"),
        "ckpt_dir": str(tmp_path / "models"),
        "cache_dir": str(tmp_path / "cache"),
        "device": "$torch.device('cpu')",
        "amp": False,
        "spacing": [2.0, 2.0, 2.0],
        "roi_size": [SIZE] * 3,
        "filters": 4,
        "blocks_down": [1, 1, 1],
        "deep_supervision": 2,
        "num_workers": 0,
        "max_epochs": 2,
        "val_interval": 1,
    }


@pytest.fixture
def workflow() -> Callable[..., ConfigWorkflow]:
    """Give workflow(names, type, **overrides): an initialised MONAI workflow of our own configs."""

    def build(names: list[str], workflow_type: str, **overrides: Any) -> ConfigWorkflow:
        built = ConfigWorkflow(
            config_file=[str(CONFIGS / name) for name in names],
            meta_file=str(CONFIGS / "metadata.json"),
            logging_file=str(CONFIGS / "logging.conf"),
            workflow_type=workflow_type,
            **overrides,
        )
        built.initialize()
        return built

    return build
