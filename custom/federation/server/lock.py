"""One job at a time for a federation: two would write one state."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from bundle.atomic import write_text_atomically

_LOCK, _HOLDER = ".running.lock", ".running.json"
# The stages of a job have a persistor each, all in one process.
_held: dict[Path, FederationLock] = {}


@dataclass(frozen=True)
class FederationLock:
    """The right to write a federation's state, until the process ends or gives it back.

    Attributes:
        root: the federation's folder.
        job: what the holder is called.
    """

    root: Path
    job: str
    file: FileLock

    def release(self) -> None:
        """Let another job run; more than once does no harm."""
        if _held.get(self.root) is self:
            del _held[self.root]
            (self.root / _HOLDER).unlink(missing_ok=True)
            self.file.release(force=True)


def take_lock(root: str | Path, job: str) -> FederationLock:
    """Take a federation for a job; a second call for the same job gives the same lock.

    The system gives the lock back when a process dies, so that nobody has to clear anything away.

    Args:
        root: the federation's folder.
        job: name and id, for whoever comes second.

    Raises:
        ValueError: another job runs, with its name.
    """
    root = Path(root).resolve()
    held = _held.get(root)
    if held is not None and held.job == job:
        return held
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(root / _LOCK), timeout=0, thread_local=False)
    try:
        if held is not None:
            raise Timeout(str(root / _LOCK))
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"expected that no other job runs for the federation {root.name}, but {_holder(root)} "
            "does. Nothing of it was touched. Wait until it has finished or abort it; or give this "
            "job a federation of its own with --federation."
        ) from error
    write_text_atomically(root / _HOLDER, json.dumps({"job": job}) + "\n")
    _held[root] = FederationLock(root, job, lock)
    return _held[root]


def _holder(root: Path) -> str:
    try:
        return str(json.loads((root / _HOLDER).read_text(encoding="utf-8"))["job"])
    except (OSError, ValueError, KeyError, TypeError):
        return "one"
