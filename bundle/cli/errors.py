"""How an error ends a command: for a person's mistake one line, for ours its traceback before it.

The kinds that this package raises for people are ValueError, OSError and ImportError. MONAI wraps
what goes wrong in a config into errors of its own, "Failed to instantiate component ...", and a
worker process sends its error as text: the line tells what is behind them.
"""

from __future__ import annotations

import builtins
import linecache
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

# Set to 1, every traceback is shown.
VARIABLE = "PATCHWORK_TRACEBACK"
_FOR_PEOPLE = (ValueError, OSError, ImportError, KeyboardInterrupt)
# How MONAI's errors begin that have the cause behind them.
_WRAPPERS = ("Failed to ", "applying transform ")
_FROM_WORKER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.\nOriginal Traceback")
_LAST_OF_TRACEBACK = re.compile(r"^([\w.]+): (.*)", re.MULTILINE | re.DOTALL)
_NEXT_TRACEBACK = "\n\nThe above exception was the direct cause"
_ROOT = Path(__file__).resolve().parents[2]
_OURS = tuple(f"{_ROOT / name}{os.sep}" for name in ("apps", "bundle", "custom", "jobs"))
# The code that runs what a config says: an expression, and the call of a component.
_CONFIG_CODE = ("<string>", os.path.join("monai", "utils", "module.py"))


def end_of(error: BaseException) -> int:
    """Tell a person what ended a command.

    Returns:
        The exit status: 2 where the person has to change something, 130 after Ctrl-C, else 1.
    """
    tell(error)
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if is_for_people(error) else 1


def tell_last(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Be Python's hook for an error that nothing has caught."""
    tell(error)


def tell(error: BaseException) -> None:
    """Print an error on stderr: its sentence comes last, and alone where it is for people."""
    if shows_tracebacks() or not is_for_people(error):
        traceback.print_exception(error)
    print(sentence_of(error), file=sys.stderr)


def shows_tracebacks() -> bool:
    """Tell whether the person who runs this asked for every traceback."""
    return os.environ.get(VARIABLE, "0") not in ("", "0")


def is_for_people(error: BaseException) -> bool:
    """Tell a mistake of the person who runs this from one of ours.

    True is also what the config's own text has raised, such as an argument that a component does
    not take, and a RuntimeError that our code has raised with a sentence of its own.
    """
    cause = cause_of(error)
    if isinstance(cause, _FOR_PEOPLE):
        return True
    file, line = _place_of(cause)
    if cause is not error and file.endswith(_CONFIG_CODE):
        return True
    return type(cause) is RuntimeError and file.startswith(_OURS) and line.startswith("raise ")


def cause_of(error: BaseException) -> BaseException:
    """Find what is behind the errors of MONAI and of worker processes; else the error itself."""
    *_, last = _unwrapped(error)
    return last


def _unwrapped(error: BaseException) -> Iterator[BaseException]:
    yield error
    if _FROM_WORKER.match(str(error)):
        yield _first_in_text(error)
    elif str(error).startswith(_WRAPPERS) and error.__cause__ is not None:
        yield from _unwrapped(error.__cause__)


def _first_in_text(error: BaseException) -> BaseException:
    """Make the error anew that a worker process was the first to raise.

    It has written all its tracebacks into the text of the last one, the first of them at the top.
    """
    found = _LAST_OF_TRACEBACK.search(str(error).partition(_NEXT_TRACEBACK)[0].partition("\n")[2])
    if found is None:
        return error
    module, _, name = found.group(1).rpartition(".")
    kind = getattr(sys.modules.get(module, builtins), name, None)
    known = isinstance(kind, type) and issubclass(kind, _FOR_PEOPLE)
    return ValueError(found.group(2).strip()) if known else error


def sentence_of(error: BaseException) -> str:
    """Write the last line: what went wrong, and, where the code is not ours, in which component."""
    *wrappers, cause = _unwrapped(error)
    if isinstance(cause, KeyboardInterrupt):
        return "stopped with Ctrl-C"
    text = str(cause).strip() or "no message"
    if type(cause) not in (ValueError, RuntimeError) and not isinstance(cause, _FOR_PEOPLE):
        text = f"{type(cause).__name__}: {text}"
    if wrappers and cause.__traceback__ and not _place_of(cause)[0].startswith(_OURS):
        text += f" ({' '.join(str(wrappers[-1]).partition(' set ')[0].split())})"
    return f"error: {text}"


def _place_of(error: BaseException) -> tuple[str, str]:
    """Return the file in which an error was raised, and the line's text."""
    trace = error.__traceback__
    if trace is None:
        return "", ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    file = trace.tb_frame.f_code.co_filename
    return file, linecache.getline(file, trace.tb_lineno).strip()
