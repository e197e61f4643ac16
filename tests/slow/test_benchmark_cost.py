"""The memory and the time of every method, measured in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bundle.benchmark import cost

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
def test_the_peak_is_that_of_the_thing_alone():
    # As it is measured: in a process of its own, where nothing that others freed can be used again.
    script = (
        "import torch; from bundle.benchmark import cost; kept = torch.ones(20 * 2**18); "
        "print(*cost._peak_of(lambda: torch.ones(40 * 2**18).sum()), len(kept))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    whole, added, _ = map(float, ran.stdout.split())
    assert added == pytest.approx(40, abs=8)
    assert whole > added + 20


@pytest.mark.long
def test_the_whole_measurement_runs_and_tells_ratios():
    costs = cost.measure(crop=16, window=32, batch=2, repeats=1, amp=False)
    assert set(costs["ratios"]) >= {"step of stage 2", "window", "memory of a window"}
    assert all(value > 0 for value in costs["ratios"].values())
    for peak in costs["training_mebibytes"].values():
        assert 0 < peak["added"] < peak["whole"]
    assert {promise.ratio for promise in cost.PROMISES} == set(costs["ratios"])
    assert None not in [value for row in cost.method_cost_rows(costs) for value in row.values()]
