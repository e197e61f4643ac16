"""LCKD through the real configs: elections on real cases, resuming, and what it leaves for use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events

from bundle.methods.lckd.teacher_record import TeacherRecord

pytestmark = pytest.mark.slow

NAMES = ["train.json", "method_lckd.yaml"]
REGIONS = ("TC", "WT", "ET")
MODALITIES = ("t1", "t1ce", "t2", "flair")


class Stopped(Exception):
    """Stands for whatever ends a training early."""


def train(workflow, settings: dict[str, Any], stop_after: int | None = None) -> Any:
    run = workflow(NAMES, "train", **settings)

    def stop() -> None:
        raise Stopped

    if stop_after is not None:
        run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop_after), stop)
    try:
        run.run()
    finally:
        run.finalize()
    return run


def state(folder: str) -> dict[str, Any]:
    return torch.load(Path(folder) / "training_state.ckpt", weights_only=True)


def test_elections_are_resumed_exactly_and_their_table_with_them(workflow, tiny, tmp_path):
    # A fast one, so that the single modalities find something by the second epoch.
    settings = tiny | {"max_epochs": 4, "election_interval": 1, "learning_rate": 0.01}
    whole = settings | {"output_dir": str(tmp_path / "a"), "ckpt_dir": str(tmp_path / "a")}
    halves = settings | {"output_dir": str(tmp_path / "b"), "ckpt_dir": str(tmp_path / "b")}
    train(workflow, whole)
    with pytest.raises(RuntimeError, match="Failed to"):
        train(workflow, halves, stop_after=5)  # in epoch 3, after the election at its start
    assert state(halves["output_dir"])["progress"]["epoch"] == 2
    train(workflow, halves | {"resume": True})
    one, other = (state(folder["output_dir"])["method"] for folder in (whole, halves))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert bool((one["case_counts"] == 2).all())
    tables = [(tmp_path / name / "elections.csv").read_text() for name in ("a", "b")]
    assert tables[0] == tables[1]
    rows = TeacherRecord(str(tmp_path / "a"), MODALITIES, REGIONS).rows()
    assert sorted({row.epoch for row in rows}) == [2, 3, 4]
    assert len(rows) == 3 * 12
    assert any(row.teacher for row in rows)
    assert (tmp_path / "a" / "teachers.png").stat().st_size > 5_000


def test_elections_draw_nothing_and_change_no_step_that_is_not_taught(workflow, tiny, tmp_path):
    found = []
    for interval in (1, 100):
        folder = str(tmp_path / str(interval))
        settings = tiny | {"output_dir": folder, "ckpt_dir": folder, "election_interval": interval}
        # So small a weight that rounding leaves nothing of it, which is not the same as none.
        train(workflow, settings | {"max_epochs": 3, "distillation_weight": 1e-30})
        found.append(torch.load(Path(folder) / "model.pt", weights_only=True))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_what_was_trained_is_evaluated_and_segments(workflow, tiny, phantom):
    train(workflow, tiny | {"max_epochs": 1})
    evaluate = workflow([*NAMES, "evaluate.json"], "train", **tiny)
    evaluate.run()
    evaluate.finalize()
    summary = json.loads((Path(tiny["output_dir"]) / "summary.json").read_text())
    assert len(summary["subsets"]) == 15
    infer = workflow(
        ["inference.json", "method_lckd.yaml"], "infer", **(tiny | {"dataset_dir": str(phantom)})
    )
    assert infer.check_properties() == []
    infer.run()
    infer.finalize()
    assert len(list(Path(tiny["output_dir"]).glob("*_pred.nii.gz"))) == 2
    other = workflow([*NAMES, "evaluate.json"], "train", **(tiny | {"skips": "mean"}))
    with pytest.raises(RuntimeError) as refused:
        other.run()
    told = repr(refused.getrepr(style="native"))
    assert 'was trained with skips "zeros"' in told
    assert "and its skips if that was overridden or the default has changed since" in told


def test_without_held_out_cases_training_is_refused_or_goes_on_if_told(workflow, tiny, phantom):
    datalist = json.loads(phantom.read_text()) | {"validation": []}
    path = phantom.parent / "lckd_without_validation.json"
    path.write_text(json.dumps(datalist))
    settings = tiny | {"datalist_file": str(path), "max_epochs": 1}
    with pytest.raises(RuntimeError) as refused:
        train(workflow, settings)
    assert "expected labelled cases to elect teachers by" in repr(refused.getrepr(style="native"))
    train(workflow, settings | {"election_required": False})
    train(workflow, settings | {"distillation_weight": 0})
    train(workflow, settings | {"election_section": "training"})
