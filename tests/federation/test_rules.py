"""A site's own rules: what can be written, and what each of them refuses."""

from __future__ import annotations

import math
import re

import pytest
import yaml
from federation.rules import Rules, methods_of, read_rules

ALL = """
require_private: true
most_epsilon: 8
delta: 1e-6
least_cases: 10
least_cases_statistics: 7
least_cases_scores: 3
statistics_of_few: true
jobs: [private, census]
federations: glioma
methods: [universal]
accept_changes: false
"""


def test_all_rules_can_be_written_and_none_has_to_be():
    read = read_rules(yaml.safe_load(ALL), "site.yaml: rules")
    assert read == Rules(
        require_private=True,
        most_epsilon=8.0,
        delta=1e-6,
        least_cases=10,
        least_cases_statistics=7,
        least_cases_scores=3,
        statistics_of_few=True,
        jobs=("private", "census"),
        federations=("glioma",),
        methods=("universal",),
        accept_changes=False,
    )
    assert read_rules(None, "x") == read_rules({}, "x") == Rules()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("least_case: 3", "expected rules of ['require_private', "),
        ("[1]", "expected names and values, got a list"),
        ("require_private: 1", "require_private: expected true or false, got 1"),
        ("accept_changes: 'no'", "accept_changes: expected true or false, got 'no'"),
        ("least_cases: 0", "least_cases: expected a whole number of at least 1, got 0"),
        ("least_cases: true", "least_cases: expected a whole number of at least 1, got True"),
        ("least_cases_scores: 2.5", "least_cases_scores: expected a whole number of at least 1"),
        ("most_epsilon: 0", "most_epsilon: expected a number above 0, or null, got 0"),
        ("most_epsilon: .inf", "most_epsilon: expected a number above 0, or null, got inf"),
        ("most_epsilon: .nan", "most_epsilon: expected a number above 0, or null, got nan"),
        ("most_epsilon: true", "most_epsilon: expected a number above 0, or null, got True"),
        ("most_epsilon: much", "most_epsilon: expected a number above 0, or null, got 'much'"),
        ("delta: 1", "delta: expected a number between 0 and 1, got 1"),
        ("jobs: []", "jobs: expected a list of names, or null, got []"),
        ("jobs: [1]", "jobs: expected a list of names, or null, got [1]"),
        ("federations: {a: b}", "federations: expected a list of names, or null"),
    ],
)
def test_a_rule_that_is_none_is_refused_not_left_out(wrong, told):
    with pytest.raises(ValueError, match=re.escape(f"s.yaml: rules: {told}")):
        read_rules(yaml.safe_load(wrong), "s.yaml: rules")


@pytest.mark.parametrize(
    ("configs", "methods"),
    [
        (["train.json", "federation.yaml"], ["universal"]),
        (["train.json", "pretrain.yaml", "federation.yaml"], ["universal"]),
        (["train.json", "method_lckd.yaml", "federation_lckd.yaml"], ["lckd"]),
        (["train.json", "method_gmd.yaml", "method_lckd.json"], ["gmd", "lckd"]),
    ],
)
def test_a_method_is_named_by_its_overlay(configs, methods):
    assert methods_of(configs) == methods


@pytest.mark.parametrize(
    ("rules", "what"),
    [
        (Rules(jobs=("census",)), "jobs"),
        (Rules(federations=("other",)), "federations"),
        (Rules(methods=("universal",)), "methods"),
    ],
)
def test_what_is_not_named_is_refused_without_telling_what_is(rules, what):
    Rules().check_names("private", "glioma", ["universal", "lckd"])
    with pytest.raises(ValueError, match=rf"^the site does not take part in {what} of this name$"):
        rules.check_names("private", "glioma", ["universal", "lckd"])


def test_a_job_without_a_name_is_not_one_that_is_named():
    Rules().check_names(None, "glioma", ["universal"])
    with pytest.raises(ValueError, match="does not take part in jobs of this name"):
        Rules(jobs=("private",)).check_names(None, "glioma", ["universal"])


def test_too_few_cases_are_refused_without_telling_how_many():
    rules = Rules(least_cases=10, least_cases_scores=3)
    rules.check_joining(10)
    rules.check_scoring(3)
    rules.check_scoring(0)
    for check, cases, whose in ((rules.check_joining, 9, "training"), (rules.check_scoring, 2, "")):
        with pytest.raises(ValueError, match=f"the site has fewer {whose}") as error:
            check(cases)
        assert not re.search(r"\d", str(error.value))


def test_dice_of_few_cases_stays():
    sums = {"t1": {"WT": [1.5, 3], "ET": [1.0, 3]}, "t2": {"WT": [1.0, 3], "ET": [0.5, 2]}}
    assert Rules().enough_scored(sums) == sums
    assert Rules(least_cases_scores=3).enough_scored(sums) == {"t1": sums["t1"]}
    assert Rules(least_cases_scores=4).enough_scored(sums) == {}


def test_a_census_tells_no_smaller_number_than_the_site_or_the_job_asks_for():
    assert Rules().census_minimum("census", 20, 1) == 5
    assert Rules().census_minimum("census", 20, 9) == 9
    assert Rules(least_cases_statistics=12).census_minimum("census", 20, 5) == 12
    # Consent to pre-training's sums is none to a census of few.
    assert Rules(statistics_of_few=True).census_minimum("census", 20, 1) == 5


def test_a_site_that_does_not_take_part_in_a_census_tells_nothing():
    assert math.isinf(Rules(jobs=("private",)).census_minimum("census", 20, 5))
    assert math.isinf(Rules(least_cases=30).census_minimum("census", 20, 5))
    assert math.isinf(Rules(jobs=("private",)).census_minimum(None, 20, 5))


def test_sums_need_five_cases_unless_the_site_consents():
    assert Rules().least_summed == 5
    assert Rules(least_cases_statistics=20).least_summed == 20
    assert Rules(statistics_of_few=True).least_summed == 1


def test_a_cap_asks_for_noise():
    assert not Rules().needs_private
    assert Rules(require_private=True).needs_private
    assert Rules(most_epsilon=3.0).needs_private


@pytest.mark.parametrize(
    ("rules", "noise", "enough"),
    [
        (Rules(require_private=True), 1.0, True),
        (Rules(require_private=True), 0.99, False),
        # Noise in name alone.
        (Rules(most_epsilon=1e300), 1e-12, False),
        (Rules(require_private=True, least_noise=3.0), 2.0, False),
        (Rules(require_private=True), math.nan, False),
        (Rules(), 1e-12, True),
    ],
)
def test_a_site_that_asks_for_noise_says_how_much(rules, noise, enough):
    if enough:
        rules.check_noise(noise)
    else:
        with pytest.raises(ValueError, match=r"^the site asks for more noise than the job brings$"):
            rules.check_noise(noise)
