"""The config that is being read, for code that the config itself calls."""

from __future__ import annotations

import sys
from types import FrameType

from monai.bundle import ConfigParser


def current_parser() -> ConfigParser | None:
    """Find the parser that evaluates the expression or the component which calls this.

    MONAI hands an expression what it refers to, never the whole config. A reference to the whole
    would build every part of it. The parser is on the call stack, so it is looked up there.

    Returns:
        The innermost parser that is at work; None = no config is being read.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, ConfigParser):
            return caller
        frame = frame.f_back
    return None
