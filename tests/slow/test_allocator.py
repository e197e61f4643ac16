from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# In a process of its own: the setting is for good. Counts the pages that the system had to provide.
CHURN = """
import resource, sys, threading
import torch
from bundle.inference.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def churn():
    block = torch.ones(2**24)  # 64 MB, more than glibc ever keeps by itself
    block.add_(1)

def work():
    churn()
    before = faults()
    for _ in range(10):
        churn()
    print(faults() - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def faults(argument: str) -> int:
    ran = subprocess.run([sys.executable, "-c", CHURN, argument], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_reused_also_in_a_thread():
    assert faults("keep") < faults("leave") / 2
