from __future__ import annotations

import json
import math

import pytest
from federation.filters.accountant import Accountant, epsilon_at, renyi_divergence
from scipy.optimize import brentq
from scipy.special import log_ndtr

# (sigma, releases, delta, epsilon as Opacus 1.6 computes it with sampling rate 1).
OPACUS = [
    (1.0, 1, 1e-5, 4.728507),
    (2.0, 1, 1e-5, 2.165716),
    (1.0, 10, 1e-5, 19.053598),
    (4.0, 100, 1e-5, 14.132226),
    (1.0, 1, 1e-6, 5.221540),
    (10.0, 20, 1e-5, 1.914250),
]


def account(sigma, releases, delta):
    accountant = Accountant(delta)
    for _ in range(releases):
        accountant.spend(sigma)
    return accountant


def exact_epsilon(sigma, releases, delta):
    """Balle and Wang 2018 (arXiv 1805.06530), theorem 8; n releases are one of sigma / sqrt(n)."""
    half = math.sqrt(releases) / (2 * sigma)

    def excess(epsilon):
        shift = epsilon / (2 * half)
        return (
            math.exp(log_ndtr(half - shift)) - math.exp(epsilon + log_ndtr(-half - shift)) - delta
        )

    return brentq(excess, 0, 500)


@pytest.mark.parametrize(("sigma", "releases", "delta", "opacus"), OPACUS)
def test_epsilon_is_opacus_and_a_little_above_the_exact_one(sigma, releases, delta, opacus):
    epsilon = account(sigma, releases, delta).epsilon()
    # Its orders are coarser, hence not above ours by more than the grids' difference.
    assert epsilon == pytest.approx(opacus, rel=1e-3)
    exact = exact_epsilon(sigma, releases, delta)
    assert exact <= epsilon <= 1.12 * exact


def test_the_formulas_are_those_of_the_papers():
    assert renyi_divergence(3.0, 2.0) == 3 / 8
    # rdp + log((a - 1) / a) - (log delta + log a) / (a - 1)
    expected = 1 + math.log(2.56 / 3.56) - (math.log(1e-5) + math.log(3.56)) / 2.56
    assert epsilon_at(3.56, 1.0, 1e-5) == pytest.approx(expected, rel=1e-12)


def test_it_is_below_the_older_bound():
    # Mironov 2017, proposition 3, at the best order.
    older = 1 / 2 + math.sqrt(2 * math.log(1e5))
    assert account(1.0, 1, 1e-5).epsilon() < older


def test_releases_compose_like_one_of_less_noise():
    assert account(3.0, 9, 1e-5).epsilon() == pytest.approx(account(1.0, 1, 1e-5).epsilon())


def test_it_grows_with_releases_and_falls_with_noise_and_delta():
    assert account(1.0, 2, 1e-5).epsilon() > account(1.0, 1, 1e-5).epsilon()
    assert account(2.0, 1, 1e-5).epsilon() < account(1.0, 1, 1e-5).epsilon()
    assert account(1.0, 1, 1e-3).epsilon() < account(1.0, 1, 1e-5).epsilon()


def test_nothing_released_costs_nothing_and_very_much_noise_hardly_anything():
    assert Accountant(1e-5).epsilon() == 0
    assert account(1e6, 1, 1e-5).epsilon() == 0


def test_a_single_release_without_noise_is_not_private_ever_after():
    accountant = account(1.0, 1, 1e-5)
    accountant.spend(0)
    accountant.spend(100.0)
    assert math.isinf(accountant.epsilon())
    assert "NOT private, epsilon is infinite" in accountant.statement()


def test_the_statement_tells_epsilon_delta_and_releases():
    assert account(1.0, 1, 1e-5).statement() == "after 1 release(s): epsilon 4.728 at delta 1e-05"


def test_the_account_survives_its_process(tmp_path):
    record = tmp_path / "privacy.json"
    for _ in range(3):
        Accountant(1e-5, record).spend(2.0)
    again = Accountant(1e-5, record)
    assert again.releases == 3
    assert again.epsilon() == account(2.0, 3, 1e-5).epsilon()
    assert json.loads(record.read_text(encoding="utf-8"))["sum_of_inverse_squares"] == 0.75


def test_an_infinite_account_survives_too(tmp_path):
    record = tmp_path / "privacy.json"
    Accountant(1e-5, record).spend(0)
    assert math.isinf(Accountant(1e-5, record).epsilon())


def test_a_record_that_cannot_be_read_is_no_fresh_start(tmp_path):
    record = tmp_path / "privacy.json"
    record.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"cannot be read as a privacy account.*restore the file"):
        Accountant(1e-5, record)


def test_what_cannot_be_recorded_is_not_counted_as_done(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    accountant = Accountant(1e-5)
    accountant.record = tmp_path / "file" / "privacy.json"
    with pytest.raises(OSError, match="file"):
        accountant.spend(1.0)
    assert accountant.releases == 0


@pytest.mark.parametrize("delta", [0, 1, -1, math.nan])
def test_delta_is_a_probability(delta):
    with pytest.raises(ValueError, match="expected delta between 0 and 1"):
        Accountant(delta)


@pytest.mark.parametrize("noise", [-1.0, math.nan])
def test_noise_is_not_negative(noise):
    with pytest.raises(ValueError, match="noise_multiplier of at least 0"):
        Accountant(1e-5).spend(noise)
