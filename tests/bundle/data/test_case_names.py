from __future__ import annotations

import os

import pytest

from bundle.data.case_names import check_case_name, is_name


@pytest.mark.parametrize(
    "case", ["p01", "site1/p01", "Pät 1", os.fsdecode(b"P\xe4t_1"), "..p", "a.b", "\u4e2d" * 66]
)
def test_names_that_a_file_may_have_pass(case):
    check_case_name(case, "here")


@pytest.mark.parametrize(
    "case",
    [
        "a\x00b",
        "a\tb",
        "a\u2028b",
        "~/../p",
        "\\\\host\\p",
        "a//b",
        " ",
        "\u4e2d" * 67,
        "\ud800",
        "a" * 201,
    ],
)
def test_names_that_lead_elsewhere_or_hide_something_are_refused(case):
    with pytest.raises(ValueError, match="here: expected a case's name of at most 200 bytes"):
        check_case_name(case, "here")


def test_a_text_or_a_whole_number_is_a_name():
    assert [is_name(value) for value in ("a", 0, -1, False, "", " ", None, 0.0, [])] == [
        *(True, True, True),
        *(False, False, False, False, False, False),
    ]
