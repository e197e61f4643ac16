"""Running the bundle's own configs as `monai.bundle run` does, in this process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from bundle.benchmark.provenance import CONFIGS


def read_configs(names: Sequence[str], settings: Mapping[str, Any]) -> Any:
    """Return the `ConfigWorkflow` of configs, initialized.

    Args:
        names: of files in configs/.
        settings: ids and values that come last.
    """
    from monai.bundle import ConfigWorkflow

    workflow = ConfigWorkflow(
        config_file=[str(CONFIGS / name) for name in names],
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=str(CONFIGS / "logging.conf"),
        workflow_type="train",
        **settings,
    )
    workflow.initialize()
    return workflow


def run_configs(names: Sequence[str], settings: Mapping[str, Any]) -> tuple[Any, dict[str, float]]:
    """Run configs; return their parser and what it cost. Arguments as in `read_configs`."""
    wall, cpu = time.perf_counter(), time.process_time()
    workflow = read_configs(names, settings)
    workflow.run()
    workflow.finalize()
    cost = {
        "wall_seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }
    return workflow.parser, cost
