"""Pre-training through the real configs, and the training that starts from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bundle.data.datalist import load_datalist, write_datalist
from bundle.modalities import BRATS_MODALITIES

pytestmark = pytest.mark.slow

PRETRAIN = ["train.json", "pretrain.yaml"]


@pytest.fixture
def gaps(phantom: Path, tiny: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Settings whose training cases lack a modality each, with patches that suit small crops."""
    datalist = load_datalist(str(phantom), BRATS_MODALITIES)
    for item, absent in zip(datalist["training"], BRATS_MODALITIES, strict=True):
        item["image"].pop(absent)
    path = tmp_path / "gaps.json"
    write_datalist(datalist, path)
    patches = {"patch": 8, "descriptor_patch": 4}
    return {**tiny, **patches, "datalist_file": str(path), "max_epochs": 2}


def run(workflow, names: list[str], settings: dict[str, Any]) -> Any:
    flow = workflow(names, "train", **settings)
    try:
        flow.run()
    finally:
        flow.finalize()
    return flow


def weights(settings: dict[str, Any], name: str) -> dict[str, torch.Tensor]:
    return torch.load(Path(settings["ckpt_dir"]) / name, weights_only=True)


def test_training_starts_from_what_pretraining_wrote(workflow, gaps, capsys):
    run(workflow, PRETRAIN, gaps)
    start = weights(gaps, "pretrained.ckpt")
    assert not list(Path(gaps["ckpt_dir"]).glob("*.pt"))
    assert json.loads((Path(gaps["ckpt_dir"]) / "pretrained.json").read_text()) == {
        "modalities": ["t1", "t1ce", "t2", "flair"],
        "spacing": [2.0, 2.0, 2.0],
        "rescale": True,
    }
    settings = {
        **gaps,
        "pretrained_file": str(Path(gaps["ckpt_dir"]) / "pretrained.ckpt"),
        "learning_rate": 0.0,
        "max_epochs": 1,
    }
    capsys.readouterr()
    run(workflow, ["train.json"], settings)
    count, numbers = len(start), sum(value.numel() for value in start.values())
    told = capsys.readouterr()
    assert (
        f"{count} of the file's {count} tensors fit, {numbers} of {numbers} parameters start"
    ) in told.out + told.err
    trained = weights(gaps, "model.pt")
    for name, value in start.items():
        assert torch.equal(trained[f"autoencoder.{name}"], value), name
    note = json.loads((Path(gaps["ckpt_dir"]) / "model.json").read_text())
    assert note["prompts"]["source"] == "presence"


def test_the_bank_is_part_of_the_state_and_resuming_equals_going_through(workflow, gaps, tmp_path):
    whole = {**gaps, "output_dir": str(tmp_path / "a"), "ckpt_dir": str(tmp_path / "a")}
    halves = {**gaps, "output_dir": str(tmp_path / "b"), "ckpt_dir": str(tmp_path / "b")}
    run(workflow, PRETRAIN, whole)

    class Stop(Exception):
        pass

    flow = workflow(PRETRAIN, "train", **halves)

    def stop() -> None:
        raise Stop

    from ignite.engine import Events

    flow.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), stop)
    with pytest.raises(RuntimeError, match="Failed to"):
        flow.run()
    flow.finalize()
    run(workflow, PRETRAIN, {**halves, "resume": True})
    one, other = (
        torch.load(Path(s["output_dir"]) / "pretraining_state.ckpt", weights_only=True)["method"]
        for s in (whole, halves)
    )
    assert float(one["distribution.bank.counts"].sum()) > 0
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("distribution", ["none", "marginal", "conditional"])
def test_the_kinds_of_distribution_approximation_log_their_terms(workflow, gaps, distribution):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(workflow, PRETRAIN, {**gaps, "distribution": distribution})
    events = EventAccumulator(gaps["output_dir"]).Reload()
    logged = set(events.Tags()["scalars"])
    assert ("marginal" in logged) == (distribution != "none")
    if distribution == "marginal":
        assert {event.value for event in events.Scalars("conditional")} == {0.0}


def test_a_modality_that_no_case_has_is_named_before_pretraining(workflow, gaps):
    path = Path(gaps["datalist_file"])
    content = json.loads(path.read_text())
    for item in content["training"]:
        item["image"].pop("flair", None)
    kept = [item for item in content["training"] if item["image"]]
    path.write_text(json.dumps({**content, "training": kept}))
    with pytest.raises(RuntimeError, match="Failed to") as refused:
        run(workflow, PRETRAIN, gaps)
    assert "flair" in repr(refused.getrepr(style="native"))
    assert not (Path(gaps["ckpt_dir"]) / "pretrained.ckpt").exists()


def test_weights_for_another_order_of_the_modalities_are_refused(workflow, gaps):
    run(workflow, PRETRAIN, {**gaps, "max_epochs": 1})
    path = str(Path(gaps["ckpt_dir"]) / "pretrained.ckpt")
    other = {"pretrained_file": path, "modalities": ["t1", "t2", "t1ce", "flair"]}
    with pytest.raises(RuntimeError, match="Failed to") as refused:
        run(workflow, ["train.json"], {**gaps, **other})
    assert "was trained with modalities" in repr(refused.getrepr(style="native"))


def test_a_prompt_bank_of_other_modalities_is_refused(workflow, gaps, tmp_path):
    from bundle.prompts.bank import prompt_bank, save_prompt_bank

    path = tmp_path / "prompts.bank"
    save_prompt_bank(prompt_bank(["t1", "t1ce", "flair", "t2"], "one_hot"), path)
    with pytest.raises(RuntimeError, match="Failed to") as refused:
        run(workflow, ["train.json"], {**gaps, "prompt_file": str(path)})
    assert "this config has ['t1', 't1ce', 't2', 'flair']" in repr(refused.getrepr(style="native"))


def test_a_typing_error_in_the_distribution_is_named(workflow, gaps):
    with pytest.raises(RuntimeError, match="Failed to") as refused:
        run(workflow, PRETRAIN, {**gaps, "distribution": "Conditional"})
    assert "got 'Conditional'" in repr(refused.getrepr(style="native"))
