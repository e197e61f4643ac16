"""Many runs on few processor cores: what goes wrong, and how far it has come."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from bundle.atomic import write_text_atomically
from bundle.benchmark.plan import Run, RunGrid
from bundle.benchmark.results import Result, read_result, record_path

# Called in a worker as execute(run); it writes the record.
Execute = Callable[[Run], None]

# One training, one core. PyTorch reads these when it is loaded, children inherit them.
_ONE_CORE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
# Loaded once, in the process that workers are forked from: ten seconds that a run need not wait.
# Nothing of ours, so that a run's record names what that run loads and no more.
_PRELOADED = ["ignite", "monai", "monai.bundle", "nibabel", "torch.utils.tensorboard"]


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Start processes that keep to one core each and end when this one does.

    Every run gets a new one, so that what it loads, and what that costs, does not depend on what
    ran before it.
    """
    os.environ.update(_ONE_CORE)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, max_tasks_per_child=1
    )


def _start_worker() -> None:
    # Ctrl-C reaches every process of a terminal; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        finished: results by run name, those of earlier days included.
        failures: the last line of the error, by run name.
    """

    finished: dict[str, Result]
    failures: dict[str, str] = field(default_factory=dict)


def choose(
    grid: RunGrid, wanted: Iterable[Run], output_dir: str | Path
) -> tuple[Outcome, list[Run]]:
    """Part the runs that are finished from those that are to be made; say which have changed."""
    digests = grid.digests()
    read = {run.name: read_result(run, digests[run.name], output_dir) for run in grid.runs}
    changed = [name for name, (state, _) in read.items() if state == "changed"]
    if changed:
        print(f"the plan of these runs has changed, their results do not count: {changed}")
    outcome = Outcome({name: result for name, (_, result) in read.items() if result is not None})
    return outcome, [run for run in wanted if run.name not in outcome.finished]


def run_all(
    grid: RunGrid,
    todo: Sequence[Run],
    outcome: Outcome,
    output_dir: str | Path,
    execute: Execute,
    make_executor: Callable[[int], Executor] = process_pool,
    workers: int = 2,
) -> None:
    """Make runs, several at a time; one's error stops no other.

    Args:
        grid: the plan.
        todo: the runs to make, the first ones first.
        outcome: what is finished already; it is completed.
        output_dir: the grid's folder; an error's traceback goes to runs/<name>.error.txt.
        execute: makes one run and writes its record, in a worker.
        make_executor: given the number of workers; called again if a worker dies.
        workers: how many at a time.
    """
    waiting = list(todo)
    running: dict[Future, Run] = {}
    digests = grid.digests()
    executor = make_executor(workers)
    try:
        with tqdm(total=len(waiting), desc="runs", unit="run", smoothing=0, disable=None) as bar:
            while True:
                while waiting and len(running) < workers:
                    run = waiting.pop(0)
                    running[executor.submit(execute, run)] = run
                if not running:
                    break
                done = wait(running, return_when=FIRST_COMPLETED).done
                if any(isinstance(future.exception(), BrokenExecutor) for future in done):
                    # A worker was killed, perhaps for its memory; nobody can say which.
                    done = wait(running).done
                    executor.shutdown()
                    executor = make_executor(workers)
                for future in [future for future in running if future in done]:
                    run = running.pop(future)
                    _settle(run, digests[run.name], future.exception(), outcome, output_dir)
                    bar.update()
    except BaseException:
        for child in multiprocessing.active_children():
            child.kill()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _settle(
    run: Run,
    digest: str,
    error: BaseException | None,
    outcome: Outcome,
    output_dir: str | Path,
) -> None:
    """Take in the record of a run, or write down why there is none."""
    note = record_path(output_dir, run.name).with_suffix(".error.txt")
    result = read_result(run, digest, output_dir)[1]
    if error is None and result is None:
        error = RuntimeError(f"{run.name} ended without an error but also without a record")
    if error is not None:
        write_text_atomically(note, "".join(traceback.format_exception(error)))
        outcome.failures[run.name] = f"{type(error).__name__}: {error}".splitlines()[0]
        tqdm.write(f"FAILED {run.name}: {outcome.failures[run.name]} (more in {note})")
        return
    note.unlink(missing_ok=True)
    outcome.finished[run.name] = result
    tqdm.write(f"done {run.name}: {_summary(result)}")


def _summary(result: Result) -> str:
    if result.not_possible:
        return result.not_possible
    if result.run.federation is not None:
        return f"{result.record['seconds']:.0f} s"
    return (
        f"Dice {100 * result.dice:.1f} %, {result.steps} steps, "
        f"{result.cpu_seconds:.0f} s of CPU time"
    )
