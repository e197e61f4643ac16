from __future__ import annotations

import pytest
import torch
from federation.protocol.exchange import Exchange, ExchangeRules, Kind, Part, declared_statistics
from torch import nn

from bundle.networks.distribution_bank import DistributionBank

MODALITIES = ("t1", "t2", "flair")
EVERY = {"t1": 1, "t2": 1, "flair": 1}


def test_each_tensor_has_its_part(exchange):
    assert exchange.parts == {
        "network.encoders.0.weight": Part(Kind.PARAMETER, 0),
        "network.encoders.1.weight": Part(Kind.PARAMETER, 1),
        "network.encoders.2.weight": Part(Kind.PARAMETER, 2),
        "network.first.weight": Part(Kind.PARAMETER, axis=1),
        "network.head.weight": Part(Kind.PARAMETER),
        "network.norm.weight": Part(Kind.PRIVATE),
        "teacher.n_averaged": Part(Kind.COUNTER),
        "bank.counts": Part(Kind.ADDITIVE),
        "dice_sums": Part(Kind.RECOUNTED),
    }


@pytest.mark.parametrize("lacking", [{"t1": 3, "flair": 0}, {"t1": 3}])
def test_a_site_holds_what_is_shared_and_the_encoders_of_what_it_has(exchange, lacking):
    held = exchange.held(lacking)
    assert "network.encoders.0.weight" in held
    assert "network.encoders.1.weight" not in held
    assert "network.encoders.2.weight" not in held
    assert len(held) == len(exchange.parts) - 3
    assert len(exchange.held(EVERY)) == len(exchange.parts) - 1


def test_private_tensors_are_never_held(exchange):
    assert "network.norm.weight" not in exchange.held(EVERY)


def test_private_goes_before_everything_else(state):
    rules = ExchangeRules(
        MODALITIES,
        modality_parameters=[r"encoders\.{index}\."],
        private_parameters=[r"encoders\.", "bank"],
        additive_statistics=["bank"],
    )
    parts = Exchange(rules, state).parts
    assert {parts[k].kind for k in state if "encoders" in k or "bank" in k} == {Kind.PRIVATE}


def test_names_are_not_found_within_longer_names_nor_numbers_within_longer_numbers():
    names = ("t1", "t1ce")
    state = {"a.t1.w": torch.ones(1), "a.t1ce.w": torch.ones(1), "b.1": torch.ones(1)}
    rules = ExchangeRules(names, modality_parameters=[r"a\.{name}", r"b\.{index}"])
    found = {key: part.modality for key, part in Exchange(rules, state).parts.items()}
    assert found == {"a.t1.w": 0, "a.t1ce.w": 1, "b.1": 1}
    parts = Exchange(rules, state | {"b.10": torch.ones(1)}).parts
    assert parts["b.10"].modality is None


def test_what_is_sent_is_the_difference_in_the_right_type(exchange, state):
    own = {key: value + 1 for key, value in state.items()}
    sent = exchange.difference(own, state, {"t2": 1})
    assert list(sent) == exchange.held({"t2": 1})
    assert sent["bank.counts"].dtype == sent["dice_sums"].dtype == torch.float64
    assert sent["teacher.n_averaged"].dtype == torch.int64
    assert sent["network.head.weight"].dtype == torch.float32
    assert sent["bank.counts"].tolist() == [1, 1, 1]
    # Six columns, two for each modality; the site has t2 alone.
    assert sent["network.first.weight"].tolist() == [[0, 0, 1, 1, 0, 0]] * 2


def test_statistics_are_subtracted_in_double_precision(exchange, state):
    large = {"bank.counts": torch.full((3,), 2.0**40, dtype=torch.float64)}
    own = {**state, "bank.counts": large["bank.counts"] + 1}
    assert exchange.difference(own, {**state, **large}, EVERY)["bank.counts"].tolist() == [1, 1, 1]


def test_statistics_in_single_precision_are_too(exchange, state):
    own = {**state, "dice_sums": torch.full((3,), 2.0**24)}
    received = {**state, "dice_sums": torch.full((3,), 0.5)}
    sent = exchange.difference(own, received, EVERY)["dice_sums"]
    assert sent.tolist() == [2.0**24 - 0.5] * 3


def test_what_is_received_in_another_type_takes_the_sites(exchange, state):
    received = {key: value.double() + 1 for key, value in state.items()}
    taken = exchange.take(state, received, EVERY)
    assert {key: value.dtype for key, value in taken.items()} == {
        key: value.dtype for key, value in state.items()
    }


def test_what_is_sent_holds_no_graph(exchange, state):
    own = {**state, "network.head.weight": nn.Parameter(torch.ones(4))}
    assert not exchange.difference(own, state, EVERY)["network.head.weight"].requires_grad


def test_what_is_received_replaces_what_is_shared_and_leaves_the_rest_alone(exchange, state):
    received = {key: value + 5 for key, value in state.items()}
    before = {key: value.clone() for key, value in state.items()}
    taken = exchange.take(state, received, {"t1": 4})
    for key in state:
        assert torch.equal(state[key], before[key])
        if key == "network.norm.weight":
            assert taken[key] is state[key]
        else:
            assert torch.equal(taken[key], received[key])
            assert taken[key].dtype == state[key].dtype


def test_what_a_site_lacks_may_be_left_out_of_what_it_receives(exchange, state):
    received = {key: state[key] + 5 for key in exchange.held({"t1": 4})}
    taken = exchange.take(state, received, {"t1": 4})
    assert taken["network.encoders.1.weight"] is state["network.encoders.1.weight"]
    assert torch.equal(taken["network.encoders.0.weight"], received["network.encoders.0.weight"])
    received["network.encoders.1.weight"] = torch.full((2,), torch.nan)
    with pytest.raises(ValueError, match=r"finite numbers under 'network.encoders.1.weight'"):
        exchange.take(state, received, {"t1": 4})


def test_a_damaged_global_model_is_refused(exchange, state):
    nan = {**state, "network.head.weight": torch.full((4,), torch.nan)}
    with pytest.raises(ValueError, match=r"finite numbers under 'network.head.weight'"):
        exchange.take(state, nan, EVERY)
    short = {**state, "network.head.weight": torch.ones(3)}
    with pytest.raises(ValueError, match=r"of shape \(4,\), got \(3,\)"):
        exchange.take(state, short, EVERY)
    del short["network.head.weight"]
    with pytest.raises(ValueError, match=r"of shape \(4,\), got None"):
        exchange.take(state, short, EVERY)


def test_a_pattern_that_matches_nothing_is_refused(state):
    rules = ExchangeRules(MODALITIES, private_parameters=[r"\.norn\."])
    with pytest.raises(ValueError, match=r"got \['.+norn.+'\], which match none of its 9"):
        Exchange(rules, state)


def test_a_tensor_of_two_modalities_is_refused():
    rules = ExchangeRules(MODALITIES, modality_parameters=[r"\.{index}\."])
    with pytest.raises(ValueError, match=r"would serve \['t1', 't2'\], expected one"):
        Exchange(rules, {"a.0.b.1.c": torch.ones(1)})


def test_blocks_must_divide_their_axis():
    rules = ExchangeRules(MODALITIES, modality_axes={"w": 1})
    with pytest.raises(ValueError, match=r"shape \(2, 4\): expected 3 equal blocks"):
        Exchange(rules, {"w": torch.ones(2, 4)})
    with pytest.raises(ValueError, match=r"shape \(3,\): expected 3 equal blocks"):
        Exchange(rules, {"w": torch.ones(3)})


def test_what_has_no_mean_must_be_private():
    state = {"seen": torch.tensor([True]), "w": torch.ones(1)}
    with pytest.raises(ValueError, match=r"'seen', got torch.bool.*private_parameters"):
        Exchange(ExchangeRules(MODALITIES), state)
    Exchange(ExchangeRules(MODALITIES, private_parameters=["seen"]), state)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"modality_parameters": ["encoder"]}, r"expected \{index\} or \{name\}"),
        ({"private_parameters": ["("]}, r"expected a regular expression, got '\('"),
        ({"modality_axes": {"w": -1}}, r"expected an axis from 0"),
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ExchangeRules(MODALITIES, **wrong)


def test_an_unknown_modality_is_named(exchange):
    with pytest.raises(ValueError, match=r"unknown modality 'pet'"):
        exchange.held({"pet": 1})


def test_declared_statistics_are_found_wherever_they_lie():
    method = nn.Module()
    method.distribution = nn.Module()
    method.distribution.bank = DistributionBank(2, 1)
    patterns = declared_statistics(method)
    rules = ExchangeRules(("t1", "t2"), additive_statistics=patterns)
    parts = Exchange(rules, method.state_dict()).parts
    assert len(parts) == 4
    assert {part.kind for part in parts.values()} == {Kind.ADDITIVE}


def test_emptying_and_adding_touch_the_additive_statistics_alone(exchange, state):
    received = {key: value + 3 for key, value in state.items()}
    own = {**state, "bank.counts": torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)}
    empty, total = exchange.empty(own), exchange.add(own, received)
    assert empty["bank.counts"].tolist() == [0.0, 0.0, 0.0]
    assert total["bank.counts"].tolist() == [4.0, 5.0, 6.0]
    assert own["bank.counts"].tolist() == [1.0, 2.0, 3.0]
    for new in (empty, total):
        assert new["bank.counts"].dtype == torch.float64
        assert all(new[key] is own[key] for key in own if key != "bank.counts")


def test_sums_that_arrive_in_another_type_are_added_in_the_sites_own(exchange, state):
    received = {**state, "bank.counts": torch.tensor([0.5, 0.5, 0.5])}
    total = exchange.add(state, received)["bank.counts"]
    assert (total.dtype, total.tolist()) == (torch.float64, [0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        (Kind.PRIVATE, ["network.norm.weight"]),
        (Kind.ADDITIVE, ["bank.counts"]),
        (Kind.RECOUNTED, ["dice_sums"]),
        (Kind.COUNTER, ["teacher.n_averaged"]),
    ],
)
def test_the_tensors_of_a_kind(exchange, state, kind, keys):
    picked = exchange.of_kind(kind, state)
    assert list(picked) == keys
    assert all(picked[key] is state[key] for key in keys)
