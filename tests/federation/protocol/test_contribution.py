from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from federation.protocol.contribution import check_contribution
from federation.protocol.identity import Identity

HEAD = "network.head.weight"
OURS = Identity("1.0", "c0de", "c0f1", *"wxyz")


def refusal(given, exchange, state, **limits):
    with pytest.raises(ValueError, match=r"\w") as caught:
        check_contribution(given, exchange, state, **limits)
    return str(caught.value)


def test_a_sound_contribution_passes(contribute, exchange, state):
    check_contribution(contribute(), exchange, state)
    check_contribution(contribute(cases={"t2": 1}), exchange, state)
    given = contribute(identity=OURS)
    check_contribution(given, exchange, state, identity=OURS, norm_bound=given.norm(exchange))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.tensor([1, 1, torch.nan, 1]), "'network.head.weight' holds NaN"),
        (torch.tensor([1, 1, torch.inf, 1]), "'network.head.weight' holds infinite numbers"),
        (torch.full((4,), -1e31), "'network.head.weight' holds numbers beyond 1e+30"),
        (torch.ones(5), "'network.head.weight' has shape (5,), expected (4,)"),
        (torch.ones(4).half(), "'network.head.weight' holds torch.float16, expected torch.float32"),
        ("weights", "'network.head.weight' is a str, expected a tensor"),
    ],
)
def test_a_broken_tensor_is_named(contribute, exchange, state, value, reason):
    assert refusal(contribute(moved={HEAD: value}), exchange, state) == reason


def test_statistics_must_come_in_double_precision(contribute, exchange, state):
    given = contribute(moved={"bank.counts": torch.ones(3)})
    assert refusal(given, exchange, state) == (
        "'bank.counts' holds torch.float32, expected torch.float64"
    )


def test_a_missing_key_is_named(contribute, exchange, state):
    given = contribute()
    del given.update[HEAD]
    assert refusal(given, exchange, state) == f"1 of 8 tensors are missing: '{HEAD}'"


def test_a_key_that_the_model_lacks_is_named(contribute, exchange, state):
    given = contribute(moved={"extra": torch.ones(1), "more": torch.ones(1)})
    assert refusal(given, exchange, state) == "the model has no 'extra' and 1 more"


def test_a_private_key_is_named(contribute, exchange, state):
    given = contribute(moved={"network.norm.weight": torch.ones(2)})
    assert refusal(given, exchange, state) == "it holds private tensors: 'network.norm.weight'"


def test_an_encoder_without_cases_is_named(contribute, exchange, state):
    given = contribute(cases={"t1": 1}, moved={"network.encoders.2.weight": torch.ones(2)})
    assert refusal(given, exchange, state) == (
        "it holds parameters of modalities that it has no cases of: 'network.encoders.2.weight'"
    )


def test_a_huge_norm_is_refused_and_statistics_do_not_count(contribute, exchange, state):
    huge = {"bank.counts": torch.full((3,), 1e12, dtype=torch.float64)}
    norm = (3 * 2 + 12 + 4) ** 0.5
    assert contribute(moved=huge).norm(exchange) == pytest.approx(norm)
    check_contribution(contribute(moved=huge), exchange, state, norm_bound=5.0)
    given = contribute(moved={HEAD: torch.full((4,), 100.0)})
    assert refusal(given, exchange, state, norm_bound=5.0) == (
        "the update's norm is 200.045, expected at most 5"
    )


@pytest.mark.parametrize(
    ("cases", "all_cases", "reason"),
    [
        ({"t1": 3}, 2, r"expected case counts from 0 to all_cases"),
        ({"t1": -1, "t2": 1}, 2, r"expected case counts from 0"),
        ({"t1": 1.5}, 2, r"expected case counts from 0"),
        ({"t1": True}, 2, r"expected case counts from 0"),
        ({"t1": 1}, None, r"expected case counts from 0"),
        ({"t1": 0}, 2, r"expected at least one case with a scan, got none"),
        ({}, 2, r"expected at least one case with a scan, got none"),
        ({"pet": 1}, 2, r"unknown modality 'pet'"),
    ],
)
def test_case_counts_must_make_sense(contribute, exchange, state, cases, all_cases, reason):
    given = replace(contribute(), cases=cases, all_cases=all_cases)
    with pytest.raises(ValueError, match=reason):
        check_contribution(given, exchange, state)


def test_another_bundle_is_refused_with_both_shown(contribute, exchange, state):
    given = contribute(identity=OURS._replace(code="dead"))
    assert refusal(given, exchange, state, identity=OURS).startswith(
        "the bundle differs from the job's: expected code c0de, got dead."
    )
    assert "does not say" in refusal(contribute(), exchange, state, identity=OURS)


def test_its_size_is_what_travelled_or_what_it_holds(contribute):
    given = contribute()
    assert given.bytes == (3 * 2 + 12 + 4) * 4 + 8 + 2 * 3 * 8
    assert replace(given, wire_bytes=10).bytes == 10
