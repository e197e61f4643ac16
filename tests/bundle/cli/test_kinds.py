from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest

from bundle.cli.kinds import Names, Numbers, PathText, Table, convert

# Words that a Python expression is read into, or that a shell's or YAML's comment ends.
ODD_WORDS = [
    "2024_01_15",
    "1e5",
    "0x10",
    "007",
    "None",
    "null",
    "True",
    "[a]",
    "{a}",
    "(a)",
    "a,b",
    "runs#1",
    "#",
    " a b ",
    '"a"',
    "'a'",
    "-1",
    "b'x'",
    "...",
    "ä",
    "P\udce4t",
]


@pytest.mark.parametrize("word", ODD_WORDS)
@pytest.mark.parametrize("kind", [str, str | None, PathText, PathText | None, Any])
def test_a_text_stays_as_it_is(word, kind):
    assert convert(word, kind, "output") == word


def test_a_home_is_put_in_the_place_of_its_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/ann")
    assert convert("~/runs", PathText | None, "output") == "/ann/runs"
    assert convert("~", PathText, "output") == "/ann"
    assert convert("~/a,~/b#1", tuple[PathText, ...], "x") == ("/ann/a", "/ann/b#1")
    assert convert("runs/~x", PathText, "output") == "runs/~x"
    assert convert("http://a/~x", PathText, "studies") == "http://a/~x"
    assert convert("~/runs", str, "label") == "~/runs"


def test_no_path_at_all_is_refused():
    with pytest.raises(ValueError, match=r"^output: expected a path, got an empty word\.$"):
        convert("", PathText, "output")


@pytest.mark.parametrize(
    ("word", "kind", "value"),
    [
        ("7", int, 7),
        ("-3", int | None, -3),
        ("007", int, 7),
        ("1e-6", float, 1e-6),
        ("2", float | None, 2.0),
        ("0.7, .1,0.2", Numbers, (0.7, 0.1, 0.2)),
        ("2", tuple[int, ...], (2,)),
        ("t1,t1ce", Names, ("t1", "t1ce")),
        ("[t1, 't1ce']", Names, ("t1", "t1ce")),
        ('("2024_01",1e5,)', Names, ("2024_01", "1e5")),
        ("a", Names | None, ("a",)),
        ("null", Names | None, None),
        ("null", int | None, None),
        ("20", str | int, 20),
        ("2_0", str | int, "2_0"),
        ("{a: 1}", Table | str, {"a": 1}),
        ("a=1", Table | str, "a=1"),
        ("{training: 2}", tuple[int, ...] | Table, {"training": 2}),
    ],
)
def test_a_word_becomes_what_the_annotation_asks_for(word, kind, value):
    found = convert(word, kind, "x")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("word", "value"),
    [("true", True), ("False", False), ("no", False), ("YES", True), ("0", False)],
)
def test_a_switch_is_read_from_words(word, value):
    assert convert(word, bool, "strict") is value
    assert convert(word, bool | None, "strict") is value


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("{TC: [1, 4], WT: [1, 2]}", {"TC": [1, 4], "WT": [1, 2]}),
        ("{TC:[1,4],WT:[1,2]}", {"TC": [1, 4], "WT": [1, 2]}),
        ("{3:4}", {3: 4}),
        ("{}", {}),
        ('{"a":"b:c"}', {"a": "b:c"}),
        ("{site-1: 200, b.c: 3}", {"site-1": 200, "b.c": 3}),
        ("{'a': {3:4}}", {"a": {3: 4}}),
        ("{a: http://b/c, b: x::y}", {"a": "http://b/c", "b": "x::y"}),
        ("{rate: 1e-3, steps: {first: -2E5}}", {"rate": 1e-3, "steps": {"first": -2e5}}),
        ("{'a': None, 'b': True, c: null, 'd': [1, None]}",
         {"a": None, "b": True, "c": None, "d": [1, None]}),
        ("{train#trainer#max_epochs: 2}", {"train#trainer#max_epochs": 2}),
    ],
)  # fmt: skip
def test_a_table_is_yaml_with_or_without_a_space_after_a_colon(word, value):
    assert convert(word, Table, "settings") == value
    assert convert(word, Mapping[str, int] | None, "settings") == value


@pytest.mark.parametrize(
    ("word", "kind", "message"),
    [
        ("2024_01_15", int, "seed: expected a whole number, got '2024_01_15'."),
        ("1.0", int, "seed: expected a whole number, got '1.0'."),
        ("", int, "seed: expected a whole number, got ''."),
        ("1_0", float, "seed: expected a number, got '1_0'."),
        ("nan", float, "seed: expected a number, got 'nan'."),
        ("None", float | None, "seed: expected a number, got 'None'."),
        ("1,x", Numbers, "seed: expected a number, got 'x'."),
        ("maybe", bool, "seed: expected true or false, got 'maybe'."),
        ("a", Table, "seed: expected names and values such as '{a: 1, b: 2}', got 'a'."),
        ("{a", Table, "seed: expected names and values such as '{a: 1, b: 2}', got '{a'."),
        ("{a}", Table, "seed: expected names and values such as '{a: 1, b: 2}', got '{a}'."),
        (
            "{a: (1, 2)}",
            Table,
            "seed: expected names and values such as '{a: 1, b: 2}', got '{a: (1, 2)}'.",
        ),
        (
            "{b: {a}}",
            Table,
            "seed: expected names and values such as '{a: 1, b: 2}', got '{b: {a}}'.",
        ),
        ("[1]", Table, "seed: expected names and values such as '{a: 1, b: 2}', got '[1]'."),
    ],
)
def test_a_word_of_another_kind_is_refused(word, kind, message):
    with pytest.raises(ValueError, match="seed: expected") as caught:
        convert(word, kind, "seed")
    assert str(caught.value) == message


def test_a_table_runs_nothing(tmp_path):
    text = f"{{a: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']}}"
    with pytest.raises(ValueError, match="expected names and values"):
        convert(text, Table, "settings")
    assert os.listdir(tmp_path) == []
