"""An old config on the command line: the last line of the error has the new name."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def test_the_last_line_is_ours_not_that_monai_failed_to_evaluate(tmp_path):
    config = {"imports": ["$import bundle"], "run": ["$bundle.checkpoints.check_writable('x')"]}
    path = tmp_path / "old.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.rstrip().splitlines()[-1]
    assert last.startswith("error: bundle.checkpoints.BestModel is now")
    assert last.endswith("Change the name in the config, job or script that has it.")
