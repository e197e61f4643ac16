"""Scores of cases whose files are real and whose network is one number."""

from __future__ import annotations

import logging
import os
import re
import sys

import pytest

from bundle.data.case_files import find_files
from bundle.data.filenames import file_endings
from bundle.data.volumes import read_case
from bundle.modalities import BRATS_MODALITIES

ENDINGS = file_endings(BRATS_MODALITIES)


class Task:
    """Stands in for MONAI Label's inference: the weights are a file."""

    def __init__(self, path):
        self.path = path

    def get_path(self):
        return str(self.path)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("1")
    return path


@pytest.fixture
def method(app_code, weights, tmp_path):
    """Scores a case with its number of scans times the weights; `scored` lists the cases."""

    class Counting(app_code.Disagreement):
        scored: list[str] = []  # noqa: RUF012, one instance a test

        def score(self, path, device=None, modality=None):
            case = os.path.basename(path).split("_")[0]
            self.scored.append(case)
            files = find_files(path, BRATS_MODALITIES, case)
            read_case(files, case)
            self.meanwhile(case)
            return float(len(files)) * int(weights.read_text())

        def meanwhile(self, case):
            """What happens while a case is scored."""

    Counting.scored = []
    return Counting(Task(weights), ENDINGS, app_code.Turns(tmp_path / "readers.lock"))


@pytest.fixture
def studies(app_code, write_scan, tmp_path):
    """Three cases: p01 has two scans, p02 one that is cut off, p03 one."""
    for seed, name in enumerate(("p01_t1", "p01_flair", "p02_t2", "p03_t1")):
        path = write_scan(f"{name}.nii.gz", seed)
        if name == "p02_t2":
            path.write_bytes(path.read_bytes()[:300])
    return app_code.Studies(str(tmp_path / "studies"), BRATS_MODALITIES, ENDINGS)


def summary(answer):
    return {**answer, "failed": [entry["case"] for entry in answer["failed"]]}


def test_a_case_that_fails_is_named_and_tried_again_when_its_file_changed(
    method, studies, write_scan, caplog
):
    first = method({}, studies)
    assert summary(first) == {"total": 3, "skipped": 0, "executed": 2, "failed": ["p02"]}
    assert "no score for p02. A case whose files cannot be read" in caplog.text
    again = method({}, studies)
    assert summary(again) == {"total": 3, "skipped": 2, "executed": 0, "failed": ["p02"]}
    assert again["failed"] == first["failed"]
    assert method.scored == ["p01", "p02", "p03"], "none twice"
    write_scan("p02_t2.nii.gz")
    assert summary(method({}, studies)) == {"total": 3, "skipped": 2, "executed": 1, "failed": []}
    assert method.scored[3:] == ["p02"]


def test_a_fault_that_passes_by_itself_is_tried_again(method, studies, monkeypatch):
    def out_of_memory(case):
        raise MemoryError(f"no room for {case}")

    monkeypatch.setattr(method, "meanwhile", out_of_memory)
    failed = {entry["case"]: entry["reason"] for entry in method({}, studies)["failed"]}
    assert failed["p03"] == "no room for p03"
    monkeypatch.undo()
    assert summary(method({}, studies))["executed"] == 2


def test_another_scan_or_a_replaced_one_is_scored_anew(method, studies, write_scan):
    method({}, studies)
    write_scan("p03_flair.nii.gz", 9)
    studies.refresh()
    assert method({}, studies)["executed"] == 1
    assert studies.get_image_info("p03_t1")["disagreement"] == 2
    write_scan("p01_t1.nii.gz", 9)
    assert method({}, studies)["executed"] == 1
    assert method.scored[3:] == ["p03", "p01"]


def test_a_file_that_breaks_takes_the_old_score_with_it(method, studies, tmp_path):
    method({}, studies)
    (tmp_path / "studies" / "p03_t1.nii.gz").write_bytes(b"cut")
    assert summary(method({}, studies))["failed"] == ["p02", "p03"]
    assert studies.get_image_info("p03_t1")["disagreement"] is None


def test_weights_that_change_meanwhile_score_all_again(method, studies, weights, monkeypatch):
    def train(case):
        if case == "p03" and weights.read_text() == "1":
            weights.write_text("70")

    monkeypatch.setattr(method, "meanwhile", train)
    answer = method({}, studies)
    assert summary(answer) == {"total": 3, "skipped": 0, "executed": 2, "failed": ["p02"]}
    assert [studies.get_image_info(f"{c}_t1")["disagreement"] for c in ("p01", "p03")] == [140, 70]
    assert method({}, studies)["executed"] == 0


def test_a_case_that_is_labelled_meanwhile_is_left_out(
    method, studies, app_code, write_label, tmp_path, monkeypatch
):
    server = app_code.Studies(str(tmp_path / "studies"), BRATS_MODALITIES, ENDINGS)

    def label(case):
        if case == "p01":
            server.save_label("p03_t1", str(write_label("mine.nii.gz")), "final", {})

    monkeypatch.setattr(method, "meanwhile", label)
    method({}, studies)
    assert method.scored == ["p01", "p02"]
    assert server.get_labeled_images() == ["p03_t1"]
    assert server.get_unlabeled_images()[0].startswith("p0")
    assert server.get_image_info("p01_t1")["disagreement"] == 2


def test_it_waits_before_each_case_and_says_how_far_it_is(method, studies, monkeypatch, caplog):
    waited: list[int] = []
    monkeypatch.setattr(method.turns, "wait_for_readers", lambda: waited.append(1))
    with caplog.at_level(logging.INFO):
        method({}, studies)
    assert len(waited) == 3
    assert "3 cases to score; whoever wants a segmentation comes first" in caplog.text
    assert re.search(r"1 of 3 cases done in \d+ s, about \d+ s left", caplog.text)
    assert "3 of 3 cases done" in caplog.text
    assert method.progress(studies) | {"failed": None} == {"scored": 2, "of": 3, "failed": None}


def test_an_image_that_no_file_is_known_of_fails_alone(method, app_code):
    """A DICOMweb server's series: no path before it is fetched, and the fetching may fail."""

    class Remote:
        infos: dict[str, dict] = {"1.2.3": {}}  # noqa: RUF012, one instance

        def get_labeled_images(self):
            return []

        def get_unlabeled_images(self):
            return ["1.2.3", "1.2.4"]

        def get_image_info(self, image):
            return self.infos.get(image, {})

        def get_image_uri(self, image):
            if image == "1.2.4":
                raise ConnectionError("no route to 1.2.4")
            return "p_t1"

        def update_image_info(self, image, info):
            if image not in self.infos:
                raise sys.modules["patchwork_scoring"].ImageNotFoundException(image)
            self.infos[image].update(info)

    method.score = lambda path, device, modality: 3.0
    remote = Remote()
    # At the start nobody says what they are: nothing is fetched only to fail.
    nothing = {"total": 0, "skipped": 0, "executed": 0, "failed": []}
    assert method({}, remote) == nothing
    assert method.open_sources(remote) == []
    answer = method({"modality": "flair"}, remote)
    assert summary(answer) == {"total": 2, "skipped": 0, "executed": 1, "failed": ["1.2.4"]}
    assert answer["failed"][0]["reason"] == "no route to 1.2.4"
    assert method({"modality": "flair"}, remote)["skipped"] == 1
