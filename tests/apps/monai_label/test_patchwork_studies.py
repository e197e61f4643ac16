from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bundle.data.case_files import find_files
from bundle.data.filenames import file_endings
from bundle.modalities import BRATS_MODALITIES


@pytest.fixture
def show(app_code, tmp_path):
    """Give show(): tmp_path/studies as the server and its background processes open it."""

    def open_folder():
        endings = file_endings(BRATS_MODALITIES)
        return app_code.Studies(str(tmp_path / "studies"), BRATS_MODALITIES, endings)

    return open_folder


@contextmanager
def refusal(status: int, text: str) -> Iterator[Any]:
    """What the server answers with: a status and a text."""
    from fastapi import HTTPException

    with pytest.raises(HTTPException) as caught:
        yield caught
    assert caught.value.status_code == status
    assert text in caught.value.detail


def test_what_is_no_image_is_left_out_and_named(show, write_scan, write_label, tmp_path, caplog):
    for name in ("p01_t1.nii.gz", "BraTS-GLI-00000-000-t2f.nii"):
        write_scan(name)
    for name in ("._p01_t1.nii.gz", ".hidden_flair.nii", "aa_seg.nii.gz", "p01_segm.nii"):
        write_label(f"studies/{name}")
    write_label("studies/p01_uncertainty.nii.gz")
    (tmp_path / "studies" / "p01_t2.png").touch()
    (tmp_path / "studies" / "folder_t1.nii.gz").mkdir()
    studies = show()
    assert set(studies.list_images()) == {"p01_t1", "BraTS-GLI-00000-000-t2f"}
    assert set(studies.get_unlabeled_images()) == {"p01_t1", "BraTS-GLI-00000-000-t2f"}
    assert studies.status()["total"] == 2
    (said,) = [r.message for r in caplog.records if "are no images" in r.message]
    assert "5 files are no images" in said
    assert "aa_seg.nii.gz (a label)" in said
    assert "The names of images end in _t1, _t1ce, _t2, _flair" in said
    (tmp_path / "studies" / "._p01_t1.nii.gz").unlink()
    studies.refresh()
    assert "4 files are no images" in caplog.text
    caplog.clear()
    studies.refresh()
    assert "no images" not in caplog.text, "said once"


def test_a_4d_file_needs_no_modality_in_its_name(show, write_scan):
    write_scan("all.nii.gz", shape=(8, 8, 8, 4))
    write_scan("three.nii.gz", shape=(8, 8, 8, 3))
    write_scan("scan.nii.gz")
    assert show().list_images() == ["all"]


def test_what_another_app_has_listed_is_taken_out_of_the_list_and_not_off_the_disk(
    show, write_scan, write_label, tmp_path
):
    from monailabel.datastore.local import LocalDatastore

    write_scan("p01_t1.nii.gz")
    for name in ("._p01_t1.nii.gz", "p01_seg.nii.gz", "scan.nii.gz"):
        write_label(f"studies/{name}")
    write_label("studies/labels/final/scan.nii.gz")
    stock = LocalDatastore(str(tmp_path / "studies"))
    assert len(stock.list_images()) == 4
    # Somebody has labelled the one whose name says nothing: it is somebody's image.
    assert set(show().list_images()) == {"p01_t1", "scan"}
    assert (tmp_path / "studies" / "p01_seg.nii.gz").exists()


def test_a_label_of_one_scan_settles_its_case_for_every_strategy(show, write_scan, write_label):
    for name in ("p01_t1", "p01_flair", "p02_t1", "p03_t1"):
        write_scan(f"{name}.nii.gz")
    studies = show()
    studies.save_label("p01_flair", str(write_label("mine.nii.gz")), "final", {})
    assert set(studies.get_unlabeled_images()) == {"p02_t1", "p03_t1"}
    assert studies.get_labeled_images() == ["p01_flair"]
    studies.save_label("p02_t1", str(write_label("mine.nii.gz")), "original", {})
    assert "p02_t1" in studies.get_unlabeled_images(), "a prediction labels nothing"


def test_training_takes_a_case_once_with_the_label_submitted_last(
    show, write_scan, write_label, caplog
):
    for name in ("p01_t1", "p01_flair", "p02_t1"):
        write_scan(f"{name}.nii.gz")
        write_label(f"studies/labels/final/{name}.nii.gz")
    studies = show()
    for name, time in (("p01_t1", 20), ("p01_flair", 10), ("p02_t1", 30)):
        studies.update_label_info(name, "final", {"ts": time})
    items = studies.datalist()
    assert [item["image"].rsplit("/", 1)[1] for item in items] == ["p01_t1.nii.gz", "p02_t1.nii.gz"]
    assert "case p01 has two labels, of p01_flair and of p01_t1: training takes tha" in caplog.text
    assert studies.datalist(full_path=False)[1]["label"] == "labels/final/p02_t1.nii.gz"


def test_linked_scans_keep_their_siblings(show, write_scan, tmp_path):
    for name in ("t1", "flair"):
        source = write_scan(f"../elsewhere/{name}/scan.nii.gz")
        (tmp_path / "studies").mkdir(exist_ok=True)
        (tmp_path / "studies" / f"p01_{name}.nii.gz").symlink_to(source)
    studies = show()
    assert studies.get_image_uri("p01_t1") == str(tmp_path / "studies" / "p01_t1.nii.gz")
    assert set(find_files(studies.get_image_uri("p01_t1"), BRATS_MODALITIES, "p01")) == {
        "t1",
        "flair",
    }
    assert studies.get_image_uri("p09_t1") == ""


def test_a_label_on_another_grid_is_refused(show, write_scan, write_label, tmp_path):
    write_scan("p01_t1.nii.gz")
    studies = show()
    other = write_label("other.nii.gz", shape=(8, 8, 9))
    moved = tmp_path / "moved.nii"
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), np.uint8), np.diag([1, 1, 2, 1])), moved)
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no label")
    for path, text in ((other, "(8, 8, 9)"), (moved, "mm apart"), (broken, "cannot be read")):
        with refusal(422, "this is no label of image p01_t1, and was not stored") as said:
            studies.save_label("p01_t1", str(path), "final", {})
        assert text in said.value.detail
    assert studies.get_labeled_images() == []
    studies.save_label("p01_t1", str(write_label("mine.nii.gz")), "final", {})
    assert studies.get_labeled_images() == ["p01_t1"]


def test_an_uploaded_scan_stays_whatever_its_name_and_replaces_none(show, write_scan):
    first, second = write_scan("../a.nii.gz", 1), write_scan("../b.nii.gz", 2)
    studies = show()
    for name in ("MRHead", "p01_t1"):
        assert studies.add_image(name, str(first), {}) == name
        assert studies.add_image(name, str(first), {}) == name
        with refusal(409, f"image {name}: another file is stored under this name"):
            studies.add_image(name, str(second), {})
    studies.refresh()
    assert set(show().list_images()) == {"MRHead", "p01_t1"}
    assert (studies.folder / "p01_t1.nii.gz").read_bytes() == first.read_bytes()


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a\\b", ".."])
def test_a_name_that_leads_elsewhere_is_refused(show, write_scan, write_label, name):
    write_scan("p01_t1.nii.gz")
    scan, label = write_scan("../a.nii.gz"), write_label("mine.nii.gz")
    studies = show()
    with refusal(422, "image: expected a name without a path"):
        studies.add_image(name, str(scan), {})
    with refusal(422, "tag: expected a name without a path"):
        studies.save_label("p01_t1", str(label), name, {})


def test_what_one_process_notes_outlives_what_another_writes(show, write_scan, write_label):
    for name in ("p01_t1", "p02_t1"):
        write_scan(f"{name}.nii.gz")
    server, scoring = show(), show()
    server.save_label("p01_t1", str(write_label("mine.nii.gz")), "final", {"who": "a reader"})
    # The same moment, as far as a file's time can tell: only the content differs.
    scoring._config_ts = server._config_ts
    scoring.update_image_info("p02_t1", {"score": 1})
    server.update_image_info("p01_t1", {"seen": True})
    written = json.loads((server.folder / "datastore_v2.json").read_text())["objects"]
    assert written["p01_t1"]["labels"]["final"]["info"]["who"] == "a reader"
    assert written["p02_t1"]["image"]["info"]["score"] == 1
    assert written["p01_t1"]["image"]["info"]["seen"]


def test_a_replaced_file_is_another_source(show, write_scan):
    write_scan("p01_t1.nii.gz", 1)
    other = write_scan("p01_flair.nii.gz", 2)
    studies = show()
    before = studies.file_states(["p01_t1", "p01_flair"])
    assert studies.file_states(["p01_flair", "p01_t1"]) == before
    shutil.copy(other, studies.folder / "p01_t1.nii.gz")
    assert studies.file_states(["p01_t1", "p01_flair"]) != before


def test_scans_in_folders_of_their_own_are_named(show, write_scan, caplog):
    write_scan("p01/p01_t1.nii.gz")
    write_scan("p02/p01_t1.nii.gz")
    with caplog.at_level(logging.WARNING):
        assert show().list_images() == []
    assert "2 volumes lie in folders of their own, such as p01/p01_t1.nii.gz" in caplog.text


def test_cases_that_differ_in_upper_and_lower_case_alone_are_named(show, write_scan, caplog):
    for name in ("p01_T1", "P01_FLAIR", "p02_t1", "p02_FLAIR"):
        write_scan(f"{name}.nii.gz")
    # MONAI Label tells of every image, at a level that another test may have turned on.
    caplog.set_level(logging.WARNING)
    studies = show()
    assert "P01, p01 differ in upper and lower case alone" in caplog.text
    assert "p02" not in caplog.text
    caplog.clear()
    studies.refresh()
    assert not caplog.text, "said once"


def test_good_studies_give_no_warning(show, write_scan, write_label, caplog):
    for name in ("p01_t1", "p01_flair", "BraTS-GLI-00001-000-t1n"):
        write_scan(f"{name}.nii.gz")
    write_label("studies/labels/final/p01_t1.nii.gz")
    with caplog.at_level(logging.WARNING):
        assert len(show().list_images()) == 3
    assert not caplog.records
