"""Where numbers come from: versions, processor, date, and the state of the configs."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Sequence
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
    """Hash the bundle's code and every config file that a run reads: 8 hexadecimal digits each."""
    names = {name for stage in run.stages for name in stage.configs} | {"evaluate.json"}
    digests = {name: _digest([CONFIGS / name]) for name in sorted(names)}
    return {**digests, "the code": code_digest()}


@functools.cache
def code_digest() -> str:
    """Hash the code that this process runs, as it was when first asked: 8 hexadecimal digits."""
    return _digest(sorted((Path(bundle.ROOT) / "bundle").rglob("*.py")))


def _digest(files: Sequence[Path]) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


def cpu_name() -> str:
    """Name the processor as the system does."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
