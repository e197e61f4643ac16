"""The smoke grid through the command line: three trainings in worker processes, then none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bundle

pytestmark = pytest.mark.slow


def run_smoke(folder: Path) -> str:
    command = [sys.executable, "-m", "bundle", "benchmark", str(folder), "--grid", "smoke"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=bundle.ROOT)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def records(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in (folder / "runs").glob("*.json")}


def test_a_grid_is_run_once_and_reported_twice(tmp_path):
    told = run_smoke(tmp_path)
    assert told.count("done ") == 3
    found = records(tmp_path)
    assert len(found) == 3
    for name, record in found.items():
        (stage,) = record["stages"]
        assert stage["steps"] == 2 * stage["epochs"]
        # GMD's steps cost more, so that fewer fit into the same budget.
        assert stage["epochs"] == (1 if "GMD" in name else 2)
        assert stage["training_cases"] == 4
        # One core each: more CPU time than there was time means more threads than one.
        assert stage["cpu_seconds"] <= 1.1 * stage["wall_seconds"] + 0.1
        assert len(record["dice"]) == 15
        assert set(record["dice"]["t1"]) == {"TC", "WT", "ET"}
        assert "Epoch[1]" in (tmp_path / "logs" / f"{name}.log").read_text()
    first, second = (
        found[f"smoke-{label}-missing_0-seed_0"] for label in ("modality_dropout", "full_only")
    )
    assert first["stages"][0]["epochs"] == second["stages"][0]["epochs"] == 2
    # On complete data both are the same training, to the last digit, in two processes.
    assert first["dice"] == second["dice"]
    assert list((tmp_path / "scratch").iterdir()) == []
    report = (tmp_path / "smoke" / "report.md").read_text(encoding="utf-8")
    assert "**3 of 3 runs**" in report
    assert (tmp_path / "smoke" / "dice.png").stat().st_size < 150_000

    dates = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    assert "done " not in run_smoke(tmp_path)
    assert dates == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    assert (tmp_path / "smoke" / "report.md").read_text(encoding="utf-8") == report
