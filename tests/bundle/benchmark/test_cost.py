from __future__ import annotations

import re

import pytest
import torch

from bundle.benchmark import cost, measured_methods
from bundle.benchmark.named_runs import METHODS
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
        *(f"{name} step" for name in measured_methods.METHODS),
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
    return measured_methods.training_batch(16, 2, measured_methods.HALF)


@pytest.mark.parametrize("name", measured_methods.METHODS)
def test_a_step_moves_the_weights(name, data):
    method = measured_methods.METHODS[name](data)
    before = {key: value.clone() for key, value in method.network.named_parameters()}
    measured_methods.training_step(method, data, amp=False)()
    moved = [k for k, value in method.network.named_parameters() if not value.equal(before[k])]
    assert moved
    if name == "stage 2":
        assert int(method.teacher.n_averaged) == 1


def test_what_is_held_against_a_limit_differs_in_one_thing(data):
    made = {name: make(data) for name, make in measured_methods.METHODS.items()}
    with_teachers, without = made["LCKD"], made[measured_methods.NO_DISTILLATION]
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
    assert set(METHODS) <= set(measured_methods.MEASURED)
    for step, network in measured_methods.MEASURED.values():
        assert step in measured_methods.METHODS
        assert network in measured_methods.NETWORKS


def test_a_personalised_network_has_hardly_more_parameters_than_a_plain_one():
    plain = cost._parameters("plain")
    for name in ("personalised", "GMD personalised", "LCKD"):
        assert cost._parameters(name) == pytest.approx(plain, rel=0.05)
        assert cost._parameters(name) > plain
    assert cost._parameters("GMD personalised") < cost._parameters("GMD")
    assert cost._parameters("personalised") < cost._parameters("universal")


def test_the_table_holds_each_ratio_against_its_limit():
    ratios = {
        "step of stage 1": 0.8,
        "step of stage 2": 2.4,
        "window": 1.1,
        "window, not personalised": 1.2,
        "memory of a window": 1.0,
    }
    table = re.sub(" +", " ", cost.table({"ratios": ratios}))
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
    rows = {row["method"]: row for row in cost.method_cost_rows(costs)}
    names = ("step", "training_memory", "training_memory_added", "parameters", "inference")
    assert [rows["GMD"][name] for name in names] == [3.0, 1.2, 3.0, None, None]
    assert [rows["LCKD"][name] for name in names] == [None, None, None, 1.04, 2.5]
    assert rows["LCKD"]["inference_memory"] == 1.5
    assert [rows["specialists"][name] for name in names] == [1.0, 1.0, 1.0, 15.0, 1.0]
    assert {value for row in cost.method_cost_rows(None) for value in list(row.values())[1:]} == {
        None
    }
