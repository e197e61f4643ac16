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
_IN_CONFIG = "Failed to "
_MAKING = f"{_IN_CONFIG}instantiate component "
_WRAPPERS = (_IN_CONFIG, "applying transform ")
_FROM_WORKER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.\nOriginal Traceback")
_LAST_OF_TRACEBACK = re.compile(r"^([\w.]+): (.*)", re.MULTILINE | re.DOTALL)
_NEXT_TRACEBACK = re.compile(
    r"\n\n(?:The above exception was the direct cause of the following exception|"
    r"During handling of the above exception, another exception occurred):\n\n"
)
_ROOT = Path(__file__).resolve().parents[2]
_OURS = tuple(f"{_ROOT / name}{os.sep}" for name in ("apps", "bundle", "custom", "jobs"))
# The file of an expression in a config.
_EXPRESSION = "<string>"


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

    True is also what a config's own expression has raised, or a component that a config makes,
    such as of an argument that it does not take: the configs themselves are tested, what somebody
    has changed in them is not. And a RuntimeError that our code has raised with its own sentence.
    """
    *wrappers, cause = _unwrapped(error)
    if isinstance(cause, _FOR_PEOPLE) or _is_our_sentence(cause):
        return True
    is_made = bool(wrappers) and str(wrappers[-1]).startswith(_MAKING)
    is_written = bool(wrappers) and _place_of(cause)[0] == _EXPRESSION
    return (is_made or is_written) and not isinstance(cause, AssertionError)


def _is_our_sentence(error: BaseException) -> bool:
    """Tell what our code has raised of types that others raise by accident.

    AttributeError is how a package tells that it has no such name, or has it elsewhere.
    """
    file, line = _place_of(error)
    types = (RuntimeError, AttributeError, FloatingPointError, TypeError, NotImplementedError)
    return type(error) in types and file.startswith(_OURS) and line.startswith("raise ")


def _unwrapped(error: BaseException) -> Iterator[BaseException]:
    """Give an error and what is behind it, down to what neither MONAI nor a worker wraps."""
    yield error
    if _FROM_WORKER.match(str(error)):
        yield _unwrapped_text(error)
    elif str(error).startswith(_WRAPPERS) and error.__cause__ is not None:
        yield from _unwrapped(error.__cause__)


def _unwrapped_text(error: BaseException) -> BaseException:
    """Make anew, if it is for people, what is behind MONAI's errors in a worker process.

    The process has written the tracebacks of the whole chain into one text, the last one last.
    """
    for block in reversed(_NEXT_TRACEBACK.split(str(error).partition("\n")[2])):
        found = _LAST_OF_TRACEBACK.search(block)
        if found is None:
            return error
        if not found.group(2).startswith(_WRAPPERS):
            module, _, name = found.group(1).rpartition(".")
            kind = getattr(sys.modules.get(module, builtins), name, None)
            known = isinstance(kind, type) and issubclass(kind, _FOR_PEOPLE)
            return ValueError(found.group(2).strip()) if known else error
    return error


def sentence_of(error: BaseException) -> str:
    """Write the last line: what went wrong, and, where the code is not ours, in which component."""
    *wrappers, cause = _unwrapped(error)
    if isinstance(cause, KeyboardInterrupt):
        return "stopped with Ctrl-C"
    has_kind = isinstance(cause, _FOR_PEOPLE) or _is_our_sentence(cause)
    text, kind = str(cause).strip(), type(cause).__name__
    if not text:
        text = kind
    elif not has_kind and type(cause) is not RuntimeError:
        text = f"{kind}: {text}"
    notes = []
    is_ours = has_kind and _place_of(cause)[0].startswith(_OURS)
    if wrappers and str(wrappers[-1]).startswith(_IN_CONFIG) and not is_ours:
        notes.append(_first_words(wrappers[-1]))
    if not has_kind and not shows_tracebacks() and is_for_people(error):
        notes.append(f"{VARIABLE}=1 shows where")
    return f"error: {text} ({'; '.join(notes)})" if notes else f"error: {text}"


def _first_words(wrapper: BaseException) -> str:
    text = " ".join(str(wrapper).split())
    return text.partition(" with keywords")[0] if text.startswith(_MAKING) else text


def _place_of(error: BaseException) -> tuple[str, str]:
    """Return the file in which an error was raised, and the line's text."""
    trace = error.__traceback__
    if trace is None:
        return "", ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    file = trace.tb_frame.f_code.co_filename
    return file, linecache.getline(file, trace.tb_lineno).strip()
