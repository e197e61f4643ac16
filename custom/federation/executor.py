"""The component of a client's configuration that starts the trainer."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor, ExecutionMode
from nvflare.client.config import ExchangeFormat, TransferType

from federation.stages import read_stages

_TRAINER = "federation.client"


class BundleTrainer(ClientAPIExecutor):
    """Runs `federation.client` of the installed bundle, and nothing else.

    NVFlare's own executor takes any command from the job; a site that allows it, allows everything.
    This one takes plain values alone, so a site needs to trust the installed package only.

    Args:
        federation: the federation's name, under which a site keeps its state.
        stages: the job's trainings, as `Stage.to_dict` writes them.
        own_process: True = a process of its own for each task: what crashes or is killed is only
            that task's, and the next one starts anew, which costs some seconds. False = a thread
            in NVFlare's process, for the simulator.
        launch_timeout: seconds that a trainer may take to start.

    Raises:
        ValueError: as in `Stage`.
    """

    _always_serialize_args = ("federation", "stages", "own_process")

    def __init__(
        self,
        federation: str,
        stages: Sequence[Mapping[str, Any]],
        own_process: bool = True,
        launch_timeout: float = 300.0,
    ) -> None:
        read_stages(stages)
        arguments = {
            "federation": federation,
            "stages": list(stages),
            "once": own_process,
        }
        # Without blanks, because in a thread NVFlare splits the arguments at them.
        text = json.dumps(arguments, separators=(",", ":")).replace(" ", "\\u0020")
        how: dict[str, Any]
        if own_process:
            how = {
                "execution_mode": ExecutionMode.EXTERNAL_PROCESS,
                # This very Python: the first one on the path may be another.
                "command": [sys.executable, "-u", "-m", _TRAINER, text],
                "launch_once": False,
                "launch_timeout": launch_timeout,
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
