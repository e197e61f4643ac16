"""The whole app on real files: one that is hidden, a label, and one that cannot be read."""

from __future__ import annotations

import logging

import nibabel as nib
import pytest
import torch

from bundle.delivery.package import NAME

HIDDEN, LABELS = ("._p01_t1.nii.gz", ".p02_flair.nii"), ("aa_seg.nii.gz", "p03_label.nii.gz")


@pytest.fixture
def app(write_scan, write_label, make_app):
    """Three cases of which p02 is cut off, and four files that are no images."""
    for seed, name in enumerate(("p01_t1", "p01_flair", "p03_T1c")):
        write_scan(f"{name}.nii.gz", seed)
    cut = write_scan("p02_t2.nii.gz")
    cut.write_bytes(cut.read_bytes()[:300])
    for name in HIDDEN:
        cut.with_name(name).write_bytes(b"Mac OS X")
    for name in LABELS:
        write_label(f"studies/{name}")
    return make_app()


def test_one_bad_case_costs_neither_scoring_nor_batch_inference_of_the_others(app, caplog):
    images = {"p01_t1", "p01_flair", "p02_t2", "p03_T1c"}
    assert set(app.datastore().list_images()) == images
    assert app.info()["datastore"]["total"] == 4
    with caplog.at_level(logging.INFO):
        answer = app.scoring({"method": "disagreement", "device": "cpu"})
    (bad,) = answer.pop("failed")
    assert answer == {"total": 3, "skipped": 0, "executed": 2}
    assert bad["case"] == "p02"
    assert "p02_t2.nii.gz cannot be read as a NIfTI volume" in bad["reason"]
    assert "case p02 gets no score, the others do" in caplog.text
    assert "3 of 3 cases done" in caplog.text
    told = app.info()["scoring"]["disagreement"]
    assert (told["scored"], told["of"], told["running"]) == (2, 3, False)
    assert [entry["case"] for entry in told["failed"]] == ["p02"]

    answers = app.batch_infer({"model": NAME, "device": "cpu", "max_workers": 1})
    assert set(answers) == images
    assert {image for image, answer in answers.items() if "failed" in answer} == {"p02_t2"}
    assert "cannot be read" in answers["p02_t2"]["failed"]
    assert "3 of 4 images were segmented; not p02_t2" in caplog.text
    label = nib.load(app.datastore().get_label_uri("p01_flair", "original"))
    assert label.shape == (8, 8, 8)


def test_a_stated_modality_may_be_spelled_in_any_way_that_a_name_may_end(app, write_scan):
    path = str(write_scan("elsewhere/scan.nii.gz"))
    request = {"model": NAME, "image": path, "device": "cpu"}
    for modality in ("FLAIR", "T1c", "t2f", "T1-Gd"):
        assert app.infer(request | {"modality": modality})["file"]
    with pytest.raises(ValueError, match=r"'PD' of .* is none. Expected one of t1, t1ce, t2, flai"):
        app.infer(request | {"modality": "PD"})


def test_an_automatic_scoring_starts_only_where_there_is_something_to_score(
    app, app_code, monkeypatch, caplog
):
    started: list[dict] = []
    monkeypatch.setattr(app_code, "tasks", lambda method: started)

    def start(self, method, params=None):
        started.append({"status": "SUBMITTED"})
        return {"disagreement": started[-1]}

    monkeypatch.setattr(app_code.stock_main.MONAILabelApp, "async_scoring", start)
    with caplog.at_level(logging.INFO):
        assert app.async_scoring(None) == {"disagreement": {"status": "SUBMITTED"}}
    assert "3 cases get a score beside other work" in caplog.text
    for status in ("SUBMITTED", "RUNNING"):
        started[0]["status"] = status
        assert app.async_scoring(None) == {}, "one will find or finds them"
    started[0]["status"] = "DONE"
    app.scoring({"method": "disagreement", "device": "cpu"})
    assert app.async_scoring(None) == {}, "nothing is left to score"
    assert len(started) == 1
    assert app.async_scoring("disagreement"), "asked for by name it always runs"


def test_weights_that_fit_in_part_are_refused(app, small_bundle, tmp_path, monkeypatch):
    part = torch.load(small_bundle / "models" / "model.pt")
    part.pop(next(iter(part)))
    torch.save(part, tmp_path / "part.pt")
    task = app._infers[NAME]
    monkeypatch.setattr(task, "path", [str(tmp_path / "part.pt")])
    monkeypatch.setattr(task, "_networks", {})
    with pytest.raises(RuntimeError, match=r"Missing key"):
        app.infer({"model": NAME, "image": "p01_t1", "device": "cpu"})


def test_a_server_of_dicom_images_is_shown_as_before(app, app_code, monkeypatch):
    remote = object()
    monkeypatch.setattr(
        app_code.stock_main.MONAILabelApp, "init_remote_datastore", lambda s: remote
    )
    app.studies = "http://127.0.0.1:8042/dicom-web/"
    assert app.init_datastore() is remote
