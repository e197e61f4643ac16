"""Takes from a site the commands with which a coordinator would read its files and paths."""

from __future__ import annotations

from nvflare.apis.fl_component import FLComponent
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors
from nvflare.private.fed.client.shell_cmd import ShellCommandProcessor
from nvflare.private.fed.client.sys_cmd import ReportEnvProcessor

_CLOSED = (ShellCommandProcessor, ReportEnvProcessor)


class ClosedCommands(FLComponent):
    """Component of a site's own resources: nobody can have its files listed, read or searched.

    `local/authorization.json` refuses the same to users of an honest server. But a site of NVFlare
    2.9 asks whether somebody may do something only where the server's message says that it should.
    A server whose program was changed says otherwise, and would be obeyed.

    NVFlare builds it before the site connects, from the site's own files; no job can name it.
    """

    def __init__(self) -> None:
        super().__init__()
        known = ClientRequestProcessors.request_processors
        # The very list that NVFlare goes through once the site's components are built.
        known[:] = [processor for processor in known if not isinstance(processor, _CLOSED)]
