from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.cli.command import run_command
from bundle.cli.kinds import Names, PathText

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = "python -m bundle show"


def show(
    place: PathText, size: int = 48, names: Names = ("a", "b"), only: str | None = None
) -> None:
    """Show what was given.

    Args:
        place: where.
        size: how large, voxels.
        names: some names.
        only: a name.
    """
    if only == "bug":
        raise KeyError(only)
    print(ascii((place, size, names, only)))


def test_the_function_gets_the_words_and_the_status_is_0(capsys):
    assert run_command(show, ["2024_01_15", "--only=runs#1", "--size", "-1"], PROGRAM) == 0
    assert capsys.readouterr().out == "('2024_01_15', -1, ('a', 'b'), 'runs#1')\n"


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["x", "--size", "y", "--help"]])
def test_help_is_usage_docstring_and_defaults(words, capsys):
    assert run_command(show, words, PROGRAM) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        f"usage: {PROGRAM} PLACE [--OPTION VALUE] ...",
        "",
        "Show what was given.",
        "",
    ]
    assert lines[-4:] == ["", "Defaults:", "    --size 48", "    --names a,b"]
    assert run_command(show, ["--", "--help"], PROGRAM) == 0
    assert capsys.readouterr().out.startswith("('--help', ")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["x", "--sise=1"], "error: show: no option --sise. Did you mean --size?"),
        (["x", "--size=1e3"], "error: show: size: expected a whole number, got '1e3'."),
        (["x", "1", "a", "b", "c"], "error: show: one value too many, 'c'."),
    ],
)
def test_a_wrong_word_is_one_line_that_tells_where_the_options_are(words, line, capsys):
    assert run_command(show, words, PROGRAM) == 2
    shown = capsys.readouterr()
    assert shown.err == f"{line} `{PROGRAM} --help` lists the options.\n"
    assert shown.out == ""


def test_a_slip_of_ours_has_status_1(capsys):
    assert run_command(show, ["x", "--only", "bug"], PROGRAM) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "error: KeyError: 'bug'"


def test_a_scan_writes_its_datalist_to_whatever_terminal_and_file(tmp_path):
    """A case whose name is not in UTF-8, an ASCII terminal, a reader who has left, odd words."""
    case = os.fsdecode(b"P\xe4t_1")
    (tmp_path / "2024_01_15" / case).mkdir(parents=True)
    voxels = np.random.default_rng(0).random((10, 20, 30)).astype(np.float32)
    for modality in ("t1", "flair"):
        file = tmp_path / "2024_01_15" / case / f"{case}_{modality}.nii"
        nib.save(nib.Nifti1Image(voxels + len(modality), np.eye(4)), file)
    words = ["2024_01_15", "--output=~/runs#1_0x10.json", "--strict", "false", "--check", "headers"]
    variables = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "HOME": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "bundle", "scan", *words],
        cwd=tmp_path,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    written = json.loads((tmp_path / "runs#1_0x10.json").read_text())
    assert [item["case"] for item in written["testing"]] == [case]
