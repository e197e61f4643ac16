from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from bundle.benchmark.federated import federation
from bundle.benchmark.plan import Phantom
from bundle.benchmark.report import write_report
from bundle.benchmark.results import Result, Results
from bundle.benchmark.sites import client_mean, formed, global_dice, site_dice, site_tables
from bundle.modalities import BRATS_MODALITIES, all_subsets, subset_name

SITES = "a:t1+t1ce+t2+flair;b:t1+flair;c:t2"
SUBSETS = [subset_name(subset, BRATS_MODALITIES) for subset in all_subsets(BRATS_MODALITIES)]
GRID = federation(seeds=(0, 1), rounds=4, pretrain_rounds=2, sites=SITES, phantom=Phantom(6, 2))


def model(value):
    """A model whose Dice is `value` with T2 alone and 0.5 else, 0.1 more in the second case."""
    return {
        "cases": ["x", "y"],
        "dice": {
            subset: {region: [base, base + 0.1] for region in ("TC", "WT", "ET")}
            for subset in SUBSETS
            for base in [value if subset == "t2" else 0.5]
        },
    }


def result(arm="universal", seed=0, value=0.2, **others):
    (run,) = [run for run in GRID.runs if (run.label, run.seed) == (arm, seed)]
    record = {
        "models": {"global": model(value)},
        "sent": {},
        "rebuilt": {},
        "seconds": 3600.0,
        "date": "2031-02-03T00:00:00+00:00",
        "cpu": "An abacus",
        "versions": {"torch": "9.9"},
        **others,
    }
    return Result(run, record)


def results_of(*found):
    return Results(GRID, {one.run.name: one for one in found})


def test_a_site_forms_the_subsets_of_what_it_has():
    assert formed(("t1", "flair")) == ["t1", "flair", "t1+flair"]
    assert formed(("t2",)) == ["t2"]
    assert len(formed(BRATS_MODALITIES)) == 15


def test_a_site_is_scored_on_its_own_subsets():
    dice = site_dice(result())
    assert dice["c"] == pytest.approx(np.array([0.2, 0.3]))
    assert dice["b"] == pytest.approx(np.array([0.5, 0.6]))
    assert client_mean(result()) == pytest.approx((dice["a"] + dice["b"] + dice["c"]) / 3)
    assert global_dice(result()) == pytest.approx((14 * 0.55 + 0.25) / 15)


def test_each_site_alone_has_a_model_of_its_own():
    alone = result("alone", models={"a": model(0.1), "b": model(0.2), "c": model(0.9)})
    assert site_dice(alone)["c"].mean() == pytest.approx(0.95)
    # The richest site's model is what there is to compare on all subsets.
    assert global_dice(alone) == pytest.approx((14 * 0.55 + 0.15) / 15)


@pytest.fixture
def some():
    alone = {site: model(0.2) for site in "abc"}
    return results_of(
        *(result(seed=seed, value=0.5) for seed in (0, 1)),
        *(result("alone", seed, models=alone) for seed in (0, 1)),
        result("fedavg", 0, sent={"a": 2**20, "b": 2**19, "c": 2**18}),
        result(
            "universal with own banks",
            1,
            rebuilt={
                "modality": "flair",
                "given": ["t1", "t2"],
                "psnr": [10.0, 12.0],
                "ssim": [0.5, 0.7],
                "constant_psnr": [9.0, 9.0],
                "constant_ssim": [0.1, 0.1],
            },
        ),
    )


def test_the_report_says_who_is_better_by_how_much(some, tmp_path):
    text = write_report(some, tmp_path).read_text(encoding="utf-8")
    text = re.sub(" +", " ", text)
    assert "**6 of 18 runs**" in text
    assert "6.0 hours" in text
    assert "An abacus" in text
    assert "4 rounds of ten steps at each site" in text
    # The site with T2 alone gains 30 points, the one without T2 none.
    assert "| c | t2 | +30.00 [+30.00, +30.00] | +30.0, +30.0 |" in text
    assert "| b | t1, flair | +0.00 [+0.00, +0.00] | +0.0, +0.0 |" in text
    assert "| alone | +10.67 [+10.67, +10.67] |" in text
    assert "(n = 1) |" in text
    assert "| universal with own banks | 11.00 (11.00 to 11.00) | 0.600 (0.600 to 0.600) |" in text
    assert "would have a PSNR of 9.00 dB and an SSIM of 0.100" in text
    assert "| fedavg | 1.00 | 0.50 | 0.25 |" in text
    assert "| universal | 55.0 \N{PLUS-MINUS SIGN} 0.0 |" in text
    assert "- *fedavg*: the same U-Net, plain federated averaging." in text
    assert "*pooled*" not in text
    assert (tmp_path / "sites.png").stat().st_size > 10_000
    tables = {path.stem for path in (tmp_path / "tables").iterdir()}
    assert tables == {"sites", "differences", "gains", "rebuilt", "sent"}


def test_no_run_at_all_makes_a_report_too(tmp_path):
    text = write_report(results_of(), tmp_path).read_text(encoding="utf-8")
    assert "**0 of 18 runs**" in text
    assert "No run has finished yet." in text
    assert not (tmp_path / "sites.png").exists()


def test_arms_of_one_seed_are_compared_on_that_seed(some):
    rows = {row["other"]: row for row in site_tables(some)["differences"]}
    assert (rows["alone"]["seeds"], rows["fedavg"]["seeds"]) == (2, 1)
    assert rows["fedavg"]["cases"] == 2


def test_arms_tested_on_other_cases_are_refused(some):
    name = "fedavg-seed_0"
    other = replace(some.finished[name], record=result("fedavg").record)
    other.record["models"]["global"]["cases"] = ["x", "z"]
    with pytest.raises(ValueError, match="tested on the same cases and subsets"):
        site_tables(Results(GRID, {**some.finished, name: other}))
