"""What every planned run came to, and what one training of each kind costs."""

from __future__ import annotations

from collections.abc import Sequence

from bundle.benchmark.plan import COMPARED, SPECIALISTS, Run
from bundle.benchmark.results import Result, Results, Row
from bundle.benchmark.statistics import mean_and_spread


def run_rows(results: Results) -> list[Row]:
    """One row a planned run: what came of it and what it cost."""
    return [_run_row(run, results.finished.get(run.name)) for run in results.grid.runs]


def _run_row(run: Run, result: Result | None) -> Row:
    row = {"run": run.name, "group": run.group, "label": run.label}
    row |= {"ratio": run.missing, "seed": run.seed}
    made = result if result is not None and not result.not_possible else None
    state = "missing" if result is None else (result.not_possible or "finished")
    return row | {
        "state": state,
        "dice": made and made.dice,
        "training_cases": made and made.record["stages"][-1]["training_cases"],
        "steps": made and made.steps,
        "cpu_seconds": made and made.cpu_seconds,
        "evaluation_cpu_seconds": made and made.record["evaluation"]["cpu_seconds"],
        "date": result and result.record["date"],
    }


def cost_rows(results: Results) -> list[Row]:
    """One row for every kind of run and device: what one training costs, mean over the runs."""
    kinds: dict[tuple[str, str], dict[str, list[Result]]] = {}
    for run in results.grid.runs:
        label = SPECIALISTS if run.group == "specialist" else run.label
        found = kinds.setdefault((COMPARED.get(run.group, run.group), label), {})
        result = results.finished.get(run.name)
        if result is not None and not result.not_possible:
            found.setdefault(result.device, []).append(result)
    return [
        _cost_row(*kind, device, by_device.get(device, []))
        for kind, by_device in kinds.items()
        for device in sorted(by_device) or [""]
    ]


def _cost_row(kind: str, label: str, device: str, found: Sequence[Result]) -> Row:
    steps = mean_and_spread([result.steps for result in found])[0]
    seconds = mean_and_spread([result.cpu_seconds for result in found])[0]
    return {
        "comparison": kind,
        "method": label,
        "device": device,
        "runs": len(found),
        "steps": steps,
        "cpu_seconds": seconds,
        "cpu_ms_per_step": 1000 * seconds / steps if steps and seconds is not None else None,
    }
