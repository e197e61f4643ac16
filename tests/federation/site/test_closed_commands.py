from __future__ import annotations

import pytest
from federation.site.closed_commands import ClosedCommands
from nvflare.private.defs import SysCommandTopic, TrainingTopic
from nvflare.private.fed.client.client_req_processors import ClientRequestProcessors


@pytest.fixture(autouse=True)
def _as_before():
    before = list(ClientRequestProcessors.request_processors)
    yield
    ClientRequestProcessors.request_processors[:] = before


def topics():
    known = ClientRequestProcessors.request_processors
    return {topic for processor in known for topic in processor.get_topics()}


def test_what_reads_files_or_tells_paths_is_gone_and_all_else_is_there():
    before, shared = topics(), ClientRequestProcessors.request_processors
    assert {SysCommandTopic.SHELL, SysCommandTopic.REPORT_ENV} <= before
    ClosedCommands()
    assert before - topics() == {SysCommandTopic.SHELL, SysCommandTopic.REPORT_ENV}
    assert {TrainingTopic.DEPLOY, TrainingTopic.START_JOB, TrainingTopic.SHUTDOWN} <= topics()
    # NVFlare holds the list itself, and goes through it later.
    assert ClientRequestProcessors.request_processors is shared
    ClosedCommands()
