from __future__ import annotations

import pytest
import torch
from federation.protocol.contribution import Contribution
from federation.protocol.exchange import Exchange, ExchangeRules, Kind, declared_statistics
from federation.server.round import Round
from federation.server.statistics_check import adds
from torch import nn

from bundle.methods.lckd.method import LCKD
from bundle.networks.distribution_bank import DistributionBank

MODALITIES = ("t1", "t2", "flair")


def bank(seed, cases=4, spread=1.0):
    torch.manual_seed(seed)
    made = DistributionBank(3, 4, MODALITIES)
    descriptors = spread * torch.randn(cases, 3, 20, 4) + 3
    # A descriptor that is always 0, as the size of what nobody has.
    descriptors[..., 3] = 0
    present = torch.rand(cases, 3) < 0.7
    present[0] = True
    made.update(descriptors, present, torch.rand(cases, 20) < 0.8)
    return made, dict(zip(MODALITIES, present.sum(0).tolist(), strict=True))


@pytest.fixture
def offer():
    """Give offer(own, cases, globally): what a round says to a site whose bank is `own`."""

    def make(own, cases, globally=None):
        method = nn.ModuleDict({"bank": DistributionBank(3, 4, MODALITIES)})
        if globally is not None:
            method["bank"].load_state_dict(globally.state_dict())
        state = method.state_dict()
        rules = ExchangeRules(MODALITIES, additive_statistics=declared_statistics(method))
        exchange = Exchange(rules, state)
        mine = {f"bank.{key}": value for key, value in own.items()}
        sent = exchange.difference(exchange.add(mine, state), state, cases)
        given = Contribution("A", sent, cases, max(cases.values()))
        return Round(exchange, state, method=method).offer(given)

    return make


def test_a_bank_of_real_patches_passes_whatever_the_others_have_added(offer):
    own, cases = bank(0)
    assert offer(own.state_dict(), cases) is None
    globally, _ = bank(1, cases=300, spread=100.0)
    assert offer(own.state_dict(), cases, globally) is None
    for value in globally.state_dict().values():
        # The sums of a site that the server believes in part.
        value.mul_(1 / 3)
    assert offer(own.state_dict(), cases, globally) is None
    nothing = {key: torch.zeros_like(value) for key, value in own.state_dict().items()}
    assert offer(nothing, cases, globally) is None


def spoilt(name, change):
    own, cases = bank(0)
    own = {key: value.clone() for key, value in own.state_dict().items()}
    change(own[name])
    return own, cases


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("counts", lambda v: v.neg_(), "count patches that are no whole numbers from 0"),
        ("counts", lambda v: v.add_(0.5), "count patches that are no whole numbers from 0"),
        ("counts", lambda v: v[0, 0].sub_(1e4), "count patches that are no whole numbers from 0"),
        ("counts", lambda v: v[0, 1].add_(1), "'t1' and 't2' are inconsistent"),
        ("counts", lambda v: v.mul_(10**6), "patches of 't1', expected at most 4194304 in 2 cases"),
        ("squares", lambda v: v.mul_(0.9), "'t1' and 't1' are inconsistent"),
        ("squares", lambda v: v[2, 2].neg_(), "'flair' and 'flair' are inconsistent"),
        ("sums", lambda v: v[1, 1].mul_(1.2), "'t2' and 't2' are inconsistent"),
        ("sums", lambda v: v[..., 3].add_(1), "'t1' and 't1' are inconsistent"),
        ("products", lambda v: v[0, 1].mul_(1.1), "'t1' and 't2' are inconsistent"),
    ],
)
def test_sums_that_no_patches_have_are_refused(offer, name, change, reason):
    own, cases = spoilt(name, change)
    assert reason in offer(own, cases)


def test_the_bounds_hold_for_each_site_and_not_for_the_sum_alone(offer):
    globally, _ = bank(1, cases=50)
    own, cases = spoilt("counts", lambda v: v.neg_())
    assert "no whole numbers from 0" in offer(own, cases, globally)


def test_a_modality_without_cases_has_no_patches(offer):
    own, cases = bank(0)
    assert "of 'flair', expected at most 0 in 0 cases" in offer(
        own.state_dict(), {**cases, "flair": 0}
    )


@pytest.fixture
def elect():
    """Give elect(sums, counts): what a round says to a site with these elections."""

    def make(sums, counts):
        method = LCKD(nn.Identity(), {}, MODALITIES, ["WT"])
        method.dice_sums += torch.tensor([[1.5], [0.0], [0.5]])
        method.case_counts += 2.5
        state = {key: value.clone() for key, value in method.state_dict().items()}
        rules = ExchangeRules(MODALITIES, recounted_statistics=["dice_sums", "case_counts"])
        exchange = Exchange(rules, state)
        own = {"dice_sums": torch.tensor(sums), "case_counts": torch.tensor(counts)}
        sent = exchange.difference(own, state, {"t1": 1})
        return Round(exchange, state, method=method).offer(Contribution("A", sent, {"t1": 1}, 1))

    return make


def test_elections_are_those_of_the_site_itself_not_differences(elect):
    assert elect([[0.1], [0.0], [1.0]], [[1.0], [1.0], [1.0]]) is None
    assert elect([[1.5], [0.0], [0.5]], [[2.5], [2.5], [2.5]]) is None


@pytest.mark.parametrize(
    ("sums", "counts"),
    [
        ([[1.1], [0.0], [0.0]], [[1.0], [1.0], [1.0]]),
        ([[-0.1], [0.0], [0.0]], [[1.0], [1.0], [1.0]]),
        ([[0.0], [0.0], [0.0]], [[-1.0], [1.0], [1.0]]),
    ],
)
def test_impossible_elections_are_refused(elect, sums, counts):
    assert elect(sums, counts).startswith("its elections are inconsistent: expected counts of")


def test_a_method_without_checks_and_private_statistics_are_left_alone():
    method = nn.ModuleDict({"bank": DistributionBank(3, 4, MODALITIES)})
    state = method.state_dict()
    exchange = Exchange(ExchangeRules(MODALITIES, private_parameters=["^bank"]), state)
    given = Contribution("A", {}, {"t1": 1}, 1)
    assert Round(exchange, state, method=method).offer(given) is None


def test_a_bank_that_a_site_leaves_as_it_was_adds_nothing():
    method = nn.ModuleDict({"bank": bank(0, cases=30, spread=1e3)[0]})
    state = method.state_dict()
    rules = ExchangeRules(MODALITIES, additive_statistics=declared_statistics(method))
    exchange, cases = Exchange(rules, state), {"t1": 1}
    own = {key: value.float() for key, value in state.items()}
    for received in (state, own):
        # As `federation.site.sums.leaving` makes it, also where single precision was sent.
        left = method.state_dict() | exchange.of_kind(Kind.ADDITIVE, received)
        sent = exchange.difference(left, received, cases)
        assert not adds(Contribution("A", sent, cases, 1), exchange)
    sent["bank.counts"][0, 0] = 1e-300
    assert adds(Contribution("A", sent, cases, 1), exchange)
