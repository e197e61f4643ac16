from __future__ import annotations

import pytest

from bundle.data.plausibility.rules import RULES, is_odd


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_odd_on_one_side_of_its_limit_only(name):
    rule = RULES[name]
    step = 1e-6 if rule.odd_above else -1e-6
    assert is_odd(name, rule.limit + step)
    assert not is_odd(name, rule.limit)
    assert not is_odd(name, rule.limit - step)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_says_why_its_limit_is_there_and_what_to_do(name):
    assert len(RULES[name].reason) > 20
    assert RULES[name].advice.endswith(".")
    assert RULES[name].refused in ("always", "strict", "never")
