from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("nvflare")

from federation.evidence_report import (
    client_mean,
    formed,
    global_dice,
    site_dice,
    write_report,
)

from bundle.modalities import BRATS_MODALITIES, all_subsets, subset_name

SITES = "a:t1+t1ce+t2+flair;b:t1+flair;c:t2"
SUBSETS = [subset_name(subset, BRATS_MODALITIES) for subset in all_subsets(BRATS_MODALITIES)]


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


def record(arm="universal", seed=0, value=0.2, **others):
    return {
        "arm": arm,
        "seed": seed,
        "size": {
            "rounds": 4,
            "pretrain_rounds": 2,
            "sites": SITES,
            "cases": {"training": 6, "testing": 2},
        },
        "models": {"global": model(value)},
        "sent": {},
        "rebuilt": {},
        "seconds": 3600.0,
        "date": "2031-02-03T00:00:00+00:00",
        "cpu": "An abacus",
        "versions": {"torch": "9.9"},
        **others,
    }


def test_a_site_forms_the_subsets_of_what_it_has():
    assert formed("b", SITES) == ["t1", "flair", "t1+flair"]
    assert formed("c", SITES) == ["t2"]
    assert len(formed("a", SITES)) == 15


def test_a_site_is_scored_on_its_own_subsets():
    dice = site_dice(record())
    assert dice["c"] == pytest.approx(np.array([0.2, 0.3]))
    assert dice["b"] == pytest.approx(np.array([0.5, 0.6]))
    assert client_mean(record()) == pytest.approx((dice["a"] + dice["b"] + dice["c"]) / 3)
    assert global_dice(record()) == pytest.approx((14 * 0.55 + 0.25) / 15)


def test_each_site_alone_has_a_model_of_its_own():
    alone = record(models={"a": model(0.1), "b": model(0.2), "c": model(0.9)})
    assert site_dice(alone)["c"].mean() == pytest.approx(0.95)
    # The richest site's model is what there is to compare on all subsets.
    assert global_dice(alone) == pytest.approx((14 * 0.55 + 0.15) / 15)


def test_the_report_says_who_is_better_by_how_much(tmp_path):
    records = [
        *(record(seed=seed, value=0.5) for seed in (0, 1)),
        *(record("alone", seed, models={site: model(0.2) for site in "abc"}) for seed in (0, 1)),
        record("fedavg", 0, sent={"a": 2**20, "b": 2**19, "c": 2**18}),
        record(
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
    ]
    text = write_report(records, tmp_path).read_text(encoding="utf-8")
    assert "6 runs" in text
    assert "6.0 hours" in text
    # The site with T2 alone gains 30 points, the one without T2 none.
    assert "| c | t2 | +30.00 [+30.00, +30.00] | +30.0, +30.0 |" in text
    assert "| b | t1, flair | +0.00 [+0.00, +0.00] | +0.0, +0.0 |" in text
    assert "| alone | +10.67 [+10.67, +10.67] |" in text
    assert "(n = 1) |" in text
    assert "| universal with own banks | 11.00 (11.00 to 11.00) | 0.600 (0.600 to 0.600) |" in text
    assert "| fedavg | 1.00 | 0.50 | 0.25 |" in text
    assert "| universal | 55.0 \N{PLUS-MINUS SIGN} 0.0 |" in text
    assert (tmp_path / "sites.png").stat().st_size > 10_000
