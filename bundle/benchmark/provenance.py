"""Where numbers come from: versions, processor, date, and the state of configs and code."""

from __future__ import annotations

import hashlib
import platform
import sys
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import bundle
from bundle.benchmark.plan import Run

CONFIGS = Path(bundle.ROOT) / "configs"
# The only modules of this package that a run's numbers depend on.
_THAT_RUN = ("configs.py", "runs.py")


def circumstances() -> dict[str, Any]:
    """Tell the date, the processor, and the versions of what numbers depend on."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "versions": {
            "bundle": bundle.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "monai", "numpy")},
        },
    }


def device_name(kind: str | None) -> str:
    """Name what a training of this type of device ran on; "cpu" stays "cpu"."""
    if kind == "cuda":
        return torch.cuda.get_device_name()
    return kind or "cpu"


def files_of(run: Run) -> dict[str, str]:
    """Hash the config files of a run and the modules that are loaded: 8 hexadecimal digits each.

    Ask when the run is over, in a process that has made no other run: modules are loaded as they
    are needed. Modules that only plan, count and report are left out.

    Returns:
        Path from the bundle's root -> digits, of what the file held when this module was loaded.
    """
    configs = {name for stage in run.stages for name in stage.configs} | {"evaluate.json"}
    files = {f"configs/{name}" for name in configs} | _loaded()
    return {name: _FILES[name] for name in sorted(files) if name in _FILES}


def code_digest() -> str:
    """Hash all code and configs, as they were when this module was loaded: 8 hexadecimal digits."""
    return _digest(repr(sorted(_FILES.items())).encode())


def _loaded() -> set[str]:
    return {
        Path(module.__file__).relative_to(bundle.ROOT).as_posix()
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] == "bundle" and getattr(module, "__file__", None)
    }


def _read_files() -> dict[str, str]:
    root = Path(bundle.ROOT)
    files = [*(root / "configs").iterdir(), *(root / "bundle").rglob("*.py")]
    counted = [f for f in files if f.parent.name != "benchmark" or f.name in _THAT_RUN]
    return {file.relative_to(root).as_posix(): _digest(file.read_bytes()) for file in counted}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]


def cpu_name() -> str:
    """Name the processor as the system does."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# Read early: an edit made while a run is under way must not pass for what was run.
_FILES = _read_files()
