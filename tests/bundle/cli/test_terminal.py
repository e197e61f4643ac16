"""In processes of their own, whose streams are real ones; they load no heavy module."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
START = "from bundle.cli.terminal import bear_every_letter; bear_every_letter(); import sys; "


def start(code: str, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", START + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "0", **variables},
    )


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({"PYTHONIOENCODING": "ascii"}, rb"P\xe4t \u2013 \udce4"),
        ({"PYTHONIOENCODING": "cp1252"}, b"P\xe4t \x96 \\udce4"),
        ({"PYTHONIOENCODING": "utf-8"}, "Pät \u2013 ".encode() + rb"\udce4"),
        (
            {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""},
            rb"P\xe4t \u2013 \udce4",
        ),
    ],
)  # fmt: skip
def test_a_letter_that_the_terminal_lacks_is_an_escape(variables, shown):
    code = "[print('P\\xe4t \\u2013 \\udce4', file=f) for f in (sys.stdout, sys.stderr)]"
    process = start(code, **variables)
    assert process.communicate() == (shown + b"\n", shown + b"\n")
    assert process.returncode == 0


@pytest.mark.parametrize("code", ["print('x' * 10**6)", "print('x', flush=True)", "print('x')"])
def test_a_reader_who_has_left_costs_nothing(code, tmp_path):
    file = tmp_path / "result"
    process = start(f"{code}; print('more', flush=True); open({str(file)!r}, 'w')")
    with process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert file.exists()


def test_who_logs_to_a_stream_of_before_is_not_stopped_either(tmp_path):
    code = (
        "import logging; logging.basicConfig(stream=sys.stdout); "
        "[logging.error('x' * 10**5) for _ in range(3)]"
    )
    process = start(code)
    with process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
