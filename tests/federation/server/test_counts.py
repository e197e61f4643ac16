from __future__ import annotations

import pytest
from federation.server.counts import Counts, believed, capped_scores, kept_share, shares
from federation.server.trust import Trust


def test_a_claim_is_capped_at_the_median_times_the_factor():
    claimed = {
        "A": Counts(10, {"t1": 10, "t2": 4}),
        "B": Counts(20, {"t1": 20}),
        "X": Counts(10**9, {"t1": 10**9, "flair": 10**9}),
    }
    assert believed(claimed) == {
        "A": claimed["A"],
        "B": claimed["B"],
        # flair has no other holder: X alone moves it, whatever it claims.
        "X": Counts(200, {"t1": 200, "flair": 200}),
    }


def test_of_two_sites_the_lower_one_is_the_median():
    claimed = {"A": Counts(3, {"t1": 3}), "X": Counts(10**9, {"t1": 10**9, "t2": 5})}
    assert believed(claimed)["X"] == Counts(30, {"t1": 30, "t2": 5})
    assert believed(claimed, factor=1)["X"] == Counts(3, {"t1": 3, "t2": 3})


def test_each_modality_has_its_own_median_and_never_more_than_all_cases():
    claimed = {
        "A": Counts(100, {"t1": 100, "flair": 2}),
        "B": Counts(100, {"t1": 100}),
        "C": Counts(100, {"t1": 100, "flair": 90}),
    }
    counts = believed(claimed)
    assert counts["C"] == Counts(100, {"t1": 100, "flair": 20})
    assert all(n <= each.all_cases for each in counts.values() for n in each.cases.values())


def test_one_site_and_ordinary_ones_count_as_they_claim():
    alone = {"A": Counts(10**9, {"t1": 7})}
    assert believed(alone) == alone
    ordinary = {"A": Counts(5, {"t1": 5}), "B": Counts(50, {"t1": 1, "t2": 50})}
    assert believed(ordinary) == ordinary
    huge = {**ordinary, "C": Counts(10**9, {})}
    assert believed(huge, factor=None) == huge
    assert believed({}) == {}


def test_a_list_of_the_coordinator_caps_all_counts():
    claimed = {"A": Counts(300, {"t1": 300, "t2": 10}), "B": Counts(4, {"t1": 4})}
    assert believed(claimed, {"A": 200, "B": 9, "C": 1}) == {
        "A": Counts(200, {"t1": 200, "t2": 10}),
        "B": claimed["B"],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"site_cases": {"A": 0}}, r"site_cases: expected sites and their numbers.*'A: 0'"),
        ({"site_cases": {"A": 2.5}}, r"'A: 2.5'"),
        ({"site_cases": {"A": True}}, r"'A: True'"),
        ({"site_cases": {}}, r"site_cases: expected sites and their numbers of cases from 1"),
        ({"case_factor": 0.5}, "case_factor: expected at least 1, got 0.5"),
        ({"robust": "median"}, r"robust: expected one of \['none', 'clipped', 'trimmed'\], got"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Trust(**arguments)


def test_sums_count_as_the_least_capped_of_their_modalities_does():
    claimed = Counts(100, {"t1": 100, "t2": 50, "flair": 0})
    assert kept_share(claimed, Counts(100, claimed.cases)) == 1.0
    assert kept_share(claimed, Counts(50, {"t1": 50, "t2": 5, "flair": 0})) == 0.1
    assert kept_share(claimed, Counts(20, {"t1": 20, "t2": 20, "flair": 0})) == 0.2


def test_of_sizes_that_no_list_knows_the_lower_median_times_the_factor_counts():
    assert shares({"A": 2, "B": 4, "X": 10**9}, 10.0) == {"A": 1.0, "B": 1.0, "X": 4e-8}
    assert shares({"A": 2, "X": 80.0}, 10.0) == {"A": 1.0, "X": 0.25}
    assert shares({"A": 2, "X": 10**9}, None) == {"A": 1.0, "X": 1.0}
    assert shares({"A": 0.0}, 10.0) == {"A": 1.0}
    assert shares({}, 10.0) == {}


def test_capped_scores_keep_their_means_and_no_site_outweighs_ten_others():
    scores = {
        "A": {"t1": {"WT": [1.0, 2]}, "t2": {"WT": [0.5, 1]}},
        "B": {"t1": {"WT": [3.0, 4]}},
        "X": {"t1": {"WT": [1e9, 10**9]}, "t2": {"WT": [4.0, 5]}},
    }
    capped = capped_scores(scores, 10.0)
    assert capped[:2] == [scores["A"], scores["B"]]
    assert capped[2] == {"t1": {"WT": [40.0, 40.0]}, "t2": {"WT": [4.0, 5]}}
    assert capped_scores(scores, None) == list(scores.values())
