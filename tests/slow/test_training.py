"""Training through the real configs: it resumes exactly, and refuses bad data before it starts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events

import bundle

pytestmark = pytest.mark.slow


class Stopped(Exception):
    """Stands for whatever ends a training early."""


def weights(folder: str) -> dict[str, torch.Tensor]:
    return torch.load(Path(folder) / "model.pt", weights_only=True)


def state(folder: str) -> dict[str, Any]:
    return torch.load(Path(folder) / "training_state.ckpt", weights_only=True)


def assert_same(left: Any, right: Any) -> None:
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    else:
        assert left == right


def train(workflow, settings: dict[str, Any], stop_after: int | None = None) -> None:
    """Train; with `stop_after`, break off after that many iterations, in the midst of an epoch."""
    run = workflow(["train.json"], "train", **settings)

    def stop() -> None:
        raise Stopped

    if stop_after is not None:
        event = Events.ITERATION_COMPLETED(once=stop_after)
        run.trainer.add_event_handler(event, stop)
    try:
        run.run()
    finally:
        run.finalize()


@pytest.mark.parametrize(("workers", "stop_after"), [(0, 5), (2, 3)])
def test_resumed_training_equals_the_uninterrupted_one(
    workflow, tiny, tmp_path, workers, stop_after
):
    # Two iterations an epoch: breaking off in the third stops in epoch 2, with epoch 1 on disk.
    settings = tiny | {"max_epochs": 4, "num_workers": workers}
    whole = settings | {"output_dir": str(tmp_path / "a"), "ckpt_dir": str(tmp_path / "a")}
    halves = settings | {"output_dir": str(tmp_path / "b"), "ckpt_dir": str(tmp_path / "b")}
    train(workflow, whole)
    with pytest.raises(RuntimeError, match="Failed to") as broken:
        train(workflow, halves, stop_after)
    assert "Stopped" in repr(broken.getrepr(style="native"))
    assert state(halves["output_dir"])["progress"]["epoch"] == stop_after // 2
    train(workflow, halves | {"resume": True})
    assert_same(state(whole["output_dir"]), state(halves["output_dir"]))
    assert_same(weights(whole["ckpt_dir"]), weights(halves["ckpt_dir"]))


def test_another_seed_gives_another_network(workflow, tiny, tmp_path):
    one = tiny | {"ckpt_dir": str(tmp_path / "a"), "max_epochs": 1}
    other = tiny | {"ckpt_dir": str(tmp_path / "b"), "max_epochs": 1, "seed": 1}
    train(workflow, one)
    train(workflow, other)
    name = "autoencoder.encoder.conv_init.weight"
    assert not torch.equal(weights(one["ckpt_dir"])[name], weights(other["ckpt_dir"])[name])


def test_training_lowers_the_loss_and_writes_every_term(workflow, tiny):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(workflow, tiny | {"max_epochs": 6, "learning_rate": 0.005})
    events = EventAccumulator(tiny["output_dir"]).Reload()
    assert {"loss", "dice", "cross_entropy", "train_loss"} <= set(events.Tags()["scalars"])
    losses = [event.value for event in events.Scalars("train_loss")]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    total = [event.value for event in events.Scalars("loss")]
    names = ("dice", "cross_entropy", "completed_dice", "completed_cross_entropy")
    names += ("rebuilding", "soft_labels", "features")
    terms = [[e.value for e in events.Scalars(name)] for name in names]
    assert total == pytest.approx([sum(pair) for pair in zip(*terms, strict=True)], rel=1e-5)


def test_bad_cases_are_all_named_before_training(workflow, tiny, phantom, tmp_path):
    datalist = json.loads(phantom.read_text())
    first, second = datalist["training"][:2]
    first["image"]["t1"] = "nowhere/t1.nii.gz"
    label = phantom.parent / datalist["training"][2]["label"]
    second["image"]["t2"] = shutil.copy(label, tmp_path / "t2.nii.gz")
    for items in (datalist["training"], datalist["validation"], datalist["testing"]):
        for item in items:
            for name, path in item["image"].items():
                item["image"][name] = str(phantom.parent / path)
            item["label"] = str(phantom.parent / item["label"])
    datalist["testing"][0]["image"]["pd"] = "pd.nii.gz"
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(datalist))
    with pytest.raises(RuntimeError, match="Failed to") as unknown:
        train(workflow, tiny | {"datalist_file": str(broken)})
    text = repr(unknown.getrepr(style="native"))
    assert "unknown modality 'pd'" in text
    del datalist["testing"][0]["image"]["pd"]
    broken.write_text(json.dumps(datalist))
    with pytest.raises(RuntimeError, match="Failed to") as missing:
        train(workflow, tiny | {"datalist_file": str(broken)})
    text = repr(missing.getrepr(style="native"))
    assert f"case {first['case']}: file" in text
    assert "nowhere/t1.nii.gz does not exist" in text
    assert f"case {second['case']}: t2" in text
    assert "label_as_scan" in text


def test_output_folder_must_be_writable(workflow, tiny, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RuntimeError, match="Failed to") as refused:
        train(workflow, tiny | {"output_dir": str(tmp_path / "file" / "out")})
    assert "expected a folder that can be written" in repr(refused.getrepr(style="native"))


def test_without_validation_cases_the_last_network_is_kept(workflow, tiny, phantom, tmp_path):
    datalist = json.loads(phantom.read_text()) | {"validation": []}
    path = phantom.parent / "no_validation.json"
    path.write_text(json.dumps(datalist))
    train(workflow, tiny | {"datalist_file": str(path), "max_epochs": 1})
    saved = state(tiny["output_dir"])["method"]
    for name, value in weights(tiny["ckpt_dir"]).items():
        assert torch.equal(value, saved[f"network.{name}"])


def test_a_training_shorter_than_the_validation_interval_leaves_a_network(workflow, tiny):
    train(workflow, tiny | {"max_epochs": 1, "val_interval": 5})
    assert weights(tiny["ckpt_dir"])


def test_a_new_training_keeps_what_the_old_one_left(workflow, tiny):
    train(workflow, tiny | {"max_epochs": 1})
    old = weights(tiny["ckpt_dir"]), state(tiny["output_dir"])
    train(workflow, tiny | {"max_epochs": 1, "seed": 1})
    kept = Path(tiny["ckpt_dir"]) / "model.pt.previous"
    assert_same(torch.load(kept, weights_only=True), old[0])
    kept = Path(tiny["output_dir"]) / "training_state.ckpt.previous"
    assert_same(torch.load(kept, weights_only=True), old[1])


def run_command(settings: dict[str, Any], **more: Any) -> subprocess.CompletedProcess[str]:
    """Train with the real command, as a user does."""
    words = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/train.json"]
    for name, value in (settings | more).items():
        words += [f"--{name}", str("$None" if value is None else value)]
    return subprocess.run(words, cwd=bundle.ROOT, capture_output=True, text=True, timeout=300)


def test_what_may_change_on_resuming_takes_effect_and_the_rest_is_refused(workflow, tiny):
    train(workflow, tiny | {"max_epochs": 1})
    before = state(tiny["output_dir"])
    regions = {"ET": [4], "WT": [1, 2, 4], "TC": [1, 4]}
    refused = run_command(
        tiny, resume=True, regions=regions, modalities=["flair", "t2", "t1ce", "t1"]
    )
    assert refused.returncode == 1
    last = refused.stderr.strip().splitlines()[-1]
    assert (
        "cannot be resumed, because what its numbers mean has changed: modalities: ['t1', " in last
    )
    assert "; order of regions: TC, WT, ET, now ET, WT, TC" in last
    assert_same(state(tiny["output_dir"]), before)
    # A cube as one number is no change; another rate, length and batch are.
    changed = {"max_epochs": 2, "learning_rate": 0.00002, "batch_size": 4, "roi_size": 32}
    resumed = run_command(tiny, resume=True, **changed)
    assert resumed.returncode == 0, resumed.stderr
    said = resumed.stdout + resumed.stderr
    for line in ("max_epochs: 1, now 2", "learning_rate: 0.001, now 2e-05", "batch_size: 2, now 4"):
        assert f"{line}, from epoch 2 on" in said
    after = state(tiny["output_dir"])
    assert after["progress"]["epoch"] == 2
    assert after["lr_scheduler"]["base_lrs"] == [0.00002]
    # One step of AdamW moves a parameter by no more than the rate at half the way, and its decay.
    moved = max(
        float((value - before["method"][name]).abs().max())
        for name, value in after["method"].items()
        if name.startswith("network.") and value.is_floating_point()
    )
    assert 0 < moved < 1.1 * 0.00002 * 0.5**0.9


def test_a_misspelt_setting_is_refused_before_anything_is_read(tiny, tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    refused = run_command(tiny, datalist_file=broken, learning_rat=0.1)
    assert refused.returncode == 1
    last = refused.stderr.strip().splitlines()[-1]
    assert "no setting learning_rat. Did you mean learning_rate?" in last
    assert not Path(tiny["output_dir"]).exists()


def test_training_without_cases_is_refused(workflow, tiny, phantom):
    datalist = json.loads(phantom.read_text()) | {"training": []}
    path = phantom.parent / "no_training.json"
    path.write_text(json.dumps(datalist))
    with pytest.raises(RuntimeError) as refused:
        train(workflow, tiny | {"datalist_file": str(path)})
    text = repr(refused.getrepr(style="native"))
    assert "expected labelled cases in 'training', got 0 cases" in text
