from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bundle.benchmark import contenders, cost
from bundle.benchmark.grids import methods
from bundle.benchmark.plan import GMD_NOT_DECOUPLED, PCGRAD_UNET


def test_the_median_leaves_out_the_first_round(monkeypatch):
    clock = iter([0, 100, 200, 200, 201, 203, 204, 207, 208, 213])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: float(next(clock)))
    seeds, calls = [], []
    monkeypatch.setattr(cost.torch, "manual_seed", seeds.append)
    things = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    medians = cost._medians(things, repeats=2)
    assert calls == ["a", "b"] * 3
    # Both draw the same.
    assert seeds == [0, 0, 1, 1, 2, 2]
    # After the first round, which nobody stops, a took 0 and 3 seconds, b took 2 and 5.
    assert medians == {"a": 1.5, "b": 3.5}


def test_every_thing_that_is_timed_runs():
    steps = cost._steps(crop=16, batch=2, amp=False)
    assert list(steps) == [
        *(f"{name} step" for name in contenders.METHODS),
        "LCKD step, complete cases",
        "LCKD, no distillation step, complete cases",
        "GMD step, complete cases",
        "GMD, not decoupled step, complete cases",
    ]
    windows = cost._windows(16, amp=False)
    for thing in (*steps.values(), *windows.values()):
        thing()


@pytest.fixture
def data():
    torch.manual_seed(0)
    return contenders.training_batch(16, 2, contenders.HALF)


@pytest.mark.parametrize("name", contenders.METHODS)
def test_a_step_moves_the_weights(name, data):
    method = contenders.METHODS[name](data)
    before = {key: value.clone() for key, value in method.network.named_parameters()}
    contenders.training_step(method, data, amp=False)()
    moved = [k for k, value in method.network.named_parameters() if not value.equal(before[k])]
    assert moved
    if name == "stage 2":
        assert int(method.teacher.n_averaged) == 1


def test_what_is_held_against_a_limit_differs_in_one_thing(data):
    made = {name: make(data) for name, make in contenders.METHODS.items()}
    with_teachers, without = made["LCKD"], made[contenders.NO_DISTILLATION]
    assert (with_teachers.teachers() >= 0).all()
    assert "distillation" in with_teachers.losses(data)
    assert "distillation" not in without.losses(data)
    decoupled, plain = made["GMD"], made[GMD_NOT_DECOUPLED]
    assert (decoupled.decouple, plain.decouple) == (True, False)
    torch.manual_seed(3)
    names = list(decoupled.losses(data))
    torch.manual_seed(3)
    assert list(plain.losses(data)) == names
    assert made[PCGRAD_UNET].decouple
    assert type(made[PCGRAD_UNET].network) is type(made["plain"].network)


def test_every_method_of_the_grid_has_costs():
    labels = {run.label for run in methods().runs if run.group == "main"}
    assert labels == set(contenders.CONTENDERS)
    for step, network in contenders.CONTENDERS.values():
        assert step in contenders.METHODS
        assert network in contenders.NETWORKS


def test_a_personalised_network_has_hardly_more_parameters_than_a_plain_one():
    plain = cost._parameters("plain")
    for name in ("personalised", "GMD personalised", "LCKD"):
        assert cost._parameters(name) == pytest.approx(plain, rel=0.05)
        assert cost._parameters(name) > plain
    assert cost._parameters("GMD personalised") < cost._parameters("GMD")
    assert cost._parameters("personalised") < cost._parameters("universal")


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
    # What an earlier version did not measure.
    assert "| modality_dropout | \N{EN DASH} |" in table


def test_costs_are_ratios_to_the_plain_network():
    costs = {
        "seconds": {"plain step": 2.0, "GMD step": 6.0, "plain window": 1.0, "LCKD window": 2.5},
        "mebibytes": {"plain": 10.0, "LCKD": 15.0},
        "training_mebibytes": {
            "plain": {"whole": 500.0, "added": 50.0},
            "GMD": {"whole": 600.0, "added": 150.0},
        },
        "parameters": {"plain": 100, "LCKD": 104},
    }
    rows = {row["method"]: row for row in cost.contender_rows(costs)}
    names = ("step", "training_memory", "training_memory_added", "parameters", "inference")
    assert [rows["GMD"][name] for name in names] == [3.0, 1.2, 3.0, None, None]
    assert [rows["LCKD"][name] for name in names] == [None, None, None, 1.04, 2.5]
    assert rows["LCKD"]["inference_memory"] == 1.5
    assert [rows["specialists"][name] for name in names] == [1.0, 1.0, 1.0, 15.0, 1.0]
    assert {value for row in cost.contender_rows(None) for value in list(row.values())[1:]} == {
        None
    }


@pytest.mark.slow
def test_the_whole_measurement_runs_and_tells_ratios():
    costs = cost.measure(crop=16, window=32, batch=2, repeats=1, amp=False)
    assert set(costs["ratios"]) >= {"step of stage 2", "window", "memory of a window"}
    assert all(value > 0 for value in costs["ratios"].values())
    for peak in costs["training_mebibytes"].values():
        assert 0 < peak["added"] < peak["whole"]
    assert {promise.ratio for promise in cost.PROMISES} == set(costs["ratios"])
    assert None not in [value for row in cost.contender_rows(costs) for value in row.values()]
