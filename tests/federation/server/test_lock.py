from __future__ import annotations

import subprocess
import sys
import time

import pytest
from federation.server.lock import take_lock

OTHER = """
import sys, time
from federation.server.lock import take_lock
take_lock(sys.argv[1], "modality_aware (1234)")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the federation."""
    words = [sys.executable, "-c", OTHER, str(tmp_path / "fed")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_another_process_is_refused_with_the_name_of_the_running_job(other, tmp_path):
    with pytest.raises(
        ValueError, match=r"federation fed, but modality_aware \(1234\) does.*abort"
    ):
        take_lock(tmp_path / "fed", "again (5678)")
    other.kill()
    other.wait()
    # The system gives it back.
    deadline = time.monotonic() + 10
    while True:
        try:
            take_lock(tmp_path / "fed", "again (5678)").release()
            break
        except ValueError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_all_stages_of_a_job_share_it(tmp_path):
    lock = take_lock(tmp_path / "fed", "one")
    assert take_lock(tmp_path / "fed", "one") is lock
    with pytest.raises(ValueError, match="but one does"):
        take_lock(tmp_path / "fed", "two")
    assert take_lock(tmp_path / "another", "two") is not lock
    lock.release()
    lock.release()
    take_lock(tmp_path / "fed", "two").release()
    take_lock(tmp_path / "another", "two").release()
