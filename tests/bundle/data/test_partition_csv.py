from __future__ import annotations

import os

import pytest

from bundle.data.partition_csv import read_owners
from bundle.modalities import BRATS_MODALITIES

HEAD = "Partition_ID,Subject_ID"
ALL = tuple(BRATS_MODALITIES)


@pytest.fixture
def owners(tmp_path):
    def read(text: str | bytes):
        path = tmp_path / "sites.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_owners(path, BRATS_MODALITIES)

    return read


@pytest.mark.parametrize("column", ["Modalities", "modalities", "MODALITIES", " Modalities "])
def test_columns_are_known_in_any_letter_case_and_order(owners, column):
    assert owners(f"{column},SUBJECT_ID,partition_id\nt1+flair,a,1\n") == {
        "a": ("site-1", ("t1", "flair"))
    }


@pytest.mark.parametrize(
    ("column", "hint"),
    [
        ("Modality", "Did you mean 'Modalities'?"),
        ("Modalites", "Did you mean 'Modalities'?"),
        ("MRI", "Expected Partition_ID and Subject_ID, optionally Modalities"),
        ("Site", "Rename the column, or take it away"),
    ],
)
def test_an_unknown_column_is_refused_with_the_known_ones(owners, column, hint):
    with pytest.raises(ValueError, match=rf"sites\.csv: unknown column '{column}'") as error:
        owners(f"{HEAD},{column}\n1,a,t1\n")
    assert hint in str(error.value)


def test_notes_and_empty_columns_are_not_read(owners):
    assert owners(f"{HEAD},Comment,,\n1,a,by hand,,\n") == {"a": ("site-1", ALL)}


@pytest.mark.parametrize(
    "content",
    [
        f"{HEAD}\n1,a\n".encode("utf-8-sig"),
        f"{HEAD}\n1,a\n".encode("utf-16"),
        "Partition_ID\tSubject_ID\r\n1\ta\r\n".encode("utf-16"),
        b"Partition_ID;Subject_ID\r\n1;a\r\n",
        b'sep=;\n"Partition_ID";"Subject_ID"\n1;a\n',
        b"\nPartition_ID , Subject_ID\n\n 1 , a \n\n",
    ],
)
def test_what_excel_writes_is_read(owners, content):
    assert owners(content) == {"a": ("site-1", ALL)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{HEAD}\n1,a\n".encode("utf-16-le"), r"sites\.csv: expected text in UTF-8, got bytes"),
        (f"{HEAD}\n1,Müller\n".encode("cp1252"), r"sites\.csv: expected utf-8, got .*Save it"),
        (b"\xff\xfe\x00", r"sites\.csv: expected utf-16, got .*Save it as UTF-8"),
    ],
)
def test_another_encoding_is_refused_with_the_file(owners, content, message):
    with pytest.raises(ValueError, match=message):
        owners(content)


@pytest.mark.parametrize(
    ("one", "other"), [("01", "1"), ("1", "001"), ("site-1", "1"), ("ward02", "ward2")]
)
def test_two_spellings_of_a_site_are_refused(owners, one, other):
    with pytest.raises(ValueError, match=f"'{one}' in line 2 and '{other}' in line 3 may be one"):
        owners(f"{HEAD}\n{one},a\n{other},b\n")


@pytest.mark.parametrize("name", ["server", "SERVER", "a.b", "1.0", "datalist", "ä", "@ALL"])
def test_a_name_that_nvflare_refuses_is_refused_with_its_line(owners, name):
    with pytest.raises(ValueError, match=r"line 2: site name .*expected at most 64 letters"):
        owners(f"{HEAD}\n{name},a\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD}\nA,x\na,y\n", "sites 'A' and 'a' differ in upper and lower case alone"),
        (f"{HEAD},modalities,Modalities\n1,a,t1,t2\n", "the column 'modalities' is there twice"),
        (f"{HEAD},Modalities\n1,a,t1,flair\n", "line 2: expected 3 values, got 4"),
        (f"{HEAD},Modalities\n1,a,t1\n1,a,t2\n", "subject a is already at site-1, with t1"),
    ],
)
def test_what_is_not_certain_is_refused(owners, text, message):
    with pytest.raises(ValueError, match=message):
        owners(text)


@pytest.mark.parametrize(
    ("named", "subset"),
    [
        ("T1", ("t1",)),
        ("t1c+FLAIR", ("t1ce", "flair")),
        ("T2f + t1n", ("t1", "flair")),
        ("T1-Gd+T2w", ("t1ce", "t2")),
    ],
)
def test_modalities_may_be_spelled_as_names_of_files_end(owners, named, subset):
    assert owners(f"{HEAD},Modalities\n1,a,{named}\n") == {"a": ("site-1", subset)}


@pytest.mark.parametrize("named", ["PET", "t1+seg", "t1+other", "+", "t3"])
def test_unknown_modalities_are_refused_with_their_line(owners, named):
    with pytest.raises(ValueError, match=r"sites\.csv, line 2: .*(unknown|expected) modalit"):
        owners(f"{HEAD},Modalities\n1,a,{named}\n")


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_the_index_of_pandas_is_not_read_and_other_columns_without_a_name_are_refused(owners, name):
    assert owners(f"{name},{HEAD}\n0,1,a\n1,1,b\n") == {c: ("site-1", ALL) for c in "ab"}
    for first in ("1", "x", "00"):
        with pytest.raises(ValueError, match=r"column 1 has no name .*with index=False"):
            owners(f"{name},{HEAD}\n{first},1,a\n1,1,b\n")


def test_a_table_that_is_no_file_is_said(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path, tmp_path / "pipe.csv"):
        with pytest.raises(ValueError, match=f"{path} is no file. Expected a table with the col"):
            read_owners(path, BRATS_MODALITIES)
    with pytest.raises(FileNotFoundError, match=r"no\.csv does not exist. Expected a table with"):
        read_owners(tmp_path / "no.csv", BRATS_MODALITIES)
