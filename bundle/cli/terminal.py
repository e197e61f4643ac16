"""What is printed never costs the result: letters that cannot be shown, a reader who has left."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO


def bear_every_letter() -> None:
    """Let this process print whatever the terminal, or the pipe, makes of it.

    A letter that the terminal's encoding lacks, or a file name's byte that is no letter, is printed
    as an escape such as `\\xe4`. Where the reader has left, as `| head` does, the rest is printed
    to nobody, and the command goes on to its end.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            _outlive_reader(stream)


def _outlive_reader(stream: TextIO) -> None:
    """Change the stream itself: logging and others have hold of it already."""
    for name in ("write", "flush"):
        setattr(stream, name, _without_reader(stream, getattr(stream, name)))


def _without_reader(stream: TextIO, call: Callable[..., Any]) -> Callable[..., Any]:
    def bear(*given: Any) -> Any:
        try:
            return call(*given)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
            with contextlib.suppress(OSError):
                return call(*given)

    return bear
