"""The config that is being read, and what it was given, for code that the config itself calls."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle import run as monai_run
from monai.utils import ensure_tuple


def current_parser() -> ConfigParser | None:
    """Find the parser that evaluates the expression or the component which calls this.

    MONAI hands an expression what it refers to, never the whole config. A reference to the whole
    would build every part of it. The parser is on the call stack, so it is looked up there.

    Returns:
        The innermost parser that is at work; None = no config is being read.
    """
    callers = (frame.f_locals.get("self") for frame in _frames())
    return next((each for each in callers if isinstance(each, ConfigParser)), None)


def run_ids() -> set[str]:
    """Find what the workflow at work runs, which may be called anything; {} = there is none."""
    for frame in _frames():
        caller = frame.f_locals.get("self")
        if isinstance(caller, ConfigWorkflow):
            return {caller.run_id, caller.init_id, caller.final_id}
    return set()


def given() -> tuple[list[str], list[str]]:
    """Find what `python -m monai.bundle run`, or the function behind it, was given.

    Returns:
        The ids that were set, and the config files; nothing where a host builds the workflow.
    """
    for frame in _frames():
        if frame.f_code is monai_run.__code__:
            local = frame.f_locals
            known = ConfigParser.load_config_files(local["args_file"] or {})
            files = local["config_file"] or known.get("config_file") or ()
            if isinstance(files, str) and not Path(files).is_file():
                files = files.split(",")
            return [*local["override"], *known], [str(file) for file in ensure_tuple(files)]
    return [], []


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
