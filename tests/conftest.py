"""For all tests: how two workers share them, and small NIfTI volumes, written on the spot."""

from __future__ import annotations

import gzip
import os
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import nibabel as nib
import numpy as np
import pytest

SHAPE = (10, 20, 30)

# Before PyTorch comes: one thread a worker, and threads must not spin while they wait. On a busy
# machine the tests' tiny volumes otherwise take ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Files, or folders whose files share a server: what takes longest comes first, so that two workers
# end together, and what mostly waits beside what mostly computes. The other slow files follow, then
# the quick ones.
COSTLIEST_FIRST = (
    "tests/slow/federation/test_faults.py",
    "tests/slow/test_package.py",
    "tests/slow/test_inference.py",
    "tests/slow/test_bundle.py",
    "tests/slow/federation/test_deployment.py",
    "tests/slow/test_documented_commands.py",
    "tests/slow/monai_label/",
    "tests/slow/federation/test_poc.py",
    "tests/slow/federation/test_simulator.py",
)


def _group(nodeid: str) -> str:
    """Name what one worker does as a whole: a file's tests, or a folder's that share a server."""
    return next(
        (name for name in COSTLIEST_FIRST if nodeid.startswith(name)), nodeid.split("::")[0]
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker a whole group at a time, so that its fixtures are made once.

    The marks `xdist_group` of pytest-xdist 3.8 have no effect under pytest 9.2: they change a name
    that pytest no longer reads.
    """
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = _group
    return scheduler


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the costliest groups first where two workers share the tests."""

    def place(item: pytest.Item) -> int:
        group = _group(item.nodeid)
        if group in COSTLIEST_FIRST:
            return COSTLIEST_FIRST.index(group)
        return len(COSTLIEST_FIRST) + (not group.startswith("tests/slow/"))

    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=place)


@pytest.fixture
def write_volume(tmp_path):
    """Give write(name, voxels, affine): voxels are an array, or a seed for noise from 1 to 2."""

    def write(name, voxels=0, affine=None):
        if isinstance(voxels, int):
            voxels = np.random.default_rng(voxels).uniform(1, 2, SHAPE).astype(np.float32)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
        return path

    return write


@pytest.fixture
def write_case(write_volume):
    """Give write(case, modalities): a datalist item, its label a box of oedema."""

    def write(case, modalities):
        files = {
            m: str(write_volume(f"{case}/{case}_{m}.nii.gz", i)) for i, m in enumerate(modalities)
        }
        label = np.pad(np.full((6, 12, 18), 2, np.uint8), ((2, 2), (4, 4), (6, 6)))
        return {
            "case": case,
            "image": files,
            "label": str(write_volume(f"{case}/seg.nii.gz", label)),
        }

    return write


@dataclass
class FileReads:
    """How often files were opened, by name, and how often a packed one was begun to be unpacked."""

    opened: Counter[str] = field(default_factory=Counter)
    unpacked: int = 0


# An audit hook cannot be taken back: the one there is tells whoever counts at the moment.
_counting: list[FileReads] = []


def _on_open(event, arguments):
    if _counting and event == "open" and str(arguments[0]).lower().endswith((".nii", ".nii.gz")):
        _counting[-1].opened[os.path.basename(arguments[0])] += 1


sys.addaudithook(_on_open)


@pytest.fixture
def file_reads(monkeypatch):
    """Give file_reads(): within it, openings and unpackings of NIfTI files are counted."""
    begin = gzip.GzipFile.__init__

    def counting(self, *args, **named):
        begin(self, *args, **named)
        if _counting and self.mode == gzip.READ:
            _counting[-1].unpacked += 1

    monkeypatch.setattr(gzip.GzipFile, "__init__", counting)

    @contextmanager
    def count():
        _counting.append(FileReads())
        try:
            yield _counting[-1]
        finally:
            _counting.pop()

    return count
