from __future__ import annotations

import pytest

from bundle.benchmark import cost


def test_the_median_leaves_out_the_first_round(monkeypatch):
    clock = iter([0, 100, 200, 200, 201, 203, 204, 207, 208, 213])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: float(next(clock)))
    calls = []
    things = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    medians = cost._medians(things, repeats=2)
    assert calls == ["a", "b"] * 3
    # After the first round, which nobody stops, a took 0 and 3 seconds, b took 2 and 5.
    assert medians == {"a": 1.5, "b": 3.5}


def test_every_thing_that_is_timed_runs():
    steps = cost._steps(crop=16, batch=2, amp=False)
    assert list(steps) == ["plain step", "stage 1 step", "stage 2 step"]
    windows = cost._windows(16, amp=False)
    for thing in (*steps.values(), *windows.values()):
        thing()


def test_a_step_moves_the_weights():
    step = cost._steps(crop=16, batch=2, amp=False)["stage 2 step"]
    method = next(
        cell.cell_contents
        for cell in step.__closure__
        if isinstance(cell.cell_contents, cost.CoDistillation)
    )
    before = method.network.autoencoder.encoder.conv_init.weight.clone()
    step()
    assert not before.equal(method.network.autoencoder.encoder.conv_init.weight)
    assert int(method.teacher.n_averaged) == 1


def test_the_table_holds_each_ratio_against_its_limit():
    ratios = {
        "step of stage 1": 0.8,
        "step of stage 2": 2.4,
        "window": 1.1,
        "window, not personalised": 1.2,
        "memory of a window": 1.0,
    }
    table = cost.table({"ratios": ratios})
    assert "| step of stage 2 | 2.40 | 2.5 |" in table
    assert "| window | 1.10 | 1.15 |" in table


@pytest.mark.slow
def test_the_whole_measurement_runs_and_tells_ratios():
    costs = cost.measure(crop=16, window=32, batch=2, repeats=1, amp=False)
    assert set(costs["ratios"]) >= {"step of stage 2", "window", "memory of a window"}
    assert all(value > 0 for value in costs["ratios"].values())
