"""Takes from a site the commands with which a coordinator would read its files and errors."""

from __future__ import annotations

from nvflare.apis.fl_component import FLComponent
from nvflare.private.fed.client.admin_commands import (
    AdminCommands,
    ResetErrorsCommand,
    ShowErrorsCommand,
    ShowStatsCommand,
)
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors
from nvflare.private.fed.client.info_coll_cmd import ClientInfoProcessor
from nvflare.private.fed.client.shell_cmd import ShellCommandProcessor
from nvflare.private.fed.client.sys_cmd import ReportEnvProcessor

_CLOSED = (ShellCommandProcessor, ReportEnvProcessor, ClientInfoProcessor)
# The same in the process of a job, to which a server can speak without the site's own.
_CLOSED_IN_A_JOB = (ShowErrorsCommand, ResetErrorsCommand, ShowStatsCommand)


class ClosedCommands(FLComponent):
    """Component of a site's own resources: nobody can have its files or its errors told.

    What is closed are the shell commands, `report_env`, `show_errors`, `show_stats` and
    `reset_errors`. A message of an error may name paths and cases. NVFlare has one processor for
    the last three; people ask for them, and no job needs them.

    `local/authorization.json` refuses the same to users of an honest server. But a site of NVFlare
    2.9 asks whether somebody may do something only where the server's message says that it should.
    A server whose program was changed says otherwise, and would be obeyed.

    NVFlare builds it before the site connects, and anew in the process of each job, from the site's
    own files; no job can name it.
    """

    def __init__(self) -> None:
        super().__init__()
        known = ClientRequestProcessors.request_processors
        # The very list that NVFlare goes through once the site's components are built.
        known[:] = [processor for processor in known if not isinstance(processor, _CLOSED)]
        commands = AdminCommands.commands
        commands[:] = [one for one in commands if not isinstance(one, _CLOSED_IN_A_JOB)]
