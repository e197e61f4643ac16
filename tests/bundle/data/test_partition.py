from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundle.data.partition import parse_plan, partition
from bundle.modalities import BRATS_MODALITIES


def item(case: str, modalities=BRATS_MODALITIES) -> dict:
    image = {m: f"{case}_{m}.nii" for m in modalities}
    return {"case": case, "image": image, "label": f"{case}_seg.nii"}


def write(folder: Path, training=5, validation=5, **extra) -> Path:
    path = folder / "full.json"
    datalist = {
        "training": [item(f"a{i}") for i in range(training)],
        "validation": [item(f"v{i}") for i in range(validation)],
        "testing": [item("t0"), item("t1")],
    }
    path.write_text(json.dumps(datalist | extra))
    return path


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_plan_shares_out_evenly_and_loses_nobody(tmp_path):
    out = tmp_path / "out"
    partition(write(tmp_path), out, plan="a:t1+t1ce;b:t2+flair;c:t1+t1ce+t2+flair")
    sites = {name: read(out / f"{name}.json") for name in "abc"}
    sizes = [len(s["training"]) + len(s["validation"]) for s in sites.values()]
    assert (sum(sizes), max(sizes) - min(sizes)) == (10, 1)
    assert {tuple(i["image"]) for i in sites["b"]["training"]} == {("t2", "flair")}
    whole = read(out / "datalist.json")
    assert len(whole["training"]) == len(whole["validation"]) == 5
    assert [i["case"] for i in whole["testing"]] == ["t0", "t1"]
    assert all(s["testing"] == [] for s in sites.values())
    owners = {i["case"]: i["site"] for i in whole["training"]}
    assert owners == {i["case"]: n for n, s in sites.items() for i in s["training"]}


def test_the_seed_decides(tmp_path):
    source = write(tmp_path, 20, 4)

    def cases(seed: int) -> list[str]:
        parts = partition(source, tmp_path / "out", plan="t1;t2", seed=seed)
        return [i["case"] for i in parts["site-1"]["training"]]

    assert cases(0) == cases(0)
    assert cases(0) != cases(1)


def test_a_patient_stays_at_one_site(tmp_path):
    scans = [item(f"BraTS-GLI-{p:05d}-{t:03d}") for p in range(6) for t in range(3)]
    path = tmp_path / "full.json"
    path.write_text(json.dumps({"training": scans}))
    parts = partition(path, tmp_path / "out", plan="t1;t2")
    assert [len(parts[s]["training"]) for s in ("site-1", "site-2")] == [9, 9]


def test_a_case_without_anything_its_site_scans_is_told(tmp_path, capsys):
    path = tmp_path / "full.json"
    path.write_text(json.dumps({"training": [item("a"), item("b"), item("c", ["t1"])]}))
    parts = partition(path, tmp_path / "out", plan="t2", seed=0)
    assert [i["case"] for i in parts["site-1"]["training"]] == ["a", "b"]
    assert "left out: case c (training): has nothing that site-1 scans" in capsys.readouterr().out


def test_a_fets_csv_names_sites_and_modalities(tmp_path, capsys):
    csv = tmp_path / "p.csv"
    rows = ["Partition_ID,Subject_ID,Modalities", "1,a0,t1+flair", "10,a1,", "2,v0,t1"]
    csv.write_text("\ufeff" + "\n".join([*rows, "2,nobody,t1"]), encoding="utf-8")
    parts = partition(write(tmp_path, 3, 1), tmp_path / "out", csv=csv)
    assert list(parts) == ["site-1", "site-2", "site-10", "datalist"]
    assert list(parts["site-1"]["training"][0]["image"]) == ["t1", "flair"]
    assert list(parts["site-10"]["training"][0]["image"]) == list(BRATS_MODALITIES)
    out = capsys.readouterr().out
    assert "left out: case a2 (training): in no partition" in out
    assert "left out: subject nobody: not in the datalist" in out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", r"unknown column 'a'\. Expected Partition_ID and Subject_ID, optionally"),
        ("Partition_ID\n1\n", r"expected the columns .* got \['Partition_ID'\]\. Add Subject_ID"),
        ("Partition_ID,Subject_ID\n1,\n", "line 2: expected values for Partition_ID and Subject"),
        ("Partition_ID,Subject_ID\n1,a0\n2,a0\n", "line 3: subject a0 is already at site-1"),
        ("Partition_ID,Subject_ID,Modalities\n1,a0,adc\n", "unknown modality 'adc'"),
        ("Partition_ID,Subject_ID\n", "expected lines of Partition_ID,Subject_ID, got none"),
        ("Partition_ID,Subject_ID\n1,other\n", "site site-1: no case is left for it"),
    ],
)
def test_a_bad_csv_says_where(tmp_path, text, message):
    csv = tmp_path / "p.csv"
    csv.write_text(text)
    with pytest.raises(ValueError, match=message):
        partition(write(tmp_path), tmp_path / "out", csv=csv)


def test_parse_plan_names_what_has_no_name():
    assert parse_plan("a:t1ce+t1; t2", BRATS_MODALITIES) == {"a": ("t1", "t1ce"), "site-2": ("t2",)}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("", "expected sites such as"),
        ("a:t1;a:t2", "site 'a' is named twice"),
        ("a b:t1", "site name 'a b': expected at most 64 letters"),
        ("a.b:t1", "site name 'a.b': expected at most 64 letters"),
        ("Server:t1", "not 'server' or 'datalist'"),
        ("datalist:t1", "not 'server' or 'datalist'"),
        ("-a:t1", "a letter or digit first"),
        ("a" * 65 + ":t1", "at most 64 letters"),
        ("north:t1;North:t2", "'north' and 'North' differ in upper and lower case alone"),
        ("a:adc", "unknown modality 'adc'"),
        ("a:", "expected modalities joined by"),
    ],
)
def test_a_bad_plan_is_refused(plan, message):
    with pytest.raises(ValueError, match=message):
        parse_plan(plan, BRATS_MODALITIES)


def test_more_sites_than_cases_is_refused(tmp_path):
    with pytest.raises(ValueError, match="site site-3: no case is left for it"):
        partition(write(tmp_path, 1, 1), tmp_path / "out", plan="t1;t2;flair")


def test_notes_are_carried_along(tmp_path):
    parts = partition(write(tmp_path, degraded={"ratio": 0.4}), tmp_path / "out", plan="t1;t2")
    assert parts["site-1"]["degraded"] == {"ratio": 0.4}
    assert read(tmp_path / "out" / "site-1.json")["partitioned"] == {"plan": "t1;t2", "seed": 0}


def test_the_source_is_never_overwritten(tmp_path):
    path = write(tmp_path).rename(tmp_path / "datalist.json")
    with pytest.raises(ValueError, match="is the datalist to share out"):
        partition(path, tmp_path, plan="t1;t2")


def test_one_way_must_be_chosen(tmp_path):
    with pytest.raises(ValueError, match="give either csv or plan"):
        partition(write(tmp_path), tmp_path / "out")
