"""One run: its trainings, its evaluation and its record, all through the bundle's own configs."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bundle import root_of
from bundle.benchmark.configs import run_configs
from bundle.benchmark.federated import make_federated
from bundle.benchmark.plan import Run, Training
from bundle.benchmark.provenance import circumstances, device_name, files_of
from bundle.benchmark.results import Result, compact_dice, record_path, write_record
from bundle.data.datalist import load_datalist
from bundle.evaluation.tables import read_csv
from bundle.modalities import BRATS_MODALITIES
from bundle.training.datasets import formable


def execute(
    run: Run,
    before: Mapping[str, Result],
    digests: Mapping[str, str],
    datalists: Mapping[str, str],
    output_dir: str,
    keep: bool = False,
    device: str | None = None,
) -> None:
    """Make a run in this process and write its record; what it prints goes into its log.

    An earlier attempt's files are forgotten: CPU time is only known of a run made in one go.

    Args:
        run: what to run.
        before: results of the runs in `run.after`, by name.
        digests: of the descriptions, by run name, for the record.
        datalists: the data from `prepare_data`, by run name.
        output_dir: the grid's folder; the run's own folder is in there.
        keep: True = leave checkpoints and reports in the run's folder.
        device: such as "cuda"; None = the configs'.
    """
    scratch = Path(output_dir) / "scratch" / run.name
    shutil.rmtree(scratch, ignore_errors=True)
    log = Path(output_dir) / "logs" / f"{run.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with output_into(log):
            made = _make(_on(device, run), datalists[run.name], scratch, before)
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


def _make(run: Run, datalist: str, scratch: Path, before: Mapping[str, Result]) -> dict[str, Any]:
    if run.federation is not None:
        return make_federated(run, datalist, scratch)
    training = load_datalist(datalist, BRATS_MODALITIES)["training"]
    usable = [item for item in training if formable(item, run.needs)]
    if not usable:
        needed = "+".join(run.needs)
        return {"not_possible": f"no case of {len(training)} has {needed}"}
    trained = [_train(run, stage, datalist, scratch, before) for stage in run.stages]
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


def _train(
    run: Run, stage: Training, datalist: str, scratch: Path, before: Mapping[str, Result]
) -> tuple[dict[str, Any], str]:
    """Make a stage: what it came to, and the type of device that it ran on."""
    epochs = epochs_of(run, stage, before)
    settings = {**_settings(run, stage, datalist, scratch), "max_epochs": epochs}
    parser, cost = run_configs(stage.configs, settings)
    made = {
        "configs": list(stage.configs),
        "epochs": epochs,
        "steps": parser.get_parsed_content("train#trainer").state.iteration,
        "training_cases": len(parser.get_parsed_content("train#dataset")),
        **cost,
    }
    return made, parser.get_parsed_content("device").type


def epochs_of(run: Run, stage: Training, before: Mapping[str, Result]) -> int:
    """Say how long a stage lasts: as planned, or as the CPU time of another run allows, at least 1.

    Args:
        run: whose stage it is.
        stage: the stage.
        before: results of the runs in `run.after`, by name.

    Raises:
        ValueError: the two runs that tell the time were made on different devices.
    """
    if stage.epochs is not None or run.same_time is None:
        return int(stage.epochs or 1)
    budget, pace = before[run.same_time.budget_of], before[run.same_time.pace_of]
    if budget.device != pace.device:
        raise ValueError(
            f"{run.name}: expected {budget.run.name} and {pace.run.name} of one device, whose "
            f"times can be compared, got {budget.device} and {pace.device}. Remove the record of "
            "one of them and make it again with the other's --device."
        )
    return max(1, round(budget.cpu_seconds / pace.epoch_cpu_seconds))


def _evaluate(run: Run, datalist: str, scratch: Path) -> dict[str, float]:
    stage = run.stages[-1]
    subsets = {} if run.subsets is None else {"evaluate_subsets": list(run.subsets)}
    quick = {"pictures": False, "validate#key_metric#mean_dice#hd95": False}
    settings = {**_settings(run, stage, datalist, scratch), **quick, **subsets}
    return run_configs([*stage.configs, "evaluate.json"], settings)[1]


def _settings(run: Run, stage: Training, datalist: str, scratch: Path) -> dict[str, Any]:
    return {
        "datalist_file": datalist,
        "dataset_dir": str(Path(datalist).parent),
        "output_dir": str(scratch / "results"),
        "ckpt_dir": str(scratch / "models"),
        "seed": run.seed,
        **stage.overrides,
    }
