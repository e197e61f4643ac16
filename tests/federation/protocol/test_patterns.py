from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from federation.protocol.patterns import check_patterns

import bundle

LONG_SEARCHES = (
    r"(a+)+$",
    r"(a|a)*$",
    r"(?:\w+\s?)*$",
    r"a*a*a*a*a*a*b",
    r"\w+\w+\w+\w+!",
    r"a{1,}a{1,}a{1,}b",
)


@pytest.mark.parametrize("pattern", LONG_SEARCHES)
def test_a_search_that_may_not_end_is_refused(pattern):
    with pytest.raises(ValueError, match=r"exchange: expected a pattern without groups") as caught:
        check_patterns([pattern], "exchange")
    assert pattern in str(caught.value).replace("\\\\", "\\")


@pytest.mark.parametrize("pattern", ["(", "[", "*", 3, None, "a" * 201])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(ValueError, match="exchange: expected"):
        check_patterns([pattern], "exchange")


def test_every_pattern_of_our_configs_is_taken():
    found = []
    for path in Path(bundle.ROOT, "configs").glob("federation*.yaml"):
        for rule in (yaml.safe_load(path.read_text()).get("exchange") or {}).values():
            found += rule
    assert len(found) > 10
    check_patterns([p.replace("{index}", "0") for p in found], "exchange")


def test_an_escaped_mark_is_no_repetition():
    pattern = r"^a\*b\+c\(d\)\.\d$"
    check_patterns([pattern], "exchange")
    assert re.search(pattern, "a*b+c(d).1")
