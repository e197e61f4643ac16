from __future__ import annotations

import pytest
from federation.site.closed_commands import ClosedCommands
from nvflare.apis.fl_constant import AdminCommandNames
from nvflare.private.defs import InfoCollectorTopic, SysCommandTopic, TrainingTopic
from nvflare.private.fed.client.admin_commands import AdminCommands
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors

CLOSED = {
    SysCommandTopic.SHELL,
    SysCommandTopic.REPORT_ENV,
    InfoCollectorTopic.SHOW_ERRORS,
    InfoCollectorTopic.SHOW_STATS,
    InfoCollectorTopic.RESET_ERRORS,
}


@pytest.fixture(autouse=True)
def _as_before():
    lists = (ClientRequestProcessors.request_processors, AdminCommands.commands)
    before = [list(known) for known in lists]
    yield
    for known, those in zip(lists, before, strict=True):
        known[:] = those


def topics():
    known = ClientRequestProcessors.request_processors
    return {topic for processor in known for topic in processor.get_topics()}


def test_what_reads_files_or_tells_paths_is_gone_and_all_else_is_there():
    before, shared = topics(), ClientRequestProcessors.request_processors
    assert before >= CLOSED
    ClosedCommands()
    assert before - topics() == CLOSED
    needed = {TrainingTopic.DEPLOY, TrainingTopic.START_JOB, TrainingTopic.CHECK_STATUS}
    assert needed | {TrainingTopic.ABORT, TrainingTopic.SHUTDOWN} <= topics()
    # NVFlare holds the list itself, and goes through it later.
    assert ClientRequestProcessors.request_processors is shared
    ClosedCommands()


def test_a_jobs_process_tells_no_errors_and_still_does_what_jobs_need():
    assert AdminCommands.get_command(AdminCommandNames.SHOW_ERRORS) is not None
    ClosedCommands()
    for name in ("SHOW_ERRORS", "SHOW_STATS", "RESET_ERRORS"):
        assert AdminCommands.get_command(getattr(AdminCommandNames, name)) is None
    for name in ("CHECK_STATUS", "ABORT", "ABORT_TASK", "SHUTDOWN"):
        assert AdminCommands.get_command(getattr(AdminCommandNames, name)) is not None
