from __future__ import annotations

from pathlib import Path

import pytest

from bundle.evaluation.score_tables import LARGEST_BYTES, Place, read_dice
from bundle.modalities import BRATS_MODALITIES

HEAD = "Fold,Availability_Mask,Available_Modalities,Case,WT_Dice,WT_IoU,WT_HD95,ET_Dice,ET_HD95\n"


def read(path: Path) -> dict[Place, float]:
    return read_dice(path, BRATS_MODALITIES)


def test_a_table_of_reliss_is_read_by_the_names_of_the_scans(tmp_path):
    path = tmp_path / "per_case_metrics.csv"
    path.write_text(
        HEAD
        + "0,1000,FLAIR,BraTS2021_00000,0.9192657839824202,0.85,1,0.5854070954568658,4\n"
        + "0,0110,T1ce+T1,BraTS2021_00000,0.8,0.7,,0,\n"
    )
    assert read(path) == {
        Place("BraTS2021_00000", "flair", "WT"): 0.9192657839824202,
        Place("BraTS2021_00000", "flair", "ET"): 0.5854070954568658,
        Place("BraTS2021_00000", "t1+t1ce", "WT"): 0.8,
        Place("BraTS2021_00000", "t1+t1ce", "ET"): 0.0,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,dice\na,1\n", "expected the columns case, subset, region, dice, or ReLiSS's"),
        (
            HEAD + "0,0001,FLAIR,a,1,1,1,1,1\n",
            "a mask of flair, t1ce, t1, t2 that says 'FLAIR', got",
        ),
        (HEAD + "0,100,FLAIR,a,1,1,1,1,1\n", "that says 'FLAIR', got '100'"),
        (HEAD + "0,1000,FLAIR,a,1.5,1,1,1,1\n", "line 2: expected a Dice from 0 to 1, got '1.5'"),
        (HEAD + "0,1000,FLAIR,a,x,1,1,1,1\n", "line 2: expected a Dice from 0 to 1, got 'x'"),
        (HEAD + "0,1000,FLAIR,a,1,1,1,1,1\n" * 2, "line 3: a, flair, WT is there twice"),
        ("case,subset,region,dice\na,t9,WT,1\n", "line 2: subset 't9': unknown modality 't9'"),
    ],
)
def test_a_table_that_is_none_is_refused(text, message, tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read(path)


def test_an_empty_dice_is_left_out_and_a_large_file_is_refused(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(HEAD + "0,1000,FLAIR,a,,1,1,nan,1\n0,1000,FLAIR,b,1,1,1,,1\n")
    assert read(path) == {Place("b", "flair", "WT"): 1.0}
    with path.open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)
    with pytest.raises(ValueError, match="a table of at most 67108864 bytes, got 67108865"):
        read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="expected text in UTF-8"):
        read(path)
    with pytest.raises(ValueError, match="is no file"):
        read(tmp_path)
