"""Readers come first: scoring waits while somebody's segmentation is being made."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

# The module that is MONAI Label's server; its background tasks run in processes without it.
SERVER = "monailabel.app"
LOWEST_PRIORITY = 19
POLL_SECONDS = 0.2


class Turns:
    """Who may use the machine, among all processes of one app.

    A lock of the operating system: it is free again when a process dies.

    Args:
        path: the lock's file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        # One lock for all threads, because a server may make several segmentations at once.
        self._lock = FileLock(self.path, thread_local=False)
        self._guard = threading.Lock()
        self._readers = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep scoring from starting another case; readers do not wait for each other."""
        with self._guard:
            self._readers += 1
            if self._readers == 1:
                # Where it times out, a reader of another process keeps scoring away.
                try:
                    self._lock.acquire(timeout=0.1, poll_interval=0.01)
                except Timeout:
                    logger.debug("a reader in another process holds the lock")
        try:
            yield
        finally:
            with self._guard:
                self._readers -= 1
                if self._readers == 0 and self._lock.is_locked:
                    self._lock.release()

    def wait_for_readers(self) -> float:
        """Return when nobody's segmentation is being made; the seconds that it took."""
        begin, said = time.monotonic(), False
        while self._somebody_reads():
            if not said:
                logger.info("waiting: somebody's segmentation comes first")
                said = True
            time.sleep(POLL_SECONDS)
        return time.monotonic() - begin

    def _somebody_reads(self) -> bool:
        try:
            with FileLock(self.path, timeout=0):
                return False
        except Timeout:
            return True


def step_back() -> bool:
    """Give this process the lowest priority, unless it is the server; True = it has it now."""
    if SERVER in sys.modules:
        return False
    process = psutil.Process()
    if psutil.WINDOWS:
        process.nice(psutil.IDLE_PRIORITY_CLASS)
    elif psutil.LINUX:
        # There a priority is a thread's, and PyTorch may have started some.
        for thread in process.threads():
            try:
                os.setpriority(os.PRIO_PROCESS, thread.id, LOWEST_PRIORITY)
            except ProcessLookupError:
                continue
    else:
        process.nice(LOWEST_PRIORITY)
    return True
