from __future__ import annotations

import math
from pathlib import Path

import pytest
from ignite.engine import Engine

from bundle.__main__ import main
from bundle.evaluation.metrics import Score
from bundle.evaluation.reference import (
    ReferenceHandler,
    check_cases,
    comparison,
    pair,
)
from bundle.evaluation.score_tables import Place, read_dice
from bundle.evaluation.tables import write_csv
from bundle.modalities import BRATS_MODALITIES, all_subsets, subset_name

HEAD = "Fold,Availability_Mask,Available_Modalities,Case,WT_Dice,WT_IoU,WT_HD95,ET_Dice,ET_HD95\n"
# In the table's order F, T1ce, T1, T2.
NAMES = {"flair": "FLAIR", "t1ce": "T1ce", "t1": "T1", "t2": "T2"}
SUBSETS = [subset_name(subset, BRATS_MODALITIES) for subset in all_subsets(BRATS_MODALITIES)]


def reliss_line(case: str, subset: str, whole: float, enhancing: float) -> str:
    given = [m for m in NAMES if m in subset.split("+")]
    mask = "".join(str(int(m in given)) for m in NAMES)
    names = "+".join(NAMES[m] for m in given)
    return f"0,{mask},{names},{case},{whole},0.1,3.2,{enhancing},\n"


def write_reliss(path: Path, cases=("a", "b", "c"), offset: float = 0.0) -> Path:
    """Dice 0.5 in WT and 0.1 per scan in ET, and `offset` less in both."""
    lines = [
        reliss_line(case, subset, 0.5 - offset, 0.1 * (subset.count("+") + 1) - offset)
        for case in cases
        for subset in SUBSETS
    ]
    path.write_text(HEAD + "".join(lines))
    return path


def own_rows(cases=("a", "b"), subsets=SUBSETS) -> list[Score]:
    """Those of `write_reliss` and 0.02 for case a, 0.06 for case b."""
    return [
        Score(case, subset, region, dice + (0.06 if case == "b" else 0.02), math.nan)
        for case in cases
        for subset in subsets
        for region, dice in (("WT", 0.5), ("ET", 0.1 * (subset.count("+") + 1)))
    ]


def read(path: Path) -> dict[Place, float]:
    return read_dice(path, BRATS_MODALITIES)


def test_differences_are_paired_case_by_case(tmp_path):
    reference = read(write_reliss(tmp_path / "r.csv"))
    own = {Place(r.case, r.subset, r.region): r.dice for r in own_rows()}
    rows = {(row.region, row.scans): row for row in pair(own, reference)}
    assert list(rows) == [(r, n) for r in ("WT", "ET", "mean") for n in (1, 2, 3, 4, 0)]
    for row in rows.values():
        assert row.own - row.reference == pytest.approx(0.04)
        # Two cases: a resample holds the one, the other or both.
        assert (row.low, row.high) == pytest.approx((0.02, 0.06))
        assert row.cases == 2
    assert rows["ET", 3].reference == pytest.approx(0.3)
    assert rows["WT", 3].own == pytest.approx(0.54)
    assert rows["mean", 4].own == pytest.approx((0.54 + 0.44) / 2)
    # Four subsets of one scan, six of two, four of three and one of all.
    assert rows["ET", 0].reference == pytest.approx((0.4 + 1.2 + 1.2 + 0.4) / 15)


def test_only_scores_that_both_have_are_paired(tmp_path):
    reference = read(write_reliss(tmp_path / "r.csv", offset=0.1))
    del reference[Place("a", "t1", "ET")]
    own = {Place(r.case, r.subset, r.region): r.dice for r in own_rows(subsets=["t1", "t2"])}
    rows = {(row.region, row.scans): row for row in pair(own, reference)}
    assert {scans for _, scans in rows} == {1, 0}
    assert all(row.own - row.reference == pytest.approx(0.14) for row in rows.values())
    text = comparison(own, reference, BRATS_MODALITIES, "r.csv")
    assert "Paired with r.csv: 2 of its 3 cases, 7 scores." in text
    assert "Scores that only one of them has: 1 here, 52 there." in text
    assert "HD95 is not compared" in text


def test_the_verb_prints_and_writes_the_difference(tmp_path, capsys):
    write_csv(own_rows(), tmp_path / "scores.csv")
    reference = write_reliss(tmp_path / "per_case_metrics.csv")
    words = ["compare", str(tmp_path / "scores.csv"), "--reference", str(reference)]
    assert main([*words, "--output", str(tmp_path / "out.md")]) == 0
    out = capsys.readouterr().out
    assert out == (tmp_path / "out.md").read_text()
    row = next(line for line in out.splitlines() if line.startswith("| ET") and "1 to 4" in line)
    assert [cell.strip() for cell in row.split("|")[3:8]] == [
        *("25.3", "21.3", "+4.0", "+2.0 to +6.0", "2"),
    ]
    # A scores.csv may be the reference too.
    assert main(["compare", str(tmp_path / "scores.csv"), str(tmp_path / "scores.csv")]) == 0
    assert "+0.0 to +0.0" in capsys.readouterr().out


def test_cases_that_do_not_match_are_counted_and_the_first_is_named(tmp_path, capsys):
    write_csv(own_rows(cases=("a", "z", "y")), tmp_path / "scores.csv")
    reference = write_reliss(tmp_path / "r.csv")
    assert main(["compare", str(tmp_path / "scores.csv"), str(reference)]) == 2
    said = capsys.readouterr().err
    assert (
        "r.csv: expected scores of the same cases, got none of 2 of 3 cases, first y. The ref"
        in said
    )
    with pytest.raises(ValueError, match="got none of 1 of 1 cases, first q"):
        check_cases(["q"], {}, "r.csv")


def test_tables_without_a_subset_in_common_are_refused(tmp_path):
    reference = {Place("a", "t1", "WT"): 0.5}
    with pytest.raises(ValueError, match="no score in common: no subset or no region is in both"):
        comparison({Place("a", "t2", "WT"): 0.5}, reference, BRATS_MODALITIES, "r.csv")


class Scored:
    """Stands for the metric of an evaluation that has ended."""

    rows = own_rows()


def test_the_handler_refuses_before_and_writes_after_the_evaluation(tmp_path, capsys):
    reference = write_reliss(tmp_path / "r.csv")
    with pytest.raises(ValueError, match="got none of 1 of 2 cases, first other"):
        ReferenceHandler(reference, ["a", "other"], tmp_path, BRATS_MODALITIES, Scored())
    engine = Engine(lambda engine, batch: None)
    handler = ReferenceHandler(reference, ["a", "b"], tmp_path, BRATS_MODALITIES, Scored())
    handler.attach(engine)
    assert not (tmp_path / "reference.md").exists()
    engine.run([0])
    text = (tmp_path / "reference.md").read_text()
    assert "Paired with r.csv: 2 of its 3 cases, 60 scores." in text
    assert text in capsys.readouterr().out
