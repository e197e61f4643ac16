"""What the methods cost beside a plain U-Net of the same width: ratios from one run."""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bundle.atomic import write_text_atomically
from bundle.benchmark.layout import times
from bundle.benchmark.measured_methods import (
    COMPLETE,
    HALF,
    MEASURED,
    METHODS,
    MODALITIES,
    NETWORKS,
    NO_DISTILLATION,
    PLAIN,
    STAGE_1,
    STAGE_2,
    training_batch,
    training_step,
    window,
)
from bundle.benchmark.plan import GMD_NOT_DECOUPLED, SPECIALISTS
from bundle.benchmark.provenance import circumstances
from bundle.benchmark.results import Row
from bundle.evaluation.tables import markdown
from bundle.modalities import all_subsets

FILE = "cost.json"
ON_COMPLETE = ", complete cases"
# What a promise was made about on complete cases, where it is hardest to keep.
_PROMISED = ("LCKD", NO_DISTILLATION, "GMD", GMD_NOT_DECOUPLED)
_MEMORY_STEPS = 4


class Promise(NamedTuple):
    """A ratio, and the most that it may be; None = nobody has promised anything."""

    ratio: str
    limit: float | None


PROMISES = (
    Promise("step of stage 1", None),
    Promise("step of stage 2", 2.5),
    Promise("window", 1.15),
    Promise("window, not personalised", None),
    Promise("memory of a window", 1.15),
    Promise("LCKD's step, to the same network's without distillation", 1.6),
    Promise(f"LCKD's step, to the same network's without distillation{ON_COMPLETE}", 1.6),
    Promise("GMD's step, to one of the same losses not decoupled", 2.0),
    Promise(f"GMD's step, to one of the same losses not decoupled{ON_COMPLETE}", 2.0),
)


def measure(
    crop: int = 32, window: int = 96, batch: int = 4, repeats: int = 15, amp: bool = True
) -> dict[str, Any]:
    """Measure everything in one go, each repeat of one thing beside the same repeat of the others.

    Training steps are of cases that lack half of their scans, those named "complete cases" apart.

    Args:
        crop: voxels along each side of a training crop.
        window: voxels along each side of an inference window.
        batch: crops in a training batch.
        repeats: of which the median counts.
        amp: mixed precision, as the benchmark trains.

    Returns:
        A JSON-able dictionary: `settings`; `seconds` (median of each thing); `mebibytes` (what one
        window adds to the peak of resident memory), `training_mebibytes` (that peak of a whole
        process that trains, and what its steps add), both read from Linux's /proc; `parameters` of
        the networks that are deployed; and `ratios`, to the plain U-Net's unless they say what to.
    """
    torch.manual_seed(0)
    seconds = {
        **_medians(_steps(crop, batch, amp), repeats),
        **_medians(_windows(window, amp), repeats),
    }
    mebibytes = {name: _in_own_process(_window_peak, name, window, amp) for name in NETWORKS}
    training = {name: _in_own_process(_step_peak, name, crop, batch, amp) for name in METHODS}
    return {
        "settings": {
            "crop": crop,
            "window": window,
            "batch": batch,
            "repeats": repeats,
            "amp": amp,
            "threads": torch.get_num_threads(),
        },
        "seconds": seconds,
        "mebibytes": mebibytes,
        "training_mebibytes": training,
        "parameters": {name: _parameters(name) for name in NETWORKS},
        "ratios": _ratios(seconds, mebibytes),
    }


def _ratios(seconds: Mapping[str, float], mebibytes: Mapping[str, float]) -> dict[str, float]:
    def step(name: str, other: str, cases: str = "") -> float:
        return seconds[f"{name} step{cases}"] / seconds[f"{other} step{cases}"]

    ratios = {
        "step of stage 1": step(STAGE_1, PLAIN),
        "step of stage 2": step(STAGE_2, PLAIN),
        "window": seconds["personalised window"] / seconds["plain window"],
        "window, not personalised": seconds["universal window"] / seconds["plain window"],
        "memory of a window": mebibytes["personalised"] / mebibytes[PLAIN],
    }
    for cases in ("", ON_COMPLETE):
        ratios |= {
            f"LCKD's step, to the same network's without distillation{cases}": step(
                "LCKD", NO_DISTILLATION, cases
            ),
            f"GMD's step, to one of the same losses not decoupled{cases}": step(
                "GMD", GMD_NOT_DECOUPLED, cases
            ),
        }
    return ratios


def _medians(things: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Time things in turn, so that a machine that slows down slows all of them down."""
    taken: dict[str, list[float]] = {name: [] for name in things}
    for repeat in range(repeats + 1):
        for name, thing in things.items():
            # All draw the same subsets: two ways to treat the same losses are to be compared.
            torch.manual_seed(repeat)
            start = time.perf_counter()
            thing()
            # The first round fills caches and chooses kernels.
            if repeat:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def _steps(crop: int, batch: int, amp: bool) -> dict[str, Callable[[], None]]:
    half, complete = (training_batch(crop, batch, rows) for rows in (HALF, COMPLETE))
    steps = {f"{name} step": (METHODS[name], half) for name in METHODS}
    steps |= {f"{name} step{ON_COMPLETE}": (METHODS[name], complete) for name in _PROMISED}
    return {name: training_step(make(data), data, amp) for name, (make, data) in steps.items()}


def _windows(side: int, amp: bool) -> dict[str, Callable[[], None]]:
    return {f"{name} window": window(make(), side, amp) for name, make in NETWORKS.items()}


def _parameters(name: str) -> int:
    return sum(parameter.numel() for parameter in NETWORKS[name]().parameters())


def _in_own_process(peak: Callable[..., Any], *arguments: Any) -> Any:
    """Measure memory in a process of its own, which frees all of it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak, arguments)


def _window_peak(name: str, side: int, amp: bool) -> float:
    """Peak of memory that a window adds, in MiB."""
    torch.set_num_threads(1)
    network = NETWORKS[name]()
    window(network, 16, amp)()
    return _peak_of(window(network, side, amp))[1]


def _step_peak(name: str, crop: int, batch: int, amp: bool) -> dict[str, float]:
    """Peak of memory of a process that trains, and what its steps add to it, in MiB."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = training_batch(crop, batch, HALF)
    step = training_step(METHODS[name](data), data, amp)

    def steps() -> None:
        for seed in range(_MEMORY_STEPS):
            torch.manual_seed(seed)
            step()

    whole, added = _peak_of(steps)
    return {"whole": whole, "added": added}


def _peak_of(thing: Callable[[], None]) -> tuple[float, float]:
    """Do something; return the peak of the process's memory meanwhile, and what that added."""
    # Importing took more memory than this does: Linux is told to forget that peak.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_so_far()
    thing()
    return _peak_so_far(), _peak_so_far() - before


def _peak_so_far() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10


def write(output_dir: str) -> str:
    """Measure into `cost.json` in the folder; return the tables."""
    costs = {**measure(), **circumstances()}
    write_text_atomically(Path(output_dir) / FILE, json.dumps(costs, indent=1) + "\n")
    return table(costs)


def read(folder: str | Path) -> dict[str, Any] | None:
    """Read what `write` left in the folder; None = nothing was measured."""
    path = Path(folder) / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def method_cost_rows(costs: Mapping[str, Any] | None) -> list[Row]:
    """One row for every method: what it costs, as ratios to the plain U-Net; None = not measured.

    Args:
        costs: what `measure` returned, or an earlier version of it; None = nothing.
    """
    costs = costs or {}
    rows = []
    seconds, training = costs.get("seconds", {}), costs.get("training_mebibytes", {})
    memory = {
        kind: {name: peaks[kind] for name, peaks in training.items()} for kind in ("whole", "added")
    }
    for label, (step, network) in MEASURED.items():
        rows.append(
            {
                "method": label,
                "step": _ratio(seconds, f"{step} step", f"{PLAIN} step"),
                "training_memory": _ratio(memory["whole"], step, PLAIN),
                "training_memory_added": _ratio(memory["added"], step, PLAIN),
                "parameters": _ratio(costs.get("parameters", {}), network, PLAIN),
                "inference": _ratio(seconds, f"{network} window", f"{PLAIN} window"),
                "inference_memory": _ratio(costs.get("mebibytes", {}), network, PLAIN),
            }
        )
    # Each subset has a network of its own, of which one is used at a time.
    one = rows[0]
    many = len(all_subsets(range(MODALITIES)))
    return [*rows, {**one, "method": SPECIALISTS, "parameters": _times(one["parameters"], many)}]


def _ratio(values: Mapping[str, float], name: str, plain: str) -> float | None:
    return values[name] / values[plain] if name in values and plain in values else None


def _times(value: float | None, factor: int) -> float | None:
    return None if value is None else factor * value


def table(costs: Mapping[str, Any]) -> str:
    """Write each method's ratios as a Markdown table, and what was promised as another one."""
    return f"{_methods_table(costs)}\n{_promises_table(costs)}"


def _methods_table(costs: Mapping[str, Any]) -> str:
    names = {
        "step": "training step",
        "training_memory": "memory, training",
        "training_memory_added": "of it by steps",
        "parameters": "parameters",
        "inference": "inference",
        "inference_memory": "memory of a window",
    }
    rows = method_cost_rows(costs)
    body = [[str(row["method"]), *(times(row[key]) for key in names)] for row in rows]
    return markdown(["ratio to the plain U-Net", *names.values()], body)


def _promises_table(costs: Mapping[str, Any]) -> str:
    body = [
        [name, times(costs["ratios"].get(name)), "" if limit is None else f"{limit:g}"]
        for name, limit in PROMISES
    ]
    return markdown(["ratio", "measured", "limit"], body)
