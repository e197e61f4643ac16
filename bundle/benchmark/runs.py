"""One run: its trainings, its evaluation and its record, all through the bundle's own configs."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bundle import root_of
from bundle.atomic import write_text_atomically
from bundle.benchmark.configs import run_configs
from bundle.benchmark.federated import make_federated
from bundle.benchmark.multiply_adds import epoch_steps_of, multiply_adds
from bundle.benchmark.plan import ANATOMICAL_MM, Phantom, Run, Training
from bundle.benchmark.provenance import circumstances, device_name, files_of
from bundle.benchmark.results import compact_dice, record_path, write_record
from bundle.data.datalist import load_datalist
from bundle.evaluation.tables import read_csv
from bundle.modalities import BRATS_MODALITIES
from bundle.training.datasets import formable

# How often a training saves its state.
_SAVES = 10


def execute(
    run: Run,
    digests: Mapping[str, str],
    datalists: Mapping[str, str],
    output_dir: str,
    keep: bool = False,
    device: str | None = None,
) -> None:
    """Make a run in this process and write its record; what it prints goes into its log.

    A run that was stopped goes on where its trainings last saved their state.

    Args:
        run: what to run.
        digests: of the descriptions, by run name, for the record.
        datalists: the data from `prepare_data`, by run name.
        output_dir: the grid's folder; the run's own folder is in there.
        keep: True = leave checkpoints and reports in the run's folder.
        device: such as "cuda"; None = the configs'.
    """
    scratch = Path(output_dir) / "scratch" / run.name
    # What another plan or another device has begun is no part of this run.
    begun, mark = scratch / "begun.txt", f"{digests[run.name]} {device}"
    if not begun.is_file() or begun.read_text(encoding="utf-8") != mark:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        write_text_atomically(begun, mark)
    log = Path(output_dir) / "logs" / f"{run.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with output_into(log):
            made = _make(_on(device, run), datalists[run.name], scratch)
    except Exception as error:
        raise root_of(error)  # noqa: B904 - the chain is what it is the root of
    record = {"run": asdict(run), "digest": digests[run.name], **circumstances(), **made}
    record["device"] = device_name(made.get("device"))
    write_record(record, record_path(output_dir, run.name))
    if not keep:
        shutil.rmtree(scratch, ignore_errors=True)
    # A workflow is a web of references, its cases included; the worker has more runs to make.
    gc.collect()


def _on(device: str | None, run: Run) -> Run:
    """Return the run with the device in the settings of its stages."""
    if device is None:
        return run
    chosen = {"device": f"$torch.device({device!r})"}
    stages = [replace(stage, overrides={**stage.overrides, **chosen}) for stage in run.stages]
    return replace(run, stages=tuple(stages))


@contextmanager
def output_into(path: Path) -> Iterator[None]:
    """Send the process's output to a file.

    Below Python, because MONAI's loggers keep the stream that they found first.
    """
    kept = os.dup(1), os.dup(2)
    try:
        with path.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in enumerate(kept, 1):
            os.dup2(old, number)
            os.close(old)


def _make(run: Run, datalist: str, scratch: Path) -> dict[str, Any]:
    if run.federation is not None:
        return make_federated(run, datalist, scratch)
    training = load_datalist(datalist, BRATS_MODALITIES)["training"]
    usable = [item for item in training if formable(item, run.needs)]
    if not usable:
        needed = "+".join(run.needs)
        return {"not_possible": f"no case of {len(training)} has {needed}"}
    trained = [_train(run, number, datalist, scratch) for number in range(len(run.stages))]
    stages, devices = zip(*trained, strict=True)
    cost = _evaluate(run, datalist, scratch)
    cases, dice = compact_dice(read_csv(scratch / "results" / "scores.csv"))
    return {
        "stages": list(stages),
        "device": devices[-1],
        "evaluation": cost,
        "files": files_of(run),
        "cases": cases,
        "dice": dice,
    }


def _train(run: Run, number: int, datalist: str, scratch: Path) -> tuple[dict[str, Any], str]:
    """Make a stage, or read what it came to if it was finished before the run was stopped.

    Returns:
        What it came to, and the type of device that it ran on.
    """
    finished = scratch / f"stage_{number}.json"
    if finished.is_file():
        made, device = json.loads(finished.read_text(encoding="utf-8"))
        return made, device
    stage = run.stages[number]
    settings = _settings(run, stage, datalist, scratch)
    work = multiply_adds(stage.configs, settings)
    epoch_steps = epoch_steps_of(stage.configs, settings)
    epochs = epochs_of(stage, work.plain_steps, epoch_steps)
    # A state is some megabytes; a stopped run loses a few minutes.
    saved = {"save_interval": max(1, epochs // _SAVES), "resume": True}
    parser, cost = run_configs(stage.configs, {**settings, "max_epochs": epochs, **saved})
    # Not the trainer's count: one that had been stopped after its last step has made none since.
    steps = epochs * epoch_steps
    made = {
        "configs": list(stage.configs),
        "epochs": epochs,
        "steps": steps,
        "multiply_adds": steps * work.step,
        "plain_steps": steps * work.plain_steps,
        "training_cases": len(parser.get_parsed_content("train#dataset")),
        **cost,
    }
    device = parser.get_parsed_content("device").type
    write_text_atomically(finished, json.dumps([made, device]))
    return made, device


def epochs_of(stage: Training, step: float, epoch_steps: int) -> int:
    """Say how long a stage lasts: as planned, or as its budget allows, at least one epoch.

    Args:
        stage: the stage.
        step: the work of one of its steps, in steps of a plain U-Net.
        epoch_steps: steps in an epoch.
    """
    if stage.budget is None:
        return int(stage.epochs or 1)
    return max(1, round(stage.budget / step / epoch_steps))


def _evaluate(run: Run, datalist: str, scratch: Path) -> dict[str, float]:
    stage = run.stages[-1]
    subsets = {} if run.subsets is None else {"evaluate_subsets": list(run.subsets)}
    quick = {
        "pictures": False,
        "validate#key_metric#mean_dice#hd95": False,
        "nsd_tolerance": None,
    }
    settings = {**_settings(run, stage, datalist, scratch), **quick, **subsets}
    return run_configs([*stage.configs, "evaluate.json"], settings)[1]


def _settings(run: Run, stage: Training, datalist: str, scratch: Path) -> dict[str, Any]:
    is_anatomical = isinstance(run.data, Phantom) and run.data.size is None
    spacing = {"spacing": list(ANATOMICAL_MM)} if is_anatomical else {}
    return {
        "datalist_file": datalist,
        "dataset_dir": str(Path(datalist).parent),
        "output_dir": str(scratch / "results"),
        "ckpt_dir": str(scratch / "models"),
        "seed": run.seed,
        **spacing,
        **stage.overrides,
    }
