from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from federation.filters.accountant import Accountant, Cap, delta_at, epsilon_at
from scipy.integrate import quad
from scipy.stats import norm

import bundle

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


@pytest.mark.parametrize(
    "content",
    [
        *("{}", "[]", '{"releases": 3}', "", '{"releases": 1'),
        '{"releases": 1, "sum_of_inverse_squares": NaN}',
        '{"releases": 1, "sum_of_inverse_squares": -0.25}',
        '{"releases": -1, "sum_of_inverse_squares": 0.25}',
        '{"releases": 0, "sum_of_inverse_squares": 0.25}',
    ],
)
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


def test_two_processes_that_release_at_once_lose_nothing(tmp_path):
    """Each of them opens the account before the other one spends."""
    record = tmp_path / "state" / "privacy_account.json"
    one, other = Accountant(1e-5, record), Accountant(1e-5, record)
    for accountant in (one, other, other, one):
        accountant.spend(2.0)
    assert Accountant(1e-5, record).releases == one.releases == 4
    assert one.epsilon() == account(2.0, 4, 1e-5).epsilon()


def test_a_second_process_waits_for_the_first(tmp_path):
    """Real processes, all at once: every release is in the account."""
    record, go = tmp_path / "privacy_account.json", tmp_path / "go"
    program = f"""
import sys, time
from pathlib import Path
from federation.filters.accountant import Accountant
accountants = [Accountant(1e-5, {str(record)!r}) for _ in range(25)]
print("ready", flush=True)
while not Path({str(go)!r}).exists():
    time.sleep(0.01)
for accountant in accountants:
    accountant.spend(2.0)
"""
    custom = Path(bundle.ROOT) / "custom"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([bundle.ROOT, str(custom)])},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    assert [process.stdout.readline() for process in started] == ["ready\n"] * 2
    go.touch()
    assert [process.wait(60) for process in started] == [0, 0]
    for process in started:
        process.stdout.close()
    content = json.loads(record.read_text(encoding="utf-8"))
    assert content == {"releases": 50, "sum_of_inverse_squares": 12.5}


def test_the_account_is_for_its_owner_alone(tmp_path):
    record = tmp_path / "state" / "privacy_account.json"
    Accountant(1e-5, record).spend(2.0)
    modes = {p.name: p.stat().st_mode & 0o777 for p in (record.parent, *record.parent.iterdir())}
    assert modes == {
        "state": 0o700,
        "privacy_account.json": 0o600,
        "privacy_account.json.lock": 0o600,
    }


def test_a_release_beyond_the_cap_is_refused_and_costs_nothing(tmp_path):
    record = tmp_path / "privacy.json"
    cap = Cap(account(2.0, 3, 1e-6).epsilon(), 1e-6)
    # The account tells epsilon at another delta, at which all of this would be far below.
    for _ in range(3):
        Accountant(0.3, record).spend(2.0, cap)
    before = record.read_bytes()
    with pytest.raises(ValueError, match="the site's cap on epsilon leaves no room for another"):
        Accountant(0.3, record).spend(2.0, cap)
    with pytest.raises(ValueError, match="the site's cap on epsilon leaves no room for another"):
        Accountant(0.3, record).check(2.0, cap)
    assert record.read_bytes() == before
    Accountant(0.3, record).check(2.0, None)
    with pytest.raises(ValueError, match="leaves no room for another release with this noise"):
        Accountant(0.3).spend(0, cap)


def test_what_another_process_has_spent_counts_for_the_cap(tmp_path):
    record, cap = tmp_path / "privacy.json", Cap(account(2.0, 1, 1e-5).epsilon(), 1e-5)
    early = Accountant(1e-5, record)
    Accountant(1e-5, record).spend(2.0, cap)
    with pytest.raises(ValueError, match="leaves no room"):
        early.spend(2.0, cap)


def test_noise_beyond_what_can_be_squared_costs_nothing():
    assert account(1e200, 1, 1e-5).epsilon() == 0
