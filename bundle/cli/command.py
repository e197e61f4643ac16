"""Runs a function as a command: its words, its help, how it ends.

Why not a library: with Python Fire a word is a Python expression (`2024_01_15` is 20240115);
Cyclopts and Typer take `--strict false` for a switch that is on and one more value, in silence;
jsonargparse has no `--strict` without a word. argparse has no parameter that can be given by its
place and by its name.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bundle.cli.errors import end_of
from bundle.cli.terminal import bear_every_letter
from bundle.cli.words import read_words

HELP = ("--help", "-h")


def main(call: Callable[..., Any], program: str, others: Mapping[str, Any] | None = None) -> None:
    """Be the command of this process: run the function with the process's words, and exit.

    Args:
        call: the function; its docstring in Google style is the help.
        program: what a person types, such as 'python -m federation.kit'.
        others: see `read_words`.
    """
    bear_every_letter()
    sys.exit(run_command(call, sys.argv[1:], program, others))


def run_command(
    call: Callable[..., Any],
    words: Sequence[str],
    program: str,
    others: Mapping[str, Any] | None = None,
) -> int:
    """Run a function with words; arguments as in `main`.

    Returns:
        The exit status: 0, or what `end_of` says of the error.
    """
    try:
        if asks_for_help(words):
            print(help_of(call, program))
        else:
            call(**_read(call, words, program, others))
        # So that a full disk under `> file` is an error too.
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        return end_of(error)
    return 0


def asks_for_help(words: Sequence[str]) -> bool:
    """Tell whether --help is among the words; after `--` it is a value."""
    return any(word in HELP for word in words[: _index(words, "--")])


def _index(words: Sequence[str], word: str) -> int:
    return list(words).index(word) if word in words else len(words)


def _read(
    call: Callable[..., Any], words: Sequence[str], program: str, others: Mapping[str, Any] | None
) -> dict[str, Any]:
    try:
        return read_words(call, words, others)
    except ValueError as error:
        command = program.split()[-1]
        raise ValueError(f"{command}: {error} `{program} --help` lists the options.") from None


def help_of(call: Callable[..., Any], program: str) -> str:
    """Say how a command is called; its docstring names every option, the signature the defaults."""
    parameters = [
        each
        for each in inspect.signature(call).parameters.values()
        if each.kind is not each.VAR_KEYWORD
    ]
    needed = [each.name.upper() for each in parameters if each.default is each.empty]
    given = [each for each in parameters if each.default not in (each.empty, None, ())]
    usage = " ".join([program, *needed, "[--OPTION VALUE] ..."])
    defaults = [f"    --{each.name} {_as_word(each.default)}" for each in given]
    lines = [f"usage: {usage}", "", inspect.getdoc(call) or ""]
    return "\n".join([*lines, *(["", "Defaults:", *defaults] if defaults else [])])


def _as_word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
