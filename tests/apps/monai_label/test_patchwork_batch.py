from __future__ import annotations

import sys

import pytest

IMAGES = ("p01_t1", "p02_t1", "p03_t1")


class Store:
    """Three images, the first with a submitted label."""

    def list_images(self):
        return list(IMAGES)

    def get_labeled_images(self, *_):
        return ["p01_t1"]


@pytest.fixture
def batch(app_code):
    return sys.modules["patchwork_batch"].CarefulBatch()


def infer(request, datastore):
    if request["image"] == "p02_t1":
        raise ValueError("p02_t1 is cut off")
    return {"params": {}, "tag": request["label_tag"]}


@pytest.mark.parametrize("workers", [1, 2])
def test_one_image_that_fails_stops_no_other(batch, caplog, workers):
    answers = batch({"max_workers": workers, "device": "cpu"}, Store(), infer)
    assert answers["p02_t1"] == {"failed": "p02_t1 is cut off"}
    assert [image for image, answer in answers.items() if "params" in answer] == [
        "p01_t1",
        "p03_t1",
    ]
    assert "2 of 3 images were segmented; not p02_t1" in caplog.text


def test_a_prediction_replaces_no_submitted_label(batch):
    answers = batch({"label_tag": "final", "device": "cpu", "max_workers": 1}, Store(), infer)
    assert answers["p01_t1"] == {"failed": "image p01_t1 has a submitted label, which stays"}
    assert answers["p03_t1"]["tag"] == "final"
