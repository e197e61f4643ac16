from __future__ import annotations

import math

import pytest
import torch
from federation.protocol.facts import LARGEST_FACT, read_values


def test_plain_values_come_out_as_they_are_and_texts_as_one_line():
    facts = {
        "collected": True,
        "seconds": 1.5,
        "peak_memory_mib": 0,
        "notes": ["a\nb", "=1"],
        "another": "x\x00y",
        "epsilon": -3,
    }
    assert read_values(facts, "facts") == {
        **facts,
        "notes": ["a b", "'=1"],
        "another": "x y",
    }
    assert read_values(None, "facts") == {}


LOOP = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"collected": []}, "facts: collected: expected true or false, got a list of 0"),
        ({"collected": 1}, "facts: collected: expected true or false.*, got 1"),
        ({"seconds": "3"}, "facts: seconds: expected a number from 0, got '3'"),
        ({"seconds": math.nan}, "facts: seconds: expected a number from 0 within limits, got nan"),
        ({"seconds": -1}, "facts: seconds: expected a number from 0 within limits, got -1"),
        ({"seconds": True}, "facts: seconds: expected a number from 0, got True"),
        ({"seconds": 10**5000}, "got an integer beyond its limits"),
        ({"seconds": 2 * LARGEST_FACT}, "got 2000000000000.0"),
        ({"seconds": 1j}, "got a complex"),
        ({"seconds": torch.ones(3)}, "got a Tensor"),
        ({"peak_memory_mib": {"a": 1}}, "peak_memory_mib: expected a number from 0, got a dict"),
        ({"notes": "text"}, "facts: notes: expected a list of texts, got 'text'"),
        ({"notes": ["a", 3]}, "facts: notes: expected a list of texts, got a list of 2"),
        ({"notes": ["a"] * 100}, "got a list of 100"),
        ({"notes": LOOP}, "got a list of 1"),
        ({"other": {"nested": 1}}, "facts: other: expected a number, true or false, a text"),
        ({"other": math.inf}, "got inf"),
        ({3: 1}, "facts: expected a short name, got 3"),
        ({"a\nb": 1}, "facts: expected a short name, got 'a b'"),
        ({"x" * 65: 1}, "facts: expected a short name"),
        ({f"n{i}": 1 for i in range(33)}, "facts: expected at most 32 names.*, got a dict of 33"),
        ([1], "facts: expected at most 32 names and plain values, got a list of 1"),
    ],
)
def test_everything_else_is_refused_with_the_reason(facts, reason):
    with pytest.raises(ValueError, match=reason):
        read_values(facts, "facts")
