from __future__ import annotations

import csv
import io

import pytest
from federation.protocol.site_text import LONGEST_TEXT, in_cell, in_markdown, one_line, reason_of


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("two\r\nlines\t and \x1b[31mred\x00", "two lines and [31mred"),
        ("\u202egnp.exe\u2028next", "gnp.exe next"),
        ("  =1+1", "'=1+1"),
        ("\t@SUM(A1)", "'@SUM(A1)"),
        ("-2+3", "'-2+3"),
        ("\n+1", "'+1"),
        ("a = b", "a = b"),
        ("", ""),
        (["text"], "(a list instead of a text)"),
        (None, "(a NoneType instead of a text)"),
    ],
)
def test_a_text_becomes_one_line_that_no_spreadsheet_runs(text, line):
    assert one_line(text) == line


@pytest.mark.parametrize("text", ["x" * 301, "x" * 10**7, "\n" * 10**6 + "x", "=" + "x" * 299])
def test_a_long_text_is_cut(text):
    line = one_line(text)
    assert len(line) <= LONGEST_TEXT
    assert line.endswith("...")


def test_a_text_as_long_as_allowed_stays():
    assert one_line("x" * LONGEST_TEXT) == "x" * LONGEST_TEXT


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("'network.n_averaged' holds NaN", "'network.n_averaged' holds NaN"),
        ("[click](http://x)", r"\[click\](http\://x)"),
        ("www.x.org", r"www\.x.org"),
        ("<img src=x> &lt; a|b", r"\<img src=x\> \&lt; a\|b"),
        ("**bold** _it_ `code` ~no~ # 1 $x$ me@x", None),
        ("\n# Title\n- item", r"\# Title - item"),
        ("back\\slash", r"back\\slash"),
    ],
)
def test_markdown_shows_a_text_as_it_is(text, shown):
    if shown is not None:
        assert in_markdown(text) == shown
    # Without its escapes it is the text again.
    unescaped = in_markdown(text).replace("\\\\", "\0").replace("\\", "").replace("\0", "\\")
    assert unescaped == one_line(text)


def test_a_name_stays_one_cell_of_a_table_and_of_a_spreadsheet():
    from bundle.evaluation.tables import markdown

    table = markdown(["round", in_cell("=cmd|' /C calc'!A0\n| a | b")], [["1", "2"]])
    assert len(table.splitlines()) == 3
    assert "'=cmd" in table
    assert table.splitlines()[0].replace("\\|", "").count("|") == 3
    lines = io.StringIO()
    csv.writer(lines).writerow([one_line("=1+1,\n2")])
    assert lines.getvalue() == '"\'=1+1, 2"\r\n'


def test_an_error_without_a_text_has_a_reason():
    class MuteError(Exception):
        def __str__(self):
            raise RuntimeError("no")

    assert reason_of(MuteError()) == "MuteError: without a text"
    assert reason_of(ValueError("expected 1, got 2")) == "expected 1, got 2"
    assert reason_of(KeyError("x")) == "KeyError: 'x'"
