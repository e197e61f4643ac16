from __future__ import annotations

from bundle.data.plausibility.repeats import repeated_scans


def test_cases_that_share_scans_are_told_within_and_across_sections():
    found = repeated_scans(
        {
            "training": [
                ("a", {"t1": "x", "t2": "y"}),
                ("b", {"t1": "z"}),
                ("c", {"t1": "z"}),
            ],
            "testing": [("d", {"t1": "x", "t2": "y", "flair": "w"})],
        }
    )
    assert [(s.rule, s.case, s.measured, s.where) for s in found] == [
        ("same_scan", "c", 1.0, "training, as case b in training"),
        ("same_scan", "d", 2.0, "testing, as case a in training"),
    ]
    assert str(found[1]).startswith(
        "case d: testing, as case a in training: a scan is that of another case (same_scan: equal "
        "volumes 2, expected at most 0.5). Keep one of the cases"
    )


def test_one_file_twice_in_a_case_is_no_second_case():
    assert repeated_scans({"training": [("a", {"t1": "x", "t2": "x"})]}) == []


def test_cases_that_were_not_read_are_not_compared():
    assert repeated_scans({"training": [("a", {}), ("b", {})]}) == []
