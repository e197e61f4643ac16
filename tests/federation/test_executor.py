from __future__ import annotations

import json
import sys
from pathlib import Path

import federation
import pytest
from federation.executor import BundleTrainer
from federation.stages import Stage

STAGES = [Stage("train", ["train.json"], 2, settings={"datalist": "a b"}).to_dict()]


def test_it_starts_the_installed_trainer_with_this_python_for_each_task():
    trainer = BundleTrainer("fed", STAGES)
    *command, arguments = trainer._command
    assert command == [sys.executable, "-u", "-m", "federation.client"]
    assert json.loads(arguments) == {"federation": "fed", "stages": STAGES, "once": True}
    assert not trainer._launch_once


def test_in_a_thread_the_arguments_survive_nvflares_splitting_at_blanks():
    trainer = BundleTrainer("fed", STAGES, own_process=False)
    assert trainer._task_script_path == str(Path(federation.__file__).with_name("client.py"))
    assert " " not in trainer._task_script_args
    assert json.loads(trainer._task_script_args)["stages"] == STAGES


def test_a_stage_with_an_expression_never_starts():
    with pytest.raises(ValueError, match="which MONAI would run"):
        BundleTrainer("fed", [{**STAGES[0], "settings": {"x": "$1"}}])
