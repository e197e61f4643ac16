"""How much memory a round costs the server: `python -m federation.server.memory_bench`.

Sites send full-size updates of the universal network, one after the other, as NVFlare hands them
over. Each number of sites is measured in a process of its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.fl_model import FLModel
from torch import Tensor, nn

from bundle.cli.command import main
from bundle.cli.kinds import PathText
from federation.protocol.contribution import Contribution, expected_type
from federation.protocol.exchange import Exchange, ExchangeRules
from federation.protocol.messages import CLIENT_NAME, to_message
from federation.protocol.stages import Stage, read_workflow
from federation.server.aggregator import ModalityAggregator

CONFIGS = ("train.json", "federation.yaml")
_MEBIBYTE, _KIB_PER_MIB = 2**20, 1024
# A site's training cases.
_CASES = 10


def measure(
    contributions: int, filters: int = 16, robust: str = "none", folder: str = "."
) -> dict[str, Any]:
    """Run one round in this process.

    Args:
        contributions: how many sites send everything that the network shares.
        filters: of the network.
        robust: see `ModalityAggregator`.
        folder: contributions are kept in a folder of it.

    Returns:
        Plain values: `mib`, the size of an update; `before_mib` and `peak_mib`, the most memory
        that the process has held before the first contribution and in all; `take_seconds`, for
        one contribution; `commit_seconds`; `kept_mib`, the most that lay on the disk.
    """
    method, modalities, rules = _build(filters)
    state = method.state_dict()
    exchange = Exchange(ExchangeRules(modalities, **rules), state)
    with tempfile.TemporaryDirectory(dir=folder) as kept:
        aggregator = ModalityAggregator(modalities, rules, report_dir=kept, robust=robust)
        aggregator.fl_ctx = FLContext()
        before = _peak_mib()
        aggregator.begin(state, 0, method=method)
        taking, size = 0.0, 0
        for number in range(contributions):
            message = _message(number, exchange, state)
            size = sum(value.nbytes for value in message.params.values())
            started = time.perf_counter()
            if not aggregator.accept_model(message):
                raise RuntimeError(f"expected all to be accepted, got {aggregator.refused}")
            taking += time.perf_counter() - started
        on_disk = sum(path.stat().st_size for path in Path(kept).rglob("*") if path.is_file())
        started = time.perf_counter()
        aggregator.aggregate_model()
        return {
            "mib": size / _MEBIBYTE,
            "before_mib": before,
            "peak_mib": _peak_mib(),
            "take_seconds": taking / contributions,
            "commit_seconds": time.perf_counter() - started,
            "kept_mib": on_disk / _MEBIBYTE,
        }


def _build(filters: int) -> tuple[nn.Module, list[str], dict[str, Any]]:
    stage = Stage("train", CONFIGS, 1, settings={"filters": filters})
    workflow = read_workflow(stage, {"pretrained_file": None})
    workflow.initialize()
    rules = dict(workflow.parser.get("exchange"))
    method = workflow.parser.get_parsed_content("method")
    return method, list(workflow.parser.get("modalities")), rules


def _message(number: int, exchange: Exchange, state: Mapping[str, Tensor]) -> FLModel:
    cases = dict.fromkeys(exchange.modalities, _CASES)
    generator = torch.Generator().manual_seed(number)
    update = {}
    for key in exchange.held(cases):
        moved = 1e-3 * torch.randn(state[key].shape, generator=generator)
        update[key] = moved.to(expected_type(exchange.parts[key], state[key]))
    message = to_message(Contribution(f"site-{number:03d}", update, cases, _CASES, round=0))
    message.meta[CLIENT_NAME] = f"site-{number:03d}"
    return message


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_MIB


def bench(
    contributions: tuple[int, ...] = (1, 100),
    filters: int = 16,
    robust: str = "none",
    folder: PathText = ".",
) -> None:
    """Print a row for each number of contributions.

    Args:
        contributions: numbers of sites, each measured in a process of its own.
        filters: of the universal network.
        robust: none, clipped or trimmed.
        folder: on the disk that is measured.
    """
    rows = [in_a_process(number, filters, robust, folder) for number in contributions]
    print(
        "| sites | MiB each | MiB on disk | peak MiB | of this round | s to take one | commit s |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for number, row in zip(contributions, rows, strict=True):
        added = row["peak_mib"] - row["before_mib"]
        print(
            f"| {number} | {row['mib']:.1f} | {row['kept_mib']:.0f} | {row['peak_mib']:.0f} | "
            f"{added:.0f} | {row['take_seconds']:.2f} | {row['commit_seconds']:.1f} |"
        )


def in_a_process(number: int, filters: int, robust: str, folder: str) -> dict[str, Any]:
    """Do as `measure` in a process of its own, whose memory nothing else has filled."""
    code = (
        "import json, sys; from federation.server.memory_bench import measure; "
        "print(json.dumps(measure(*json.loads(sys.argv[1]))))"
    )
    arguments = json.dumps([number, filters, robust, folder])
    done = subprocess.run(
        [sys.executable, "-c", code, arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main(bench, "python -m federation.server.memory_bench")
