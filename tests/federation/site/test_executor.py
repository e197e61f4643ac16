from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import federation
import pytest
from federation.protocol.messages import read_refusal
from federation.protocol.stages import Stage
from federation.site.executor import BundleTrainer
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.executors.client_api.external_process_backend import ExternalProcessBackend
from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor
from nvflare.app_common.utils.fl_model_utils import FLModelUtils

import bundle

STAGES = [Stage("train", ["train.json"], 2, settings={"prompt_source": "a b"}).to_dict()]
DONE = FLModel(metrics={"loss": 1.0})


def test_it_starts_the_installed_trainer_with_this_python():
    trainer = BundleTrainer("fed", STAGES)
    *command, arguments = trainer._command
    assert command == [sys.executable, "-P", "-u", "-m", "federation.site.client"]
    assert json.loads(arguments) == {"federation": "fed", "stages": STAGES}


def test_nothing_that_has_come_with_a_job_is_imported_by_the_trainer(tmp_path):
    """NVFlare starts it in the job's folder; only a folder `custom` there counts as code for it."""
    app, ran = tmp_path / "app", tmp_path / "ran"
    (app / "federation").mkdir(parents=True)
    for name in ("federation/__init__.py", "json.py"):
        (app / name).write_text(f"open({str(ran)!r}, 'w').close()\n")
    # The same command, but for the module: importing ours takes long.
    command = BundleTrainer("fed", STAGES)._command
    place = command.index("federation.site.client")
    names = "import federation, json"
    swapped = [*command[: place - 1], "-c", f"{names}; print(federation.__file__)"]
    done = subprocess.run(
        swapped, cwd=app, capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stdout.strip() == federation.__file__
    assert not ran.exists()
    # Without -P it would.
    swapped.remove("-P")
    subprocess.run(swapped, cwd=app, capture_output=True, check=False, env=environment())
    assert ran.exists()


def environment():
    custom = Path(federation.__file__).parent.parent
    return {**os.environ, "PYTHONPATH": os.pathsep.join([bundle.ROOT, str(custom)])}


class Backend(ExternalProcessBackend):
    """NVFlare's own backend, whose processes are only counted."""

    def __init__(self, replies):
        super().__init__()
        self.replies, self.launches = list(replies), 0
        self._active_launch = SimpleNamespace()

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        reply = self.replies.pop(0)
        if reply == "dies":
            self._latch_abort("trainer process group exited (rc=-9)")
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)
        return make_reply(reply)

    def _launch_trainer(self, timeout, abort_signal=None):
        self.launches += 1

    def _process_group_alive(self, trainer):
        return True


@pytest.fixture
def run(monkeypatch):
    """Give run(*replies): the executor's answers to tasks, and how many trainers were started."""
    monkeypatch.setattr(BundleTrainer, "_requires_materialized_result", lambda *_: False)

    def make(*replies, tasks=1, change=None):
        trainer = BundleTrainer("fed", STAGES)
        trainer._backend = backend = Backend(replies)
        if change:
            change(backend)
        context = FLContext()
        answers = [
            trainer.execute("train", Shareable(), context, Signal()).get_return_code()
            for _ in range(tasks)
        ]
        return answers, backend.launches

    return make


def test_a_killed_trainer_is_replaced_and_the_task_done_by_the_next(run):
    assert run("dies", ReturnCode.OK) == ([ReturnCode.OK], 1)


def test_a_task_that_kills_every_trainer_fails_and_the_next_one_has_a_new_one(run):
    answers, launches = run("dies", "dies", ReturnCode.OK, tasks=2)
    assert answers == [ReturnCode.EXECUTION_EXCEPTION, ReturnCode.OK]
    assert launches == 2


def test_a_living_trainer_that_fails_is_not_replaced(run):
    answers, launches = run(ReturnCode.EXECUTION_EXCEPTION)
    assert (answers, launches) == ([ReturnCode.EXECUTION_EXCEPTION], 0)


def test_a_job_that_is_ending_starts_nothing(run):
    def end(backend):
        backend._claim_abort_intent()
        backend._latch_abort("run abort requested")

    answers, launches = run(ReturnCode.TASK_ABORTED, change=end)
    assert (answers, launches) == ([ReturnCode.TASK_ABORTED], 0)


def test_in_a_thread_the_arguments_survive_nvflares_splitting_at_blanks():
    trainer = BundleTrainer("fed", STAGES, own_process=False)
    assert trainer._task_script_path == str(Path(federation.__file__).parent / "site/client.py")
    assert " " not in trainer._task_script_args
    assert json.loads(trainer._task_script_args)["stages"] == STAGES


@pytest.mark.parametrize("simulated", [False, True])
def test_a_thread_of_nvflares_process_runs_in_the_simulator_alone(monkeypatch, simulated):
    started = []
    monkeypatch.setattr(ClientAPIExecutor, "handle_event", lambda *_: started.append(1))
    monkeypatch.setattr(BundleTrainer, "_train", lambda *_: FLModelUtils.to_shareable(DONE))
    trainer, context = BundleTrainer("fed", STAGES, own_process=False), FLContext()
    if simulated:
        context.set_prop(FLContextKey.SIMULATE_MODE, True, private=True, sticky=True)
    trainer.handle_event(EventType.START_RUN, context)
    assert started == [1] * simulated
    reply = trainer.execute("train", Shareable(), context, Signal())
    told = read_refusal(FLModelUtils.from_shareable(reply))
    expected = "the job says own_process: false, expected true outside of the simulator"
    assert told is None if simulated else expected in told
    # What NVFlare does at the end of a job is done all the same.
    trainer.handle_event(EventType.END_RUN, context)
    assert len(started) == 1 + simulated


def test_a_process_of_its_own_starts_with_the_job_everywhere(monkeypatch):
    started = []
    monkeypatch.setattr(ClientAPIExecutor, "handle_event", lambda *_: started.append(1))
    BundleTrainer("fed", STAGES).handle_event(EventType.START_RUN, FLContext())
    assert started == [1]


@pytest.mark.parametrize("name", ["../../..", "a/b", "", ".", "/tmp/x", "a\nb", "a" * 65, None])
def test_a_federation_whose_name_is_a_path_never_starts(name):
    with pytest.raises(ValueError, match="federation: expected a name of letters, digits, _ and -"):
        BundleTrainer(name, STAGES)


def test_a_stage_with_an_expression_never_starts():
    with pytest.raises(ValueError, match="which MONAI would run"):
        BundleTrainer("fed", [{**STAGES[0], "settings": {"skips": "$1"}}])
