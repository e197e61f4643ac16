"""The component of a client's configuration that starts the trainer."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.executors.client_api.external_process_backend import ExternalProcessBackend
from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor, ExecutionMode
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.client.config import ExchangeFormat, TransferType

from federation.filters.privacy import site_of
from federation.protocol.identity import check_unchanged
from federation.protocol.messages import refusal
from federation.protocol.stages import check_name, read_stages
from federation.site.admission import check_answer, check_task
from federation.site.patient_names import presentable

_TRAINER = "federation.site.client"
_HEARTBEAT_TIMEOUT = 120.0


class BundleTrainer(ClientAPIExecutor):
    """Runs `federation.site.client` of the installed bundle, and nothing else.

    NVFlare's own executor takes any command from the job; a site that allows it, allows everything.
    This one takes plain values alone, so a site needs to trust the installed package only. It
    gives no task to the trainer that the site's rules do not allow, and answers why.

    Args:
        federation: the federation's name, under which a site keeps its state.
        stages: the job's trainings, as `Stage.to_dict` writes them.
        own_process: True = a process of its own. Where it crashes or is killed, another one is
            started, which goes on from the site's checkpoint, and the task is given to it once
            more. False = a thread in NVFlare's process, in the simulator alone; a real site refuses
            every task of such a job.
        launch_timeout: seconds that a trainer may take to start.

    Raises:
        ValueError: as in `Stage` and `check_name`.
    """

    _always_serialize_args = ("federation", "stages", "own_process")

    def __init__(
        self,
        federation: str,
        stages: Sequence[Mapping[str, Any]],
        own_process: bool = True,
        launch_timeout: float = 300.0,
    ) -> None:
        check_name(federation, "federation")
        read_stages(stages)
        arguments = {
            "federation": federation,
            "stages": list(stages),
        }
        # Without blanks, because in a thread NVFlare splits the arguments at them.
        text = json.dumps(arguments, separators=(",", ":")).replace(" ", "\\u0020")
        how: dict[str, Any]
        if own_process:
            how = {
                "execution_mode": ExecutionMode.EXTERNAL_PROCESS,
                # This very Python: the first one on the path may be another. -P: NVFlare starts it
                # in the job's folder, from which it would import whatever has come with the job.
                "command": [sys.executable, "-P", "-u", "-m", _TRAINER, text],
                "launch_timeout": launch_timeout,
                # A machine that is short of memory may be silent for a while.
                "heartbeat_timeout": _HEARTBEAT_TIMEOUT,
            }
        else:
            how = {
                "execution_mode": ExecutionMode.IN_PROCESS,
                "task_script_path": str(Path(__file__).with_name("client.py")),
                "task_script_args": text,
            }
        super().__init__(
            params_exchange_format=ExchangeFormat.PYTORCH,
            server_expected_format=ExchangeFormat.PYTORCH,
            params_transfer_type=TransferType.DIFF,
            **how,
        )
        self.federation, self.stages = federation, stages
        self.own_process, self.launch_timeout = own_process, launch_timeout

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Start the trainer with the job, unless it would be a thread of a real site's process."""
        if event_type == EventType.START_RUN and not self._may_start(fl_ctx):
            # Each task is answered with the reason. NVFlare's own start would run the thread.
            return
        super().handle_event(event_type, fl_ctx)

    def _may_start(self, fl_ctx: FLContext) -> bool:
        # NVFlare's simulator alone sets it, in the process itself; neither job nor server can.
        return self.own_process or bool(fl_ctx.get_prop(FLContextKey.SIMULATE_MODE, False))

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """Give a task to the trainer, if the site's rules allow it."""
        try:
            if not self._may_start(fl_ctx):
                raise ValueError(
                    "the job says own_process: false, expected true outside of the simulator. "
                    "Export the job anew, and submit it"
                )
            # Read anew for each task: a site may change its rules while a job runs.
            site = site_of(fl_ctx)
            # This process has the filters, and the trainer's own check knows nothing of it.
            check_unchanged(())
            configs = [stage["configs"] for stage in self.stages]
            check_task(site, task_name, self.federation, configs, fl_ctx)
        except Exception as error:
            return self._refuse(error, task_name, fl_ctx)
        reply = self._train(task_name, shareable, fl_ctx, abort_signal)
        try:
            check_answer(site, task_name, reply)
        except ValueError as error:
            return self._refuse(error, task_name, fl_ctx)
        return reply

    def _refuse(self, error: Exception, task_name: str, fl_ctx: FLContext) -> Shareable:
        self.log_exception(fl_ctx, f"this site sends the reason only for the task {task_name}")
        return FLModelUtils.to_shareable(refusal(presentable(error, ())))

    def _train(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """Give a task to the trainer; where that dies of it, to one more."""
        self._replace_dead_trainer(fl_ctx)
        reply = super().execute(task_name, shareable, fl_ctx, abort_signal)
        if reply.get_return_code() != ReturnCode.OK and self._replace_dead_trainer(fl_ctx):
            reply = super().execute(task_name, shareable, fl_ctx, abort_signal)
        return reply

    def _replace_dead_trainer(self, fl_ctx: FLContext) -> bool:
        """Start another trainer if this one has died; True = it has been done.

        NVFlare gives a site up for the whole job once its trainer is gone (2.9). What it has noted
        for that is taken back here, unless the job itself is ending.
        """
        backend = self._backend
        if not isinstance(backend, ExternalProcessBackend):
            return False
        ending = backend._closed or backend._terminal_intent is not None
        if ending or not self._has_died(backend):
            return False
        self.log_warning(
            fl_ctx, f"the trainer has died ({backend._abort_reason}): another one is started"
        )
        backend._abort, backend._abort_reason = False, None
        try:
            backend._launch_trainer(timeout=self.launch_timeout)
        except Exception as error:
            # The next task tries again.
            backend._latch_abort(f"no trainer could be started: {error}")
            self.log_error(fl_ctx, f"no trainer could be started: {error}")
            return False
        return True

    @staticmethod
    def _has_died(backend: ExternalProcessBackend) -> bool:
        trainer = backend._active_launch
        return backend._abort or trainer is None or not backend._process_group_alive(trainer)
