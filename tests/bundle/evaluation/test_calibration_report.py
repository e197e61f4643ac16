from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from bundle.evaluation.calibration import count_logits, ece, reliability
from bundle.evaluation.calibration_report import CalibrationHandler
from bundle.inference.temperatures import Temperatures

NAMES, REGIONS = ("ct", "pet"), ("A", "B")
SHAPE = (24, 24, 24)
# By how much the network is too certain; B of pet holds no voxel.
FACTORS = {"ct": (3.0, 0.5), "pet": (1.0, 1.0), "ct+pet": (2.0, 4.0)}


def item(case: int, subset: str) -> dict:
    """A case whose left half is the brain; outside it the prediction is 0 and the truth lies."""
    random = torch.Generator().manual_seed(case)
    right = torch.randn(2, *SHAPE, generator=random) * 2 - 1
    label = (torch.rand(right.shape, generator=random) < right.sigmoid()).to(torch.uint8)
    if subset == "pet":
        label[1] = 0
    p = (right * torch.tensor(FACTORS[subset])[:, None, None, None]).sigmoid()
    outside = torch.arange(SHAPE[0]) >= 12
    p[:, outside], label[:, outside] = 0, 1
    present = torch.tensor([name in subset.split("+") for name in NAMES])
    # An absent modality is not 0 outside the brain of the others.
    nonzero = torch.full((1, *SHAPE), int((~present * torch.tensor([1, 2])).sum()))
    nonzero[:, ~outside] = 3
    return {
        "case": f"c{case}",
        "pred": p,
        "label": label,
        "present": present,
        "nonzero": nonzero.to(torch.uint8),
    }


def run(tmp_path, cases=(0, 1, 2), subsets=("ct", "pet", "ct+pet")):
    """Calibrate; returns what was stored, the report as JSON, and its text."""
    stored = []
    items = [item(case, subset) for case in cases for subset in subsets]
    engine = Engine(lambda engine, batch: [batch])
    CalibrationHandler(
        tmp_path, NAMES, REGIONS, [f"c{case}" for case in cases], lambda *a: stored.append(a)
    ).attach(engine)
    engine.run(items, max_epochs=1)
    report = json.loads((tmp_path / "calibration.json").read_text())
    return stored, report, (tmp_path / "calibration.md").read_text()


def error(report, region, scans, kind, name="ece"):
    row = next(r for r in report["errors"] if (r["region"], r["scans"]) == (region, scans))
    return row[kind] and row[kind][name]


def test_it_finds_the_factors_and_stores_them_once(tmp_path, capsys, caplog):
    ((values, count),), report, text = run(tmp_path)
    assert count == report["cases"] == 3
    assert list(values) == ["ct", "pet", "ct+pet"]
    for subset, factors in FACTORS.items():
        for region, factor in zip(REGIONS, factors, strict=True):
            assert values[subset][region] == pytest.approx(factor, rel=0.05), (subset, region)
    assert values["pet"]["B"] == 1.0
    assert "because no validation case can form the subset or none holds the region: B of pet" in (
        caplog.text
    )
    assert report["temperatures"] == values
    assert capsys.readouterr().out == text + "\n"


def test_the_errors_are_those_of_the_calibrated_probabilities_inside_the_brain(tmp_path):
    ((values, _),), report, _ = run(tmp_path)
    temperatures = Temperatures(NAMES, REGIONS, values)
    for kind in ("before", "after"):
        table = np.zeros((3, 15))
        for case in range(3):
            made = item(case, "ct+pet")
            p = made["pred"]
            p = temperatures.calibrate(p, made["present"]) if kind == "after" else p
            inside = made["label"][0, :12].flatten().numpy() != 0
            table += reliability(count_logits(p[0, :12].flatten().numpy(), inside), 1)
        assert table[0].sum() == 3 * 12 * 24 * 24
        assert error(report, "A", 2, kind) == pytest.approx(ece(table), abs=5e-4)
    assert error(report, "A", 2, "after") < 0.02 < 0.08 < error(report, "A", 2, "before")
    for region in REGIONS:
        for name in ("nll", "ece"):
            held_out = error(report, region, 0, "held_out", name)
            assert error(report, region, 0, "after", name) <= held_out + 1e-3
            assert held_out < error(report, region, 0, "before", name)


def test_held_out_halves_are_other_cases(tmp_path):
    _, both, _ = run(tmp_path, cases=(0, 1))
    ((first, _),), _, _ = run(tmp_path, cases=(0,))
    ((second, _),), _, _ = run(tmp_path, cases=(1,))
    table = np.zeros((3, 15))
    for case, values in ((0, second), (1, first)):
        made = item(case, "ct+pet")
        inside = made["label"][0, :12].flatten().numpy() != 0
        counts = count_logits(made["pred"][0, :12].flatten().numpy(), inside)
        table += reliability(counts, values["ct+pet"]["A"])
    assert error(both, "A", 2, "held_out") == pytest.approx(ece(table), abs=1e-4)


def test_one_case_and_a_subset_that_none_can_form(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    ((values, _),), report, text = run(tmp_path, cases=(0,), subsets=("ct",))
    assert set(values["pet"].values()) | set(values["ct+pet"].values()) == {1.0}
    assert "A of pet, B of pet, A of ct+pet, B of ct+pet" in caplog.text
    assert error(report, "A", 1, "held_out") is None
    assert [row["scans"] for row in report["errors"]] == [1, 0, 1, 0]
    assert "\N{EN DASH}" in text
