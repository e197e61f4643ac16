from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from bundle.__main__ import main
from bundle.data.datalist import load_datalist
from bundle.modalities import BRATS_MODALITIES
from bundle.protocols import table
from bundle.protocols.table import PROTOCOLS, find_protocol

from .conftest import identifiers, write_lists, write_scans


def sizes(datalist: dict) -> list[int]:
    return [len(datalist[section]) for section in ("training", "validation", "testing")]


def small(monkeypatch, name: str, **changes: object):
    """Shrink a protocol, so that a folder of its cases is made in no time."""
    protocol = replace(PROTOCOLS[name], **changes)
    monkeypatch.setattr(table, "PROTOCOLS", {name: protocol})
    return protocol


def words(tmp_path, name: str) -> list[str]:
    folders = ["--root", str(tmp_path / "brats"), "--lists", str(tmp_path / "clone")]
    return ["protocol", name, *folders, "--output", str(tmp_path / "datalist.json")]


def lay_out(tmp_path, clone, protocol) -> list[str]:
    write_lists(clone, protocol)
    write_scans(tmp_path / "brats", protocol.release, identifiers(protocol))
    return words(tmp_path, protocol.name)


def test_a_folder_with_the_real_names_becomes_the_published_datalist(tmp_path, clone, capsys):
    assert main(lay_out(tmp_path, clone, PROTOCOLS["hga2020-2468"])) == 0
    out = capsys.readouterr().out
    assert "training      219         9  184   135   43     90" in out
    assert "warning" not in out
    datalist = load_datalist(tmp_path / "datalist.json", BRATS_MODALITIES)
    assert sizes(datalist) == [219, 50, 100]
    kept = [item["image"] for item in datalist["training"]]
    present = [sum(name in image for image in kept) for name in ("flair", "t1ce", "t1", "t2")]
    assert present == [90, 135, 184, 43]
    assert all(len(i["image"]) == 4 for i in datalist["validation"] + datalist["testing"])
    note = datalist["protocol"]
    assert (note["repository"], note["licence"]) == ("Jun-Jie-Shi/HGA", "Apache-2.0")
    assert note["order_of_masks"] == ["flair", "t1ce", "t1", "t2"]
    first = note["lists"][0]
    assert first["file"] == "HGA/datasets/BraTS/brats_split/Brats2020_imb_split_mr2468.csv"
    assert (first["commit"], first["cases"]) == ("f20ef658" * 5, 219)
    assert first["sha256"] == hashlib.sha256((clone / first["file"]).read_bytes()).hexdigest()
    written = json.loads((tmp_path / "datalist.json").read_text())["training"][-1]
    assert sorted(written["image"]) == ["flair", "t1", "t1ce", "t2"]
    assert None in written["image"].values()


def test_a_fold_is_tested_and_the_others_are_trained_on(tmp_path, clone, monkeypatch, capsys):
    protocol = small(monkeypatch, "reliss2021", counts=(11, 0, 0), folds=(3, 2, 2, 2, 2))
    command = lay_out(tmp_path, clone, protocol)
    assert main([*command, "--fold", "0", "--validation", "0.25"]) == 0
    datalist = load_datalist(tmp_path / "datalist.json", BRATS_MODALITIES)
    assert sizes(datalist) == [6, 2, 3]
    assert [i["case"] for i in datalist["testing"]] == [f"BraTS2021_{n:05d}" for n in (1, 2, 3)]
    assert (datalist["protocol"]["fold"], datalist["protocol"]["validation_share"]) == (0, 0.25)
    capsys.readouterr()
    assert main([*command, "--fold", "4"]) == 0
    assert "no validation case: training with validation needs some" in capsys.readouterr().out
    assert main(command) == main([*command, "--fold", "5"]) == 2
    said = "error: fold: reliss2021 needs --fold 0 to 4, got "
    assert capsys.readouterr().err == f"{said}None.\n{said}5.\n"


def test_a_partition_gives_each_case_its_site(tmp_path, clone, monkeypatch):
    protocol = small(monkeypatch, "fets2022-1", counts=(9, 0, 0), sites=3)
    assert main([*lay_out(tmp_path, clone, protocol), "--validation", "0.3"]) == 0
    datalist = load_datalist(tmp_path / "datalist.json", BRATS_MODALITIES)
    assert sizes(datalist) == [6, 3, 0]
    for section in ("training", "validation"):
        assert {i["site"] for i in datalist[section]} == {"site-1", "site-2", "site-3"}


def test_fixed_masks_of_2023_are_those_of_validation_and_testing(tmp_path, clone, monkeypatch):
    # IM-Fuse's volumes are stacked F, T1ce, T1, T2, though its newer template names another order.
    present = {s: {"flair": 1, "t1ce": 2, "t1": 1, "t2": 1} for s in ("validation", "testing")}
    changes = {"present": present, "complete": {"validation": 1, "testing": 0}}
    protocol = small(monkeypatch, "imfuse2023", counts=(3, 2, 3), **changes)
    assert main(lay_out(tmp_path, clone, protocol)) == 0
    datalist = load_datalist(tmp_path / "datalist.json", BRATS_MODALITIES)
    assert [len(i["image"]) for i in datalist["training"]] == [4, 4, 4]
    masked = [list(i["image"]) for i in datalist["validation"] + datalist["testing"]]
    assert masked == [
        *(["t1", "t1ce", "t2", "flair"], ["t1ce"]),
        *(["t1", "flair"], ["t1ce", "t2"], ["t1ce"]),
    ]


def test_missing_cases_stop_it_unless_partial(tmp_path, clone, monkeypatch, capsys):
    protocol = small(monkeypatch, "demoseg2020", counts=(3, 1, 2))
    command = lay_out(tmp_path, clone, protocol)
    gone = tmp_path / "brats" / "BraTS20_Training_002"
    gone.rename(tmp_path / "gone")
    assert main(command) == 2
    assert (
        "1 case of the lists not in the folder, first BraTS20_Training_002."
        in capsys.readouterr().err
    )
    assert not (tmp_path / "datalist.json").exists()
    assert main([*command, "--partial", "true"]) == 0
    assert (
        "partial: 1 case of the lists is not in the datalist, which names it"
        in capsys.readouterr().out
    )
    datalist = load_datalist(tmp_path / "datalist.json", BRATS_MODALITIES)
    assert sizes(datalist) == [2, 1, 2]
    assert datalist["protocol"]["partial"] == {"missing": 1, "cases": ["BraTS20_Training_002"]}


def test_options_that_do_not_fit_are_refused(tmp_path, capsys):
    assert main([*words(tmp_path, "demoseg2020"), "--fold", "1"]) == 2
    assert main([*words(tmp_path, "demoseg2020"), "--validation", "0.1"]) == 2
    assert main([*words(tmp_path, "fets2022-1"), "--validation", "0.6"]) == 2
    assert main(["protocol", "demoseg2020"]) == 2
    fold, validation, share, needed = capsys.readouterr().err.splitlines()
    assert fold.endswith("demoseg2020 has no folds, got 1. Leave --fold out.")
    assert validation.endswith("has 50 validation cases of its own. Leave --validation out.")
    assert share.endswith("validation: expected a share from 0 to 0.5, got 0.6")
    assert "expected --root BRATS, --lists CLONE and --output FILE" in needed


def test_a_name_that_is_none_gets_the_nearest_or_its_group(capsys):
    assert main(["protocol", "hga2021-2468"]) == 2
    assert "no protocol 'hga2021-2468'. Did you mean hga2020-2468?" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"It has 2 lists: hga2018-1379, hga2018-2468. Name one"):
        find_protocol("hga2018")
    with pytest.raises(ValueError, match=r"no protocol 'imfuse'\. Did you mean imfuse2023\?"):
        find_protocol("imfuse")


def test_without_a_name_the_table_is_printed(capsys):
    assert main(["protocol"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *PROTOCOLS]
    (row,) = [line for line in lines if line.startswith("hga2020-2468")]
    for cell in ("219/50/100", "flair,t1ce,t1,t2", "90,135,184,43; 9", "Apache-2.0"):
        assert cell in row
