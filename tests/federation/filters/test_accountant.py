from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from federation.filters.accountant import Accountant, delta_at, epsilon_at
from scipy.integrate import quad
from scipy.stats import norm

# (sigma, releases, delta, epsilon as Opacus 1.6 bounds it with Renyi orders and sampling rate 1).
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


def delta_by_integral(epsilon, mu):
    """The expected excess of the privacy loss, which is Gaussian: mean mu^2 / 2, deviation mu."""

    def excess(score):
        loss = mu**2 / 2 + mu * score
        return -math.expm1(epsilon - loss) * norm.pdf(score)

    first = epsilon / mu - mu / 2
    return quad(excess, first, max(first, 0) + 12, epsabs=0, epsrel=1e-11, limit=500)[0]


@pytest.mark.parametrize("mu", [0.01, 0.3, 1.0, math.sqrt(5), 10.0, 40.0])
@pytest.mark.parametrize("delta", [1e-10, 1e-5, 1e-3, 0.2])
def test_epsilon_is_that_of_the_integral_over_the_privacy_loss(mu, delta):
    epsilon = epsilon_at(delta, mu)
    if epsilon > 0:
        assert delta_by_integral(epsilon, mu) == pytest.approx(delta, rel=1e-8)
    else:
        assert delta_by_integral(0.0, mu) <= delta


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 4.0, 30.0])
@pytest.mark.parametrize("mu", [0.2, 1.0, 6.0])
def test_delta_is_the_integral_over_the_privacy_loss(epsilon, mu):
    found = delta_at(epsilon, mu)
    # Where the paper's two terms agree to 16 digits, their difference has none left.
    assert found == pytest.approx(delta_by_integral(epsilon, mu), rel=1e-8, abs=1e-300)


@pytest.mark.parametrize("mu", [100.0, 1e4, 1e8, 1e12])
def test_an_epsilon_far_beyond_what_exp_can_hold(mu):
    # There the second term takes off about 1, however large epsilon is.
    largest = mu * (mu / 2 - norm.ppf(1e-5))
    assert (largest - 1) * (1 - 1e-12) <= epsilon_at(1e-5, mu) <= largest


@pytest.mark.parametrize(("releases", "sigma", "epsilon"), [(20, 2.0, 11.48), (1, 1.0, 4.38)])
def test_what_the_documents_say(releases, sigma, epsilon):
    assert round(account(sigma, releases, 1e-5).epsilon(), 2) == epsilon


@pytest.mark.parametrize(("sigma", "releases", "delta", "opacus"), OPACUS)
def test_it_is_a_little_below_the_bound_by_renyi_orders(sigma, releases, delta, opacus):
    epsilon = account(sigma, releases, delta).epsilon()
    assert opacus / 1.12 <= epsilon < opacus


def test_releases_compose_like_one_of_less_noise():
    assert account(3.0, 9, 1e-5).epsilon() == pytest.approx(account(1.0, 1, 1e-5).epsilon())
    mixed = account(2.0, 3, 1e-5)
    mixed.spend(5.0)
    one = Accountant(1e-5)
    one.spend((3 / 2.0**2 + 1 / 5.0**2) ** -0.5)
    assert mixed.epsilon() == pytest.approx(one.epsilon())


def test_it_grows_with_releases_and_falls_with_noise_and_delta():
    by_releases = [account(1.0, number, 1e-5).epsilon() for number in range(30)]
    assert all(now > before for before, now in pairwise(by_releases))
    by_noise = [account(sigma, 1, 1e-5).epsilon() for sigma in (0.01, 0.1, 0.5, 1.0, 2.0, 50.0)]
    assert all(now < before for before, now in pairwise(by_noise))
    by_delta = [account(1.0, 1, 10.0**-power).epsilon() for power in range(1, 40)]
    assert all(now > before for before, now in pairwise(by_delta))


def test_nothing_released_costs_nothing_and_very_much_noise_hardly_anything():
    assert Accountant(1e-5).epsilon() == 0
    assert account(1e6, 1, 1e-5).epsilon() == 0


def test_noise_too_little_for_floating_point_is_no_noise():
    assert math.isinf(account(1e-200, 1, 1e-5).epsilon())


def test_a_single_release_without_noise_is_not_private_ever_after():
    accountant = account(1.0, 1, 1e-5)
    accountant.spend(0)
    accountant.spend(100.0)
    assert math.isinf(accountant.epsilon())
    assert "NOT private, epsilon is infinite" in accountant.statement()


def test_the_statement_tells_epsilon_delta_and_releases():
    assert account(1.0, 1, 1e-5).statement() == "after 1 release(s): epsilon 4.377 at delta 1e-05"


def test_the_account_survives_its_process(tmp_path):
    record = tmp_path / "privacy.json"
    for _ in range(3):
        Accountant(1e-5, record).spend(2.0)
    again = Accountant(1e-5, record)
    assert again.releases == 3
    assert again.epsilon() == account(2.0, 3, 1e-5).epsilon()
    assert json.loads(record.read_text(encoding="utf-8"))["sum_of_inverse_squares"] == 0.75


def test_an_account_of_version_0_3_1_goes_on(tmp_path):
    record = tmp_path / "privacy_account.json"
    record.write_text('{"releases": 19, "sum_of_inverse_squares": 4.75}\n', encoding="utf-8")
    accountant = Accountant(1e-5, record)
    accountant.spend(2.0)
    assert accountant.releases == 20
    assert accountant.epsilon() == account(2.0, 20, 1e-5).epsilon()


def test_an_infinite_account_survives_too(tmp_path):
    record = tmp_path / "privacy.json"
    Accountant(1e-5, record).spend(0)
    assert math.isinf(Accountant(1e-5, record).epsilon())


@pytest.mark.parametrize("content", ["{}", "[]", '{"releases": 3}', "", '{"releases": 1'])
def test_a_record_that_cannot_be_read_is_no_fresh_start(content, tmp_path):
    record = tmp_path / "privacy.json"
    record.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected a privacy account.*Restore the file"):
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
