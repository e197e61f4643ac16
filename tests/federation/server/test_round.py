from __future__ import annotations

import copy
from itertools import permutations

import pytest
import torch
from federation.protocol.contribution import Contribution
from federation.protocol.exchange import Exchange, ExchangeRules, declared_statistics
from federation.server.round import Round, moved
from torch import nn

from bundle.networks.distribution_bank import DistributionBank

ENCODERS = [f"network.encoders.{i}.weight" for i in range(3)]
HEAD = "network.head.weight"


@pytest.fixture
def round_of(exchange, state):
    """Give round_of(*contributions, **options): a round to which all of them were offered."""

    def make(*contributions, **options):
        current = Round(exchange, state, **options)
        for given in contributions:
            current.offer(given)
        return current

    return make


def same_bytes(one, other):
    return one.dtype == other.dtype and one.numpy().tobytes() == other.numpy().tobytes()


def test_shared_parameters_are_weighted_by_cases(contribute, round_of):
    one = contribute("A", {"t1": 3}, 3, {HEAD: torch.full((4,), 1.0)})
    other = contribute("B", {"t2": 1}, 1, {HEAD: torch.full((4,), 5.0)})
    assert round_of(one, other).commit().update[HEAD].tolist() == [2.0] * 4


def test_a_modalitys_parameters_are_weighted_by_the_cases_that_have_it(contribute, round_of):
    one = contribute("A", {"t1": 9, "t2": 1}, 10, {ENCODERS[1]: torch.full((2,), 4.0)})
    other = contribute("B", {"t2": 3}, 3, {ENCODERS[1]: torch.full((2,), 8.0)})
    assert round_of(one, other).commit().update[ENCODERS[1]].tolist() == [7.0, 7.0]


def test_a_sole_holder_moves_its_modality_by_exactly_its_own_update(contribute, round_of):
    own = torch.randn(2, generator=torch.Generator().manual_seed(0))
    one = contribute("A", {"t1": 7, "flair": 3}, 7, {ENCODERS[2]: own})
    commit = round_of(one, contribute("B", {"t1": 5}), contribute("C", {"t2": 11})).commit()
    assert same_bytes(commit.update[ENCODERS[2]], own)


def test_a_modality_without_holders_keeps_its_value_byte_for_byte(contribute, round_of, state):
    state[ENCODERS[2]] = torch.tensor([-0.0, 1e-42])
    state["network.first.weight"][:, 4:] = -0.0
    one, other = contribute("A", {"t1": 2}), contribute("B", {"t2": 2})
    commit = round_of(one, other).commit()
    after = moved(state, commit.update)
    assert ENCODERS[2] not in commit.update
    assert after[ENCODERS[2]] is state[ENCODERS[2]]
    assert same_bytes(after["network.first.weight"][:, 4:], state["network.first.weight"][:, 4:])
    assert commit.coverage.unheld == ["flair"]
    assert commit.coverage.frozen_keys == [ENCODERS[2]]
    assert commit.coverage.frozen_blocks == ["network.first.weight"]


def test_blocks_along_an_axis_have_weights_of_their_own(contribute, round_of):
    key = "network.first.weight"
    one = contribute("A", {"t1": 3, "t2": 1}, 3, {key: torch.full((2, 6), 1.0)})
    other = contribute("B", {"t1": 1}, 1, {key: torch.full((2, 6), 5.0)})
    assert round_of(one, other).commit().update[key].tolist() == [[2, 2, 1, 1, 0, 0]] * 2


def test_additive_statistics_are_summed_and_recounted_ones_averaged(contribute, round_of, state):
    def sums(*values):
        return {
            "bank.counts": torch.tensor(values, dtype=torch.float64),
            "dice_sums": torch.tensor(values, dtype=torch.float64),
        }

    one = contribute("A", {"t1": 100}, 100, sums(1.0, 2.0, 0.1))
    other = contribute("B", {"t1": 1}, 1, sums(10.0, 20.0, 0.2))
    update = round_of(one, other).commit().update
    assert update["bank.counts"].tolist() == [11.0, 22.0, 0.1 + 0.2]
    assert update["dice_sums"].tolist() == pytest.approx([5.5, 11.0, 0.15])
    assert update["bank.counts"].dtype == torch.float64
    assert update["dice_sums"].dtype == state["dice_sums"].dtype


def test_counters_move_by_the_rounded_mean(contribute, round_of):
    one = contribute("A", {"t1": 1}, 1, {"teacher.n_averaged": torch.tensor(10)})
    other = contribute("B", {"t1": 2}, 2, {"teacher.n_averaged": torch.tensor(20)})
    update = round_of(one, other).commit().update["teacher.n_averaged"]
    assert update.dtype == torch.int64
    assert int(update) == 17


def test_elections_that_are_counted_afresh_in_each_round_keep_the_pooled_ratio():
    rules = ExchangeRules(("t1", "t2"), recounted_statistics=["dice_sums", "case_counts"])
    start = {"dice_sums": torch.zeros(2, 1), "case_counts": torch.zeros(2, 1)}
    exchange, globally = Exchange(rules, start), start
    generator = torch.Generator().manual_seed(0)
    for number in range(3):
        current = Round(exchange, globally, number=number)
        sums = torch.zeros(2, 1, dtype=torch.float64)
        counts = torch.zeros(2, 1, dtype=torch.float64)
        for site, cases in (("A", 5), ("B", 2)):
            own = {
                "dice_sums": cases * torch.rand(2, 1, generator=generator),
                "case_counts": torch.full((2, 1), float(cases)),
            }
            sums += own["dice_sums"].double()
            counts += own["case_counts"].double()
            holds = {"t1": 50 * cases, "t2": 1}
            sent = exchange.difference(own, globally, holds)
            assert current.offer(Contribution(site, sent, holds, 50 * cases)) is None
        globally = moved(globally, current.commit().update)
        ratio = globally["dice_sums"] / globally["case_counts"]
        torch.testing.assert_close(ratio.double(), sums / counts, atol=1e-6, rtol=0)


def test_the_order_of_arrival_changes_no_bit(contribute, round_of):
    generator = torch.Generator().manual_seed(0)
    given = []
    for site, n in zip("ABCD", (3, 7, 11, 13), strict=True):
        parameters = torch.randn(4, generator=generator)
        sums = torch.randn(3, generator=generator, dtype=torch.float64)
        given.append(contribute(site, {"t1": n}, n, {HEAD: parameters, "bank.counts": sums}))
    first, *others = (round_of(*order).commit().update for order in permutations(given))
    for key in (HEAD, "bank.counts"):
        assert all(same_bytes(first[key], other[key]) for other in others)


BROKEN = {
    "nan": {HEAD: torch.full((4,), torch.nan)},
    "infinite": {HEAD: torch.tensor([1, 1, 1, torch.inf])},
    "shape": {HEAD: torch.ones(2, 2)},
    "extra": {"unknown": torch.ones(1)},
    "missing": {HEAD: None},
    "norm": {HEAD: torch.full((4,), 1e6)},
    "private": {"network.norm.weight": torch.ones(2)},
    # The last key of all: what comes before it must not be in the sum already.
    "last": {"dice_sums": torch.full((3,), torch.nan, dtype=torch.float64)},
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_refused_leaves_no_trace_and_the_rest_counts(contribute, round_of, name):
    broken = contribute("X", moved=BROKEN[name])
    if name == "missing":
        del broken.update[HEAD]
    good = [contribute("A", {"t1": 2}), contribute("B", {"t2": 5})]
    alone = round_of(*good, norm_bound=100.0).commit()
    current = round_of(good[0], broken, good[1], norm_bound=100.0)
    assert list(current.refused) == ["X"]
    commit = current.commit()
    assert list(commit.coverage.accepted) == ["A", "B"]
    assert commit.update.keys() == alone.update.keys()
    assert all(same_bytes(commit.update[key], value) for key, value in alone.update.items())


def test_strangers_repeats_and_late_answers_are_refused(contribute, round_of):
    current = round_of(sites=["A", "B"], number=4)
    assert current.offer(contribute("X")) == "expected one of the sites ['A', 'B'], got 'X'"
    assert current.offer(contribute("A", round=3)) == "it answers round 3, expected 4"
    assert current.offer(contribute("A", round=4)) is None
    assert current.offer(contribute("A")) == "it has contributed to this round before"
    coverage = current.commit().coverage
    assert list(coverage.accepted) == ["A"]
    assert coverage.silent == ["B"]


def test_without_contributions_nothing_moves(round_of, state):
    commit = round_of(sites=["A"]).commit()
    assert commit.update == {}
    after = moved(state, commit.update)
    assert all(after[key] is value for key, value in state.items())
    assert commit.coverage.unheld == ["t1", "t2", "flair"]


def test_a_commit_changes_neither_state_nor_contributions(contribute, round_of, state):
    given = contribute()
    before = copy.deepcopy((state, dict(given.update)))
    commit = round_of(given).commit()
    moved(state, commit.update)
    after = (state, given.update)
    for was, now in zip(before, after, strict=True):
        assert all(torch.equal(was[key], now[key]) for key in was)


def test_one_federated_step_is_the_central_step_on_all_cases():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))
    inputs, targets = torch.randn(12, 5), torch.randn(12, 2)
    start = {key: value.clone() for key, value in network.state_dict().items()}

    def step(rows):
        local = copy.deepcopy(network)
        nn.functional.mse_loss(local(inputs[rows]), targets[rows]).backward()
        torch.optim.SGD(local.parameters(), lr=0.5).step()
        return local.state_dict()

    exchange = Exchange(ExchangeRules(("t1", "t2")), start)
    current = Round(exchange, start)
    for site, rows in (("A", range(0, 2)), ("B", range(2, 5)), ("C", range(5, 12))):
        cases = {"t1": len(rows), "t2": len(rows)}
        sent = exchange.difference(step(list(rows)), start, cases)
        assert current.offer(Contribution(site, sent, cases, len(rows))) is None
    after, central = moved(start, current.commit().update), step(list(range(12)))
    for key, value in central.items():
        torch.testing.assert_close(after[key], value, atol=1e-5, rtol=0)
        assert not torch.equal(after[key], start[key])


def test_the_federated_bank_is_the_pooled_bank():
    torch.manual_seed(0)
    descriptors = torch.randn(6, 3, 50, 4) + 3
    present = torch.rand(6, 3) < 0.6
    present[0], valid = True, torch.rand(6, 50) < 0.8
    pooled, start = DistributionBank(3, 4), DistributionBank(3, 4)
    pooled.update(descriptors, present, valid)
    patterns = declared_statistics(start)
    rules = ExchangeRules(("t1", "t2", "flair"), additive_statistics=patterns)
    globally = start.state_dict()
    exchange = Exchange(rules, globally)
    current = Round(exchange, globally)
    for site, rows in (("A", [0]), ("B", [1, 2, 3]), ("C", [4, 5])):
        own = DistributionBank(3, 4)
        own.update(descriptors[rows], present[rows], valid[rows])
        cases = dict(zip(rules.modalities, present[rows].sum(0).tolist(), strict=True))
        sent = exchange.difference(own.state_dict(), globally, cases)
        assert current.offer(Contribution(site, sent, cases, len(rows))) is None
    globally = moved(globally, current.commit().update)
    for key, value in pooled.state_dict().items():
        torch.testing.assert_close(globally[key], value, rtol=1e-12, atol=1e-12)
    # In a second round nobody has anything to add.
    later = Round(exchange, globally, number=1)
    sent = exchange.difference(globally, globally, {"t1": 1})
    assert later.offer(Contribution("B", sent, {"t1": 1}, 1)) is None
    again = moved(globally, later.commit().update)
    assert all(torch.equal(again[key], value) for key, value in globally.items())
