from __future__ import annotations

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

import bundle
from bundle.training.one_process import leave_training_to_first

CONFIGS = Path(bundle.ROOT) / "configs"


@pytest.fixture
def started(monkeypatch):
    """Give started(rank, count): what torchrun tells a process that it started."""

    def tell(rank: int, count: int) -> None:
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(count))

    return tell


def test_the_first_process_trains_and_says_so(started, caplog):
    started(0, 4)
    leave_training_to_first()
    assert "4 processes were started, one for each GPU: this bundle trains on one" in caplog.text


@pytest.mark.parametrize("rank", [1, 3])
def test_the_others_end_without_an_error(started, caplog, rank):
    started(rank, 4)
    with pytest.raises(SystemExit) as ended:
        leave_training_to_first()
    assert ended.value.code == 0
    assert not caplog.text


def test_without_torchrun_nothing_is_said(monkeypatch, caplog):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    leave_training_to_first()
    assert not caplog.text


def test_the_config_of_several_gpus_decides_first_who_trains(started, tmp_path):
    """MONAI Label lays it over the training's config and starts it once for each GPU."""
    ran = tmp_path / "ran"
    last = len(json.loads((CONFIGS / "multi_gpu_train.json").read_text())["run"]) - 1
    workflow = ConfigWorkflow(
        config_file=[str(CONFIGS / "train.json"), str(CONFIGS / "multi_gpu_train.json")],
        workflow_type="train",
        output_dir=str(tmp_path),
        ckpt_dir=str(tmp_path),
        **{
            "train#trainer": f"$__import__('pathlib').Path({str(ran)!r})",
            f"run#{last}": "$@train#trainer.touch()",
        },
    )
    workflow.initialize()
    started(1, 2)
    with pytest.raises(SystemExit):
        workflow.run()
    assert not ran.exists()
    started(0, 2)
    workflow.run()
    assert ran.exists()


def test_it_trains_as_the_config_of_one_gpu_does():
    alone = json.loads((CONFIGS / "train.json").read_text())["run"]
    parser = ConfigParser(
        ConfigParser.load_config_files(
            [str(CONFIGS / "train.json"), str(CONFIGS / "multi_gpu_train.json")]
        )
    )
    assert parser["run"][1:] == alone
    assert "leave_training_to_first" in parser["run"][0]
