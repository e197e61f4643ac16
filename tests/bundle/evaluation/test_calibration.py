from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit

from bundle.evaluation.calibration import (
    calibration_cases,
    count_logits,
    ece,
    fit_temperature,
    nll,
    reliability,
)


def voxels(temperature: float, count: int = 20000) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times too large, and the truth (N,)."""
    random = np.random.default_rng(0)
    right = random.normal(-1, 2, count)
    return right * temperature, random.random(count) < expit(right)


def test_four_voxels_by_hand():
    p, inside = np.array([0.5, 0.5, 0.9, 0.02]), np.array([True, False, True, False])
    counts = count_logits(p, inside)
    assert counts[:, 0].sum(1).tolist() == [2, 2]
    truth = [0.5, 0.5, 0.9, 0.98]
    assert nll(counts, 1) == pytest.approx(-sum(map(math.log, truth)), rel=1e-12)
    table = reliability(counts, 1)
    # 0.02 lies in the first of 15 bins, 0.5 in the eighth, 0.9 in the fourteenth.
    assert np.flatnonzero(table[0]).tolist() == [0, 7, 13]
    np.testing.assert_allclose(table[:, [0, 7, 13]], [[1, 2, 1], [0.02, 1, 0.9], [0, 1, 1]])
    assert ece(table) == pytest.approx((0.02 + 0 + 0.1) / 4)
    cooled = reliability(counts, 2)
    assert cooled[1].sum() == pytest.approx(2 * 0.5 + expit(math.log(9) / 2) + 0.125)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_of_made_up_voxels_is_found_again(temperature):
    logits, inside = voxels(temperature)
    counts = count_logits(expit(logits), inside)
    found = fit_temperature(counts)
    assert found == pytest.approx(temperature, rel=0.04)

    def loss(t):
        return np.logaddexp(0, np.where(inside, -1, 1) * logits / t).sum()

    exact = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-6})
    assert found == pytest.approx(exact.x, rel=2e-3)
    assert nll(counts, found) == pytest.approx(exact.fun, rel=1e-4)


def test_the_error_is_that_of_the_voxels_themselves_and_falls():
    logits, inside = voxels(4.0)
    counts = count_logits(expit(logits), inside)
    for temperature in (1.0, 3.7):
        p = expit(logits / temperature)
        bins = np.minimum((p * 15).astype(int), 14)
        gaps = [abs((p - inside)[bins == k].sum()) for k in range(15)]
        assert ece(reliability(counts, temperature)) == pytest.approx(sum(gaps) / len(p), abs=3e-4)
    before, after = (ece(reliability(counts, t)) for t in (1.0, fit_temperature(counts)))
    assert before > 0.08 > 0.01 > after


def test_counts_of_parts_add_up():
    logits, inside = voxels(2.0, 1000)
    p = expit(logits)
    parts = count_logits(p[:300], inside[:300]) + count_logits(p[300:], inside[300:])
    np.testing.assert_allclose(parts, count_logits(p, inside), atol=1e-9)


@pytest.mark.parametrize("truth", [True, False])
def test_of_one_class_alone_nothing_is_fitted(truth):
    assert fit_temperature(count_logits(np.array([0.2, 0.7]), np.full(2, truth))) is None


def test_a_separated_case_ends_at_the_bound_and_certain_mistakes_count():
    clear = count_logits(np.array([0.4, 0.6]), np.array([False, True]))
    assert fit_temperature(clear) == pytest.approx(0.05, rel=0.01)
    certain = count_logits(np.array([0.0, 1.0]), np.array([True, False]))
    assert nll(certain, 1) == pytest.approx(40 + 24 * math.log(2), abs=1e-6)
    assert fit_temperature(certain) == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize("wrong", [math.nan, 1.5, -0.1])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(ValueError, match="expected probabilities from 0 to 1, got others"):
        count_logits(np.array([0.5, wrong]), np.array([True, False]))


def test_without_validation_cases_it_is_refused():
    with pytest.raises(ValueError, match=r"expected validation cases .*none in the datalist"):
        calibration_cases({"training": [{"case": "a"}], "validation": []})
    cases = [{"case": "a", "label": "a.nii"}, {"case": "b"}]
    with pytest.raises(ValueError, match=r"got 1 of 2 without a label, first b\."):
        calibration_cases({"validation": cases})
    assert calibration_cases({"validation": cases[:1]}) == cases[:1]
