"""Some processes make the cases of a phantom side by side; each case is the same as from one."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

MOST_WORKERS = 4


def default_workers() -> int:
    """Say how many processes this machine has room for: its processors, at most 4."""
    return min(MOST_WORKERS, os.cpu_count() or 1)


def run_all(
    task: Callable[..., None], calls: Sequence[tuple[Any, ...]], workers: int = 1
) -> Iterator[None]:
    """Run a task on each call's arguments, and yield whenever one is done.

    Args:
        task: a function of a module, which another process can import.
        calls: arguments, which can be pickled.
        workers: processes; with 1, or within a daemon process, which may not have any of its own,
            all runs in this one.

    Raises:
        ValueError: fewer than one worker.
        Exception: the first that a task raises; what has not begun is then left out.
    """
    check_workers(workers)
    workers = min(workers, len(calls))
    if workers <= 1 or multiprocessing.current_process().daemon:
        for call in calls:
            yield task(*call)
        return
    # Started afresh: a copy of a process that has run PyTorch's threads may wait for them forever.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
    try:
        for done in as_completed([pool.submit(task, *call) for call in calls]):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def check_workers(workers: int) -> None:
    """Refuse fewer than one worker."""
    if workers < 1:
        raise ValueError(f"workers: expected a whole number from 1 on, got {workers}")


def _begin() -> None:
    """Leave Ctrl-C to the parent, which ends us, and threads to the other workers."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
