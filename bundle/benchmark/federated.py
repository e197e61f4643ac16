"""Grid `federation`: what several sites gain by training together, beside what they could do else.

A federation is run as a process, `python -m federation.simulate`, so that this package imports
nothing of it; what it needs is said in options, and what it made is read from a JSON file.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bundle
from bundle.benchmark.plan import Federation, Phantom, Run, RunGrid
from bundle.benchmark.rebuilding import score_pretrained
from bundle.benchmark.results import compact_dice, file_name
from bundle.evaluation.tables import read_csv

SITES = "site-1:t1+t1ce+t2+flair;site-2:t1ce+flair;site-3:t1+t2;site-4:t2"
# More cases to test on than the demonstration has; none of them is at a site.
CASES = Phantom(training=24, validation=12, testing=16, size=48)
_UNET = "train.json,method_modality_dropout.yaml,"
_PLAIN, _AWARE = (
    {"configs": f"{_UNET}{name},benchmark.yaml"}
    for name in ("federation_plain.yaml", "federation_unet.yaml")
)
TOGETHER, ALONE, POOLED = "together", "alone", "pooled"
# What each arm tells `federation.simulate`, by its label; the most telling ones first, since a
# seed may be stopped half-way. With configs of its own an arm has no pre-training. A round is one
# pass of ten steps at each site; the pool makes those of four sites.
ARMS: Mapping[str, Mapping[str, Any]] = {
    "universal": {},
    "alone": {"how": ALONE},
    "fedavg": _PLAIN,
    "modality_dropout": _AWARE,
    "pooled": {"how": POOLED, "local_epochs": 4, "pretrain_epochs": 4},
    "universal with own banks": {"own_banks": True},
    "pooled with one site's steps": {"how": POOLED},
    "modality_dropout alone": {**_AWARE, "how": ALONE},
    "modality_dropout in 32 bits": {**_AWARE, "half_precision": False},
}
# The third site has these two and has never seen FLAIR.
REBUILT, GIVEN = "flair", ("t1", "t2")


def federation(
    seeds: Sequence[int] = (0, 1, 2),
    rounds: int = 20,
    pretrain_rounds: int = 5,
    sites: str = SITES,
    phantom: Phantom = CASES,
    settings: Mapping[str, Any] | None = None,
) -> RunGrid:
    """Plan the evidence for federated training.

    Args:
        seeds: of who gets which case, of weights and order; the cases are the same for all.
        rounds: of the training.
        pretrain_rounds: of the universal model's pre-training before it; the U-Net trains for the
            sum of both.
        sites: who has which modalities.
        phantom: the data.
        settings: further ids of the configs.
    """
    runs = tuple(
        Run(
            name=f"{file_name(label)}-seed_{seed}",
            label=label,
            group="federation",
            ratio=0.0,
            seed=seed,
            stages=(),
            data=phantom,
            federation=Federation(options, rounds, pretrain_rounds, sites, dict(settings or {})),
        )
        for seed in seeds
        for label, options in ARMS.items()
    )
    # A simulation keeps several processor cores busy.
    return RunGrid("federation", "universal", "alone", runs, folder=".", at_once=1)


def rounds_of(plan: Federation) -> dict[str, int]:
    """Say how many rounds each stage lasts.

    A pre-training whose bank is shared has one round more, which only adds up statistics.
    """
    if "configs" in plan.options:
        return {"rounds": plan.rounds + plan.pretrain_rounds, "pretrain_rounds": 0}
    collecting = 0 if plan.options.get("own_banks") else 1
    return {"rounds": plan.rounds, "pretrain_rounds": plan.pretrain_rounds + collecting}


def command(run: Run, datalist: str, scratch: Path) -> list[str]:
    """Write the command that trains an arm in the folder `scratch`.

    Its last words name the files of settings, which is read, and of the record, which is written.
    """
    plan = run.federation
    assert plan is not None
    options = {
        "output_dir": scratch,
        "datalist": datalist,
        "sites": plan.sites,
        "seed": run.seed,
        **rounds_of(plan),
        **plan.options,
        "settings": scratch / "settings.json",
        "record": scratch / "record.json",
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "federation.simulate", *words]


def make_federated(run: Run, datalist: str, scratch: Path) -> dict[str, Any]:
    """Train an arm, and score what comes of it on cases that no site had.

    Returns:
        `models`: by the site whose model it is, or `global`, the Dice of each case on every subset;
        `seconds` of wall time; and of a federation what each site `sent`, in bytes a round, and
        `rebuilt`, how well the pre-trained network rebuilds a scan that some site lacks.

    Raises:
        ValueError: NVFlare is not installed.
        RuntimeError: the process failed; its output is in the run's log.
    """
    if importlib.util.find_spec("nvflare") is None:
        raise ValueError(
            "grid federation: expected NVFlare, found no package nvflare. Install it with "
            "python -m pip install -c constraints.txt -e '.[fl]'"
        )
    started = time.monotonic()
    plan = run.federation
    assert plan is not None
    how = plan.options.get("how", TOGETHER)
    scratch = scratch.absolute()
    scratch.mkdir(parents=True)
    settings = {**plan.settings, "seed": run.seed}
    (scratch / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    _start(command(run, datalist, scratch))
    told = json.loads((scratch / "record.json").read_text(encoding="utf-8"))
    models, sent, rebuilt = {}, {}, {}
    for whose, model in told["models"].items():
        cases, dice = compact_dice(read_csv(model["scores"]))
        models[whose] = {"cases": cases, "dice": dice}
        if how == TOGETHER:
            sent = {site: round(sum(b) / len(b)) for site, b in sorted(model["sent"].items())}
        if how != ALONE and model["pretrained"] is not None:
            scores = score_pretrained(
                told["pretraining"]["configs"],
                {**told["pretraining"]["settings"], "datalist_file": told["datalist"]},
                model["pretrained"],
                REBUILT,
                GIVEN,
            )
            rebuilt = {"modality": REBUILT, "given": list(GIVEN), **scores}
    seconds = round(time.monotonic() - started, 1)
    return {"models": models, "sent": sent, "rebuilt": rebuilt, "seconds": seconds}


def _start(words: Sequence[str]) -> None:
    """Run a command with this bundle's packages on Python's path; its output goes where ours does.

    Raises:
        RuntimeError: it failed.
    """
    root = Path(bundle.ROOT)
    inherited = os.environ.get("PYTHONPATH", "")
    paths = [str(root), str(root / "custom"), *filter(None, [inherited])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    # A worker leaves Ctrl-C to its parent; what it starts would be deaf to it, too, and go on.
    process = subprocess.run(words, env=environment, preexec_fn=_hear_interrupts)
    if process.returncode:
        raise RuntimeError(
            f"federation.simulate ended with {process.returncode}, expected 0. Its own words are "
            "in the run's log."
        )


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
