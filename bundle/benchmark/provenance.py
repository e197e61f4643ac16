"""Where numbers come from: versions, processor, date, and the state of the configs."""

from __future__ import annotations

import hashlib
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bundle
from bundle.benchmark.plan import Run

CONFIGS = Path(bundle.ROOT) / "configs"


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


def config_digests(run: Run) -> dict[str, str]:
    """Hash every config file that a run reads: file name -> 8 hexadecimal digits."""
    names = {name for stage in run.stages for name in stage.configs} | {"evaluate.json"}
    return {
        name: hashlib.sha256((CONFIGS / name).read_bytes()).hexdigest()[:8]
        for name in sorted(names)
    }


def cpu_name() -> str:
    """Name the processor as the system does."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
