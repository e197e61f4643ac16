from __future__ import annotations

import time

from federation.protocol.scoring import standing
from federation.server.round_log import ROUNDS, VALIDATIONS, RoundLog, read_log


def test_a_round_is_one_line_with_who_and_why_not(tmp_path, contribute):
    log = RoundLog(tmp_path, ["t1", "t2", "flair"])
    given = {"A": contribute("A", wire_bytes=77)}
    facts = {"A": {"seconds": 1.5}, "B": {"seconds": 2}}
    log.note_round(0, 1, False, time.monotonic(), facts, {}, {"B": "NaN"})
    log.note_round(0, 2, True, time.monotonic() - 2, facts, given, {})
    first, second = read_log(tmp_path / ROUNDS)
    assert (first["round"], first["attempt"], first["committed"]) == (0, 1, False)
    assert first["refused"] == {"B": "NaN"}
    assert second["sites"] == {"A": {"seconds": 1.5, "bytes": 77}}
    assert second["seconds"] >= 2


def test_a_validation_leaves_numbers_and_tables(tmp_path):
    log = RoundLog(tmp_path, ["t1", "t2"])
    scores = {"a": {"t1": {"WT": [0.5, 1]}}, "b": {"t2": {"WT": [1.6, 2]}}, "c": {}}
    log.note_validation(3, scores, standing(scores), {"d": "it has another bundle"})
    (entry,) = read_log(tmp_path / VALIDATIONS)
    assert entry["refused"] == {"d": "it has another bundle"}
    assert (entry["rounds"], entry["worst_site"]) == (3, "a")
    text = (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert text.startswith("# Dice after 3 rounds")
    assert "## a\n" in text
    assert "## c" not in text
    assert text.endswith("- no scores from d: it has another bundle")
    together = text[text.index("all sites together") :]
    assert "50.0" in together
    assert "80.0" in together


def test_a_site_that_claims_many_held_out_cases_does_not_decide_the_table_of_all(tmp_path):
    honest = {"t1": {"WT": [1.0, 2]}}
    scores = {"a": honest, "b": honest, "liar": {"t1": {"WT": [1e9, 10**9]}}}
    for factor, told in ((10.0, "91.7"), (None, "100.0")):
        log = RoundLog(tmp_path, ["t1", "t2"], factor)
        log.note_validation(1, scores, standing(scores), {})
        text = (tmp_path / "tables.md").read_text(encoding="utf-8")
        assert told in text[text.index("all sites together") :]
    assert read_log(tmp_path / VALIDATIONS)[0]["dice"] == scores


def test_no_log_is_empty(tmp_path):
    assert read_log(tmp_path / "none") == []
