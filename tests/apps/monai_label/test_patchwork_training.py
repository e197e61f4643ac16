from __future__ import annotations

import logging
import shutil

import pytest
import torch
from monai.handlers import CheckpointLoader

from bundle.delivery.package import NAME


@pytest.fixture
def trainer(make_app, write_scan, write_label, monkeypatch):
    """The app's training of three labelled cases, of which nothing runs; `asked` is what would."""
    for seed, name in enumerate(("p01_t1", "p01_flair", "p02_t1", "p03_flair")):
        write_scan(f"{name}.nii.gz", seed)
    for name in ("p01_flair", "p02_t1", "p03_flair"):
        write_label(f"studies/labels/final/{name}.nii.gz")
    app = make_app()
    task = app._trainers[NAME]
    task.asked = []
    monkeypatch.setattr(task, "run_single_gpu", lambda request, more: task.asked.append(more))
    monkeypatch.setattr(task, "run_multi_gpu", lambda *_: pytest.fail("several GPUs were used"))

    def train(**request):
        app.train({"model": NAME, "device": "cpu", "val_split": 0.34} | request)
        return task.asked[-1]

    train.app = app
    train.task = task
    return train


@pytest.fixture
def four_gpus(monkeypatch):
    """What PyTorch tells on a machine with four GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "GPU")


@pytest.mark.parametrize(
    ("request_", "device"),
    [
        ({}, "cuda"),
        ({"multi_gpu": True, "gpus": "all", "device": "GPU:2"}, "cuda:2"),
        ({"multi_gpu": True, "gpus": "1,3", "device": "cuda"}, "cuda:1"),
        ({"force_multi_gpu": True, "gpus": "3", "device": "cuda"}, "cuda:3"),
    ],
)
def test_a_machine_with_several_gpus_trains_on_one_and_says_so(
    trainer, four_gpus, request_, device, caplog
):
    asked = trainer(**{"device": "cuda"} | request_)
    assert asked["device"] == device
    assert len(asked["train#dataset#data"]) == 2
    assert f"{request_.get('gpus', 'all')} of 4 GPUs were asked for, one is used" in caplog.text


def test_who_asks_for_one_gpu_is_told_nothing(trainer, four_gpus, caplog):
    trainer(multi_gpu=False, device="GPU:1")
    assert "GPUs were asked for" not in caplog.text
    assert trainer.task.config()["multi_gpu"] is False


def test_a_case_that_cannot_be_read_is_left_out_and_named(trainer, write_label, tmp_path, caplog):
    write_label("studies/labels/final/p01_flair.nii.gz", value=7)
    with caplog.at_level(logging.INFO):
        asked = trainer()
    files = [i["image"] for i in asked["train#dataset#data"] + asked["validate#dataset#data"]]
    assert [path.rsplit("/", 1)[1] for path in files] == ["p02_t1.nii.gz", "p03_flair.nii.gz"]
    assert "left out of the training: case p01: p01_flair.nii.gz holds unknown label" in caplog.text
    assert "training with 2 of 3 labelled cases" in caplog.text
    for name in ("p02_t1", "p03_flair"):
        (tmp_path / "studies" / f"{name}.nii.gz").write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"no labelled case can be read:\ncase p02: .*cannot be r"):
        trainer()


def test_a_labelled_4d_file_is_trained_with(trainer, write_scan, write_label):
    write_scan("p04.nii.gz", shape=(8, 8, 8, 4))
    write_label("studies/labels/final/p04.nii.gz")
    trainer.app.datastore().refresh()
    asked = trainer(val_split=0)
    assert asked["train#dataset#data"][-1]["image"].endswith("p04.nii.gz")


def test_without_labels_nothing_is_trained(make_app, write_scan):
    write_scan("p01_t1.nii.gz")
    with pytest.raises(ValueError, match="no case is labelled: submit labels first"):
        make_app().train({"model": NAME, "device": "cpu"})


def test_the_timepoints_of_a_patient_stay_together(trainer):
    names = ["A-00001-000", "A-00002-000", "A-00001-001", "A-00003-000"]
    items = [{"image": f"/studies/BraTS-GLI-{n[2:]}_t1.nii.gz", "label": n} for n in names]
    train, validate = trainer.task._partition_datalist(items, {"val_split": 0.34})
    assert [item["label"] for item in train] == ["A-00001-000", "A-00001-001", "A-00002-000"]
    assert [item["label"] for item in validate] == ["A-00003-000"]


def loaders(handlers):
    name = CheckpointLoader.__name__
    return [h for h in handlers if isinstance(h, dict) and h["_target_"] == name]


def test_training_goes_on_from_the_weights_that_were_asked_for(trainer, caplog):
    (loader,) = loaders(trainer()["train#handlers"])
    assert loader["load_path"].endswith("models/model.pt")
    assert loader["strict"]
    assert len(loaders(trainer()["train#handlers"])) == 1
    with caplog.at_level(logging.INFO):
        assert loaders(trainer(pretrained=False)["train#handlers"]) == []
    assert "starts from random weights, as was asked for" in caplog.text
    with pytest.raises(FileNotFoundError, match=r"models/other\.pt, found no such file"):
        trainer(model_filename="other.pt")


def test_an_epoch_starts_from_the_served_weights_and_says_nothing_of_random_ones(
    make_app, small_bundle, write_scan, write_label, tmp_path, caplog
):
    for seed, name in enumerate(("p01_t1", "p02_t2", "p03_flair")):
        write_scan(f"{name}.nii.gz", seed)
        write_label(f"studies/labels/final/{name}.nii.gz")
    root = tmp_path / "app" / "model" / NAME
    shutil.copytree(small_bundle, root)
    before = torch.load(root / "models" / "model.pt")
    app = make_app(root)
    with caplog.at_level(logging.INFO):
        app.train({"model": NAME, "device": "cpu", "max_epochs": 1, "val_split": 0.34})
    after = torch.load(root / "models" / "model.pt")
    change = max(float((after[key] - before[key]).abs().max()) for key in before)
    assert 0 < change < 0.02, "one step from the served weights"
    assert "best so far" in caplog.text
    assert "random weights" not in caplog.text
