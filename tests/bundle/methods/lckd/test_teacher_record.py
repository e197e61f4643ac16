from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from matplotlib.colors import to_hex

from bundle.methods.lckd import teacher_record
from bundle.methods.lckd.teacher_record import Candidate, TeacherRecord, draw_teachers

MODALITIES, REGIONS = ("t1", "t1ce", "flair"), ("TC", "WT")
SCORES = torch.tensor([[0.25, 0.5], [0.75, 0.5], [0.5, 0.875]])
COUNTS = torch.tensor([[4.0, 4.0], [3.0, 3.0], [4.0, 0.0]])


@pytest.fixture
def record(tmp_path: Path) -> TeacherRecord:
    return TeacherRecord(str(tmp_path / "out"), MODALITIES, REGIONS)


@pytest.fixture
def undrawn(monkeypatch):
    """For tests of the table alone: the picture is an empty file."""

    class Nothing:
        def savefig(self, file, **options):
            file.write(b"")

    monkeypatch.setattr(teacher_record, "draw_teachers", lambda rows, modalities: Nothing())


def held(record: TeacherRecord, *epochs: int) -> None:
    for epoch in epochs:
        record.add(epoch, SCORES, COUNTS, torch.tensor([1, -1]))


def test_every_candidate_of_every_region_is_kept(record, undrawn):
    held(record, 11)
    rows = record.rows()
    assert [(row.region, row.modality) for row in rows] == [
        (region, modality) for region in REGIONS for modality in MODALITIES
    ]
    assert rows[1] == Candidate(11, "TC", "t1ce", 3, 0.75, True)
    assert rows[5] == Candidate(11, "WT", "flair", 0, None, False)
    assert [row.modality for row in rows if row.teacher] == ["t1ce"]


def test_an_election_takes_the_place_of_later_ones(record, undrawn):
    held(record, 11, 21, 31)
    record.add(21, SCORES, COUNTS, torch.tensor([0, 0]))
    rows = record.rows()
    assert sorted({row.epoch for row in rows}) == [11, 21]
    assert [row.modality for row in rows if row.teacher and row.epoch == 21] == ["t1", "t1"]


def test_forgetting_removes_table_rows_and_in_the_end_the_picture(record, undrawn):
    record.forget_from(1)
    assert not record.table.exists()
    held(record, 11, 21)
    before = record.table.read_text()
    record.forget_from(22)
    assert record.table.read_text() == before
    record.forget_from(21)
    assert {row.epoch for row in record.rows()} == {11}
    assert record.picture.exists()
    record.forget_from(1)
    assert record.rows() == []
    assert not record.picture.exists()


def test_another_instance_goes_on_where_one_stopped(record, undrawn):
    held(record, 11)
    again = TeacherRecord(str(record.table.parent), MODALITIES, REGIONS)
    held(again, 21)
    assert sorted({row.epoch for row in record.rows()}) == [11, 21]


@pytest.mark.parametrize("text", ["case,dice\na,1\n", "epoch,region\nx,TC\n"])
def test_another_table_in_its_place_is_refused(record, text):
    record.table.parent.mkdir()
    record.table.write_text(text)
    with pytest.raises(ValueError, match=r"elections\.csv is no table of elections"):
        held(record, 11)


def test_curves_are_per_cent_and_bars_have_the_teachers_colour_to_the_next_election(record):
    held(record, 11)
    record.add(21, SCORES, COUNTS, torch.tensor([2, 0]))
    upper, lower = draw_teachers(record.rows(), MODALITIES).axes
    assert [axes.get_title("left") for axes in (upper, lower)] == ["TC", "WT"]
    lines = {to_hex(line.get_color()): line for line in upper.get_lines()}
    colours = list(lines)
    assert len(colours) == 3
    assert lines[colours[1]].get_xydata().tolist() == [[11, 75], [21, 75]]
    bars = [
        (to_hex(bar.get_facecolor()[0]), *sorted({x for x, _ in bar.get_paths()[0].vertices}))
        for bar in upper.collections
    ]
    assert bars == [(colours[1].lower(), 11, 21), (colours[2].lower(), 21, 31)]
    # Of the whole tumour nobody teaches at first, and FLAIR was never scored.
    assert len(lower.collections) == 1
    assert len(lower.get_lines()[2].get_xydata()) == 0


def test_one_election_and_one_region_can_be_drawn(tmp_path):
    record = TeacherRecord(str(tmp_path), MODALITIES, ["TC"])
    record.add(2, SCORES[:, :1], COUNTS[:, :1], torch.tensor([1]))
    assert record.picture.read_bytes().startswith(b"\x89PNG")


def test_pyplot_is_left_alone(record):
    before = sys.modules.get("matplotlib.pyplot")
    figures = before.get_fignums() if before else None
    held(record, 11)
    after = sys.modules.get("matplotlib.pyplot")
    assert (after.get_fignums() if after else None) == figures
