from __future__ import annotations

import json

import pytest
from federation.server.coverage import Coverage, Share


def report(**changes):
    content = {
        "round": 3,
        "modalities": ("t1", "t2"),
        "accepted": {
            "A": Share({"t1": 1, "t2": 0}, 1, 10, 2**20, 0.5),
            "B": Share({"t1": 3}, 4, 10, 2**19, 0.25),
        },
        "refused": {"X": "'head' holds NaN"},
        "silent": ["Y"],
        "unheld": ["t2"],
        "frozen_keys": ["encoders.1.weight"],
        "frozen_blocks": ["first.weight"],
    }
    return Coverage(**{**content, **changes})


def test_weights_are_shares_of_the_cases_and_empty_where_nobody_has_any():
    assert report().weights() == {
        "shared": {"A": 0.2, "B": 0.8},
        "t1": {"A": 0.25, "B": 0.75},
        "t2": {},
    }


def test_the_line_says_everything():
    assert report().to_markdown() == (
        "- **Round 3**: A (1 cases, 1.00 MiB, norm 0.5), B (4 cases, 0.50 MiB, norm 0.25); "
        "refused X: 'head' holds NaN; no answer from Y; "
        "no holder of t2: 1 tensors and their blocks of 1 others keep their values"
    )


def test_a_round_without_contributions_says_so():
    line = report(accepted={}, refused={"X": "two\nlines"}).to_markdown()
    assert line.startswith(
        "- **Round 3**: nothing was accepted, nothing moved; refused X: two lines"
    )


def test_json_holds_all_of_it_and_the_sums():
    content = json.loads(report().to_json())
    assert content["bytes"] == 2**20 + 2**19
    assert content["weights"]["t1"]["B"] == 0.75
    assert content["accepted"]["A"]["norm"] == 0.5
    assert content["refused"] == {"X": "'head' holds NaN"}
    assert content["frozen_keys"] == ["encoders.1.weight"]


def test_rounds_add_up_in_the_log_and_one_that_is_run_again_replaces_its_line(tmp_path):
    for number in (1, 10, 1):
        report(round=number).save(tmp_path)
    lines = (tmp_path / "coverage.md").read_text(encoding="utf-8").splitlines()
    assert [line.split("**")[1] for line in lines] == ["Round 10", "Round 1"]
    assert sorted(path.name for path in tmp_path.glob("*.json")) == [
        "round_0001.json",
        "round_0010.json",
    ]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match="file"):
        report().save(tmp_path / "file")
