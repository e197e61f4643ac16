from __future__ import annotations

import pytest

from bundle.cli.kinds import Names, PathText
from bundle.cli.words import read_words


def scan(
    root: PathText,
    output: PathText | None = None,
    strict: bool = False,
    spacing_mm: float = 1.0,
    names: Names = (),
    keep: bool = True,
    *,
    suffixes: str | None = None,
    **settings: object,
) -> None:
    """Have parameters of several kinds."""


OTHERS = {"least_cases": int, "amp": bool | None}


def read(*words: str) -> dict[str, object]:
    return read_words(scan, words, OTHERS)


@pytest.mark.parametrize("word", ["2024_01_15", "a#b", "None", "-1", "a,b", "1e5", "[x]", "", "no"])
def test_a_word_is_the_same_by_place_and_by_name(word):
    by_name = [["d", "--output", word], ["d", f"--output={word}"], ["--root=d", "-o", word]]
    if word:
        for words in (["d", word], *by_name):
            assert read(*words) == {"root": "d", "output": word}
    else:
        with pytest.raises(ValueError, match="output: expected a path"):
            read("d", "--output", word)


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--strict"], True),
        (["--strict", "true"], True),
        (["--strict", "false"], False),
        (["--strict", "False"], False),
        (["--strict=no"], False),
        (["--strict=1"], True),
        (["--no-strict"], False),
        (["--no_strict"], False),
        (["--nostrict"], False),
        (["-k", "0"], False),
    ],
)  # fmt: skip
def test_a_switch_is_given_in_every_way(words, value):
    name = "keep" if words[0] == "-k" else "strict"
    assert read("d", *words) == {"root": "d", name: value}
    assert read(*words, "d") == {"root": "d", name: value}


def test_a_name_is_written_with_hyphens_or_underscores():
    for option in ("--spacing_mm", "--spacing-mm"):
        assert (
            read("d", option, "2") == read("d", f"{option}=2") == {"root": "d", "spacing_mm": 2.0}
        )
    for option in ("--least_cases", "--least-cases"):
        assert read("d", option, "-2") == {"root": "d", "least_cases": -2}
    assert read("d", "--no-amp") == read("d", "--amp", "false") == {"root": "d", "amp": False}


def test_what_follows_a_star_has_no_place_only_a_name():
    word = "flair=fla,fla_bet;other=adc#1"
    for words in (["--suffixes", word], [f"--suffixes={word}"]):
        assert read("d", *words) == {"root": "d", "suffixes": word}


def test_after_two_hyphens_every_word_is_a_value():
    assert read("--strict", "--", "--root", "--help") == {
        "strict": True,
        "root": "--root",
        "output": "--help",
    }


def test_places_that_a_name_has_taken_are_passed_over():
    assert read("--root", "d", "o") == {"root": "d", "output": "o"}
    assert read("o", "--root=d", "yes") == {"root": "d", "output": "o", "strict": True}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["d", "--strict", "flase"], "--strict: expected true or false, got 'flase'."),
        (["--strict", "flase", "--root", "d"], "--strict: expected true or false, got 'flase'."),
        (["d", "--no-strict", "x"], "--strict: expected true or false, got 'x'."),
        (["d", "--no-strict=x"], "--no-strict takes no value. Write --strict=x."),
        (["d", "--output"], "no value for --output."),
        (["d", "--output", "--strict"],
         "no value for --output. A value that begins with - is written --output=-x."),
        (["d", "--names", "a", "--names=b"], "--names is given twice."),
        (["d", "--strict", "--no-strict"], "--strict is given twice."),
        (["d", "--outptu", "x"], "no option --outptu. Did you mean --output?"),
        (["d", "--least_case", "x"], "no option --least_case. Did you mean --least_cases?"),
        (["d", "--nooutput"], "no option --nooutput. Did you mean --output?"),
        (["d", "-z"], "no option -z. Expected one of --root, --output, --strict, --spacing_mm, "
         "--names, --keep, --suffixes, --least_cases, --amp."),
        (["--strict"], "no value for ROOT."),
        ([], "no value for ROOT."),
        (["d", "--suffixes"], "no value for --suffixes."),
        (["d", "o", "true", "1", "a", "no", "x"], "one value too many, 'x'."),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(words, message):
    with pytest.raises(ValueError, match=r"\.$|\?$") as caught:
        read(*words)
    assert str(caught.value) == message


def test_a_switch_before_a_value_that_must_be_given_takes_none_away():
    assert read("--strict", "d") == {"root": "d", "strict": True}
    assert read("--strict", "d", "o") == {"root": "d", "output": "o", "strict": True}
