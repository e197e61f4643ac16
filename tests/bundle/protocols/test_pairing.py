from __future__ import annotations

from pathlib import Path

import pytest

from bundle.modalities import BRATS_MODALITIES
from bundle.protocols.form import RELEASES
from bundle.protocols.lists import Row
from bundle.protocols.pairing import (
    check_release,
    move_validation,
    pair,
    refuse_missing,
    refuse_shared_patients,
    release_of,
)
from bundle.protocols.table import PROTOCOLS

from .conftest import IDENTIFIERS

HGA = PROTOCOLS["hga2020-2468"]
ROOT = Path("/data/brats")


def item(case: str, modalities=BRATS_MODALITIES, label: bool = True) -> dict:
    image = {m: f"/data/{case}_{m}.nii" for m in modalities}
    return {"case": case, "image": image} | ({"label": f"/data/{case}_seg.nii"} if label else {})


def test_what_a_mask_withholds_is_null_and_the_rest_keeps_its_file():
    rows = {"training": [Row("a", ("t1", "flair"), site="site-2")], "testing": [Row("b")]}
    paired = pair(rows, [item("a"), item("b"), item("c")])
    (first,) = paired.sections["training"]
    assert first["image"] == {
        "t1": "/data/a_t1.nii",
        "t1ce": None,
        "t2": None,
        "flair": "/data/a_flair.nii",
    }
    assert (first["label"], first["site"]) == ("/data/a_seg.nii", "site-2")
    assert paired.sections["testing"] == [item("b")]
    assert (paired.unused, paired.unknown, paired.incomplete) == (1, [], {})


def test_cases_and_files_that_are_not_there_are_named_and_counted():
    rows = {"training": [Row(case) for case in "abcde"] + [Row("f", ("t1",))]}
    items = [item("a", ("t1", "t2")), item("b", label=False), item("f", ("t1",)), item("c")]
    paired = pair(rows, items)
    assert [i["case"] for i in paired.sections["training"]] == ["c", "f"]
    assert paired.unknown == ["d", "e"]
    with pytest.raises(
        ValueError, match="2 cases of the lists not in the folder, first d, e"
    ) as no:
        refuse_missing(paired, HGA, ROOT)
    said = "2 cases without all files, first: case a: no file of t1ce, flair; case b: no file of "
    assert f"{said}label. Give the whole folder of BraTS 2020, or go on" in str(no.value)
    with pytest.raises(ValueError, match=r"In the folder, case d: two files\. Give the whole"):
        refuse_missing(paired, HGA, ROOT, ["case d: two files."])
    refuse_missing(pair({"training": [Row("c")]}, items), HGA, ROOT)


def test_a_folder_of_another_release_is_recognised():
    rows = {"training": [Row("Brats18_2013_0_1")], "testing": [Row("Brats18_X_1")]}
    with pytest.raises(ValueError, match="none of its 2 cases is under /data/brats") as refused:
        check_release(rows, [item("BraTS20_Training_001")], PROTOCOLS["demoseg2018-1"], ROOT)
    assert (
        "The list is of BraTS 2018, such as Brats18_2013_0_1; the folder holds BraTS 2020, such as"
        in str(refused.value)
    )
    check_release(rows, [item("Brats18_X_1"), item("BraTS20_1")], HGA, ROOT)


def test_every_release_is_told_by_its_names():
    assert {p.release for p in PROTOCOLS.values()} <= set(RELEASES)
    for release, pattern in IDENTIFIERS.items():
        assert release_of([pattern.format(number=7).replace("HG_BraTS20", "BraTS20")]) == release
    assert release_of(["site1/BraTS2021_00001", "p01"]) == "BraTS 2021"
    assert release_of(["p01"]) == "no known release"


def test_validation_comes_from_each_site_and_keeps_a_patient_together():
    rows = [Row(f"p{n}", site="big") for n in range(20)]
    rows += [Row(f"q{n}", site="small") for n in range(2)] + [Row("alone", site="one")]
    rows += [Row(f"BraTS-GLI-00001-00{n}", site="scans") for n in range(2)]
    rows += [Row("BraTS-GLI-00002-000", site="scans")]

    def moved(order: list[Row]) -> list[str]:
        paired = pair({"training": order}, [item(row.case) for row in order])
        move_validation(paired, 0.2)
        refuse_shared_patients(paired, HGA)
        cases = [i["case"] for s in ("training", "validation") for i in paired.sections[s]]
        assert sorted(cases) == sorted(row.case for row in rows)
        return sorted(i["case"] for i in paired.sections["validation"])

    first = moved(rows)
    assert sum(case.startswith("p") for case in first) == 4
    assert sum(case.startswith("q") for case in first) == 1
    assert "alone" not in first
    assert first == moved(rows[::-1])


def test_a_patient_in_two_sections_is_refused():
    rows = {"training": [Row("BraTS-GLI-00008-000")], "testing": [Row("BraTS-GLI-00008-001")]}
    paired = pair(rows, [item("BraTS-GLI-00008-000"), item("BraTS-GLI-00008-001")])
    with pytest.raises(
        ValueError, match="1 patient in two sections, first: patient BraTS-GLI-00008"
    ):
        refuse_shared_patients(paired, HGA)
