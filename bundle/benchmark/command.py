"""The command `python -m bundle benchmark`: make what is missing of a grid, then its report."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Executor

from bundle.benchmark import cost, rebuilding
from bundle.benchmark.data import prepare_data, read_own_cases
from bundle.benchmark.federated import federation
from bundle.benchmark.grids import GRIDS, OWN
from bundle.benchmark.plan import Run, RunGrid
from bundle.benchmark.pool import Outcome, choose, process_pool, run_all
from bundle.benchmark.report import write_report
from bundle.benchmark.results import read_results
from bundle.benchmark.runs import execute

ON_THE_PHANTOM: Mapping[str, Callable[[], RunGrid]] = {**GRIDS, "federation": federation}
# Not made of runs; each returns its table and leaves a file that the report takes up.
MEASUREMENTS: Mapping[str, Callable[[str], str]] = {
    "cost": cost.write,
    "rebuilding": rebuilding.write,
}


def benchmark(
    output_dir: str,
    grid: str = "main",
    workers: int = 2,
    only: str | None = None,
    report_only: bool = False,
    keep: bool = False,
    device: str | None = None,
    datalist: str | None = None,
    make_executor: Callable[[int], Executor] = process_pool,
) -> bool:
    """Make the runs of a grid that have no record yet, then write the report.

    Args:
        output_dir: the grid's folder; the same one goes on where it was stopped.
        grid: one of `ON_THE_PHANTOM`; of `OWN`, on the cases of `datalist`; or of `MEASUREMENTS`,
            which are made in one go.
        workers: how many runs at a time, one core each; federated runs are made one by one.
        only: make the runs whose names match this regular expression somewhere; the report is on
            all that are there.
        report_only: True = make no run.
        keep: True = leave the runs' checkpoints.
        device: of trainings and evaluations, such as "cuda"; None = the grid's own.
        datalist: the cases for a grid of `OWN`.
        make_executor: as in `run_all`.

    Returns:
        True = no run failed.

    Raises:
        ValueError: no such grid, no run that matches, not a regular expression, a device for sites
            that have their own, or a datalist without the grid that needs one, or the other way
            round.
    """
    if grid in MEASUREMENTS:
        if only or report_only or device or datalist:
            raise ValueError(
                f"grid {grid}: expected none of --only, --report_only, --device and --datalist, "
                "got one"
            )
        with make_executor(1) as executor:
            print(executor.submit(MEASUREMENTS[grid], str(output_dir)).result())
        return True
    plan = _plan(grid, datalist)
    if device is not None and any(run.federation is not None for run in plan.runs):
        raise ValueError(
            f"grid {grid}: expected no --device, got {device!r}. Its sites train on the device of "
            "configs/benchmark.yaml."
        )
    wanted = _matching(plan, only)
    outcome, todo = choose(plan, wanted, output_dir)
    print(f"grid {grid}: {len(outcome.finished)} of {len(plan.runs)} runs are finished")
    try:
        if todo and not report_only:
            datalists = {run.name: prepare_data(run, output_dir, datalist) for run in todo}
            job = functools.partial(
                execute,
                digests=plan.digests(),
                datalists=datalists,
                output_dir=str(output_dir),
                keep=keep,
                device=device,
            )
            at_once = workers if plan.at_once is None else min(workers, plan.at_once)
            run_all(plan, todo, outcome, output_dir, job, make_executor, at_once)
    except KeyboardInterrupt:
        print("stopped; the same command goes on with the runs that are missing")
        raise
    finally:
        print(f"wrote {write_report(read_results(plan, output_dir), output_dir)}")
    return _tell(outcome)


def _plan(grid: str, datalist: str | None) -> RunGrid:
    if grid not in ON_THE_PHANTOM and grid not in OWN:
        raise ValueError(
            f"grid: expected one of {[*ON_THE_PHANTOM, *OWN, *MEASUREMENTS]}, got {grid!r}"
        )
    if (grid in OWN) != (datalist is not None):
        raise ValueError(
            f"expected --datalist with the grids {list(OWN)} and nowhere else, got grid {grid!r} "
            f"and datalist {datalist!r}"
        )
    if datalist is not None:
        return OWN[grid](read_own_cases(datalist))
    return ON_THE_PHANTOM[grid]()


def _matching(plan: RunGrid, only: str | None) -> list[Run]:
    try:
        pattern = re.compile(only or "")
    except re.error as error:
        raise ValueError(f"only: expected a regular expression, got {only!r} ({error})") from error
    runs = [run for run in plan.runs if pattern.search(run.name)]
    if not runs:
        raise ValueError(
            f"only: expected a part of a run's name, such as {plan.runs[0].name!r}, got {only!r}"
        )
    return runs


def _tell(outcome: Outcome) -> bool:
    for name, message in outcome.failures.items():
        print(f"failed: {name}: {message}")
    return not outcome.failures
