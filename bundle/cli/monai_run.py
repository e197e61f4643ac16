"""What `python -m monai.bundle run` gets of ours, as soon as a config imports `bundle`.

MONAI's command line is Python Fire, which takes a word for a Python expression before any code of
ours runs: a word that it has changed is refused. What fails before a config's imports, such as a
config file that does not exist, is reported by MONAI alone.
"""

from __future__ import annotations

import logging
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from fire.parser import DefaultParseValue

from bundle.cli.errors import is_for_people, shows_tracebacks, tell_last
from bundle.cli.terminal import bear_every_letter
from bundle.cli.words import is_option

# How the names of the settings end that hold a path.
_PATH = re.compile(r"(^|[_#])(dir|file|root|path)$")
# MONAI's own, each of which may be a list of files.
_OF_MONAI = ("config_file", "meta_file", "logging_file", "args_file")
# How the lines begin that ignite and MONAI log of an error before they raise it again.
_REPEATED = ("Engine run is terminating", "Current run is terminating", "Exception: ")


def take_over() -> None:
    """Tell errors as our own commands do, in a process that MONAI's command line has begun.

    Raises:
        SystemExit: with status 2, a word was changed on its way.
    """
    bear_every_letter()
    sys.excepthook = tell_last
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            handler.addFilter(is_news)
    for refusal in refusals(sys.argv[1:]):
        # An ImportError would be taken by MONAI for a package that is not installed.
        print(f"error: {refusal}", file=sys.stderr)
        raise SystemExit(2)


def is_news(record: logging.LogRecord) -> bool:
    """Tell what engines log from their repeating, with a traceback, of an error told at the end."""
    error = sys.exc_info()[1]
    if error is None or shows_tracebacks() or not record.getMessage().startswith(_REPEATED):
        return True
    return not is_for_people(error)


def refusals(words: Sequence[str]) -> Iterator[str]:
    """Find the settings whose words Python Fire does not hand over as they are.

    Args:
        words: the command line after `python -m monai.bundle`.

    Yields:
        For each of them, what to write in its place.
    """
    for name, word in _settings(words):
        is_path = _PATH.search(name) is not None and name not in _OF_MONAI
        value = DefaultParseValue(word)
        remedy = f"Quote it twice, --{name} {shlex.quote(chr(34) + word + chr(34))}"
        if is_path and word in ("", "null"):
            yield f"{name}: expected a path, got {word!r}. Write --{name} None for none."
        elif is_path and not isinstance(value, str) and value is not None:
            yield (
                f"{name}: expected a path, got the {_kind(value)} {value!r}, which MONAI's command "
                f"line makes of {word!r}. {remedy}, or write ./{word}."
            )
        elif isinstance(value, str) and word not in (value, f"'{value}'", f'"{value}"'):
            yield (
                f"{name}: expected {word!r}, got {value!r}, which MONAI's command line makes of "
                f"it. {remedy}."
            )
        elif "#" in name and word in ("true", "false") and not name.endswith("_disabled_"):
            yield (
                f"{name}: expected True or False, got the text {word!r}, which counts as true "
                f"where no config reads it. Write --{name} {word.capitalize()}."
            )
        elif is_path and isinstance(value, str) and value.startswith("~"):
            yield (
                f"{name}: expected a path, got {value!r}: no shell has put your folder in the "
                f"place of ~. Write --{name} {value}, without = and quotes, or the whole path."
            )


def _kind(value: Any) -> str:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return "number" if is_number else type(value).__name__


def _settings(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """List the names and words of --name word and --name=word, as Python Fire takes them.

    A name without a word, which Python Fire takes for True, has the word ''.
    """
    for position, word in enumerate(words):
        # Python Fire takes -name as --name.
        if not is_option(word):
            continue
        name, equals, given = word.lstrip("-").partition("=")
        if not equals and position + 1 < len(words) and not is_option(words[position + 1]):
            given = words[position + 1]
        yield name.replace("-", "_"), given
