from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bundle.protocols.form import ListFile, Protocol
from bundle.protocols.lists import LARGEST_BYTES, Row, read_list
from bundle.protocols.table import PROTOCOLS, RFNET_ORDER

from .conftest import write_masks

MASKS = ListFile(("masks.csv",), "masks")
# One case keeps F and T1ce, the other T2 alone.
TWO = [("HG_BraTS20_Training_001", (True, True, False, False)), ("p2", (False, False, False, True))]


def protocol_of(**changes: object) -> Protocol:
    return replace(PROTOCOLS["hga2020-2468"], **changes)


def read_masks(tmp_path: Path, rows=TWO, **changes: object) -> list[Row]:
    write_masks(tmp_path / "masks.csv", "data_name", rows)
    return read_list(tmp_path / "masks.csv", MASKS, protocol_of(**changes))


def test_a_mask_is_read_by_the_names_of_the_order(tmp_path):
    first, second = read_masks(tmp_path)
    assert first == Row("BraTS20_Training_001", ("t1ce", "flair"))
    assert second == Row("p2", ("t2",))
    # The other two orders that are in use.
    assert read_masks(tmp_path, order=("t1ce", "t1", "t2", "flair"))[0].kept == ("t1", "t1ce")
    first, second = read_masks(tmp_path, order=("t1", "t1ce", "t2", "flair"))
    assert (first.kept, second.kept) == (("t1", "t1ce"), ("flair",))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ((False,) * 4, r"line 2: case p1: its mask leaves it nothing"),
        ((True,) * 3, r"expected a mask of 4 places, flair, t1ce, t1, t2, got 3"),
    ],
)
def test_a_mask_that_is_none_is_refused(mask, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_masks(tmp_path, [("p1", mask)])


def test_a_mask_is_never_run(tmp_path):
    path = tmp_path / "masks.csv"
    path.write_text("data_name,mask\np1,\"[__import__('os').abort(), True, True, True]\"\n")
    with pytest.raises(ValueError, match=r"line 2: expected a mask such as \[True, False"):
        read_list(path, MASKS, protocol_of())


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\x07b", "..", "p" * 201])
def test_a_name_that_leads_elsewhere_is_refused(name, tmp_path):
    path = tmp_path / "train.txt"
    path.write_text(f"{name}\n")
    with pytest.raises(ValueError, match="expected a case's name of at most 200 bytes"):
        read_list(path, ListFile(("train.txt",)), protocol_of())


def test_a_case_twice_is_refused_also_where_only_the_grade_differs(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("HG_p1\nLG_p1\n")
    with pytest.raises(ValueError, match="1 case named twice, first p1"):
        read_list(path, ListFile(("train.txt",)), protocol_of())
    kept = read_list(path, ListFile(("train.txt",)), protocol_of(keep_grade=True))
    assert [row.case for row in kept] == ["HG_p1", "LG_p1"]


def test_a_list_that_is_too_large_or_no_text_is_refused(tmp_path):
    path = tmp_path / "train.txt"
    with path.open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)
    with pytest.raises(ValueError, match="list of at most 67108864 bytes, got 67108865"):
        read_list(path, ListFile(("train.txt",)), protocol_of())
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="expected text in UTF-8"):
        read_list(path, ListFile(("train.txt",)), protocol_of())
    with pytest.raises(ValueError, match="is no file"):
        read_list(tmp_path, ListFile(("train.txt",)), protocol_of())


def test_a_column_that_is_missing_is_named(tmp_path):
    path = tmp_path / "masks.csv"
    path.write_text("case,mask\np1,[]\n")
    with pytest.raises(ValueError, match="expected the columns data_name, mask, got 'case, mask'"):
        read_list(path, MASKS, protocol_of())


SCORES = "Fold,Availability_Mask,Available_Modalities,Case\n"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        # T1, T1ce, T2, F, which is the order of that network's channels, is not that of its table.
        ("0,0001,FLAIR,a\n", r"the mask 0001 is t2 in the order flair, t1ce, t1, t2, but .* FLAIR"),
        ("0,1000,FLAIR,a\n1,0100,T1ce,a\n", "case a is in fold 0 and in fold 1"),
        ("x,1000,FLAIR,a\n", "expected a whole number as Fold, got 'x'"),
        ("0,1000\n", "line 2: expected 4 values, got fewer"),
    ],
)
def test_a_table_of_scores_must_agree_with_itself(lines, message, tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text(SCORES + lines)
    with pytest.raises(ValueError, match=message):
        read_list(path, ListFile(("scores.csv",), "folds"), protocol_of(order=RFNET_ORDER))
