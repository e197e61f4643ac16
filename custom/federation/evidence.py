"""What federating brings, measured: `python -m federation.evidence OUTPUT_DIR`.

The federation of `federation.simulate` on made-up data, beside each site alone, plain federated
averaging, and all data in one place. A record for each run; a stopped measurement goes on.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fire
import torch
import yaml
from tqdm import tqdm

from bundle.atomic import write_text_atomically
from bundle.benchmark.pool import process_pool
from bundle.benchmark.provenance import circumstances
from bundle.benchmark.rebuilding import score_network
from bundle.benchmark.results import compact_dice
from bundle.benchmark.runs import output_into
from bundle.evaluation.tables import read_csv
from bundle.modalities import BRATS_MODALITIES, subset_name
from bundle.training.datasets import CaseSubsets, labelled_cases
from bundle.training.weights import load_weights
from federation.evidence_report import write_report
from federation.job import Plan
from federation.protocol.stages import Stage, read_workflow
from federation.server.persistor import PRETRAINED
from federation.server.round_log import ROUNDS, read_log
from federation.simulate import SITES, demo_plan, evaluate, prepare_sites, run_in_simulator

# More cases to test on than the demonstration has; none of them is at a site.
CASES = {"training": 24, "validation": 12, "testing": 16}
POOL = "pool"
# The first round of a pre-training with a shared bank only adds up statistics.
ROUNDS_OF_TRAINING, ROUNDS_OF_PRETRAINING = 20, 5
UNET = ("train.json", "method_modality_dropout.yaml")
_OWN_BANK = {
    "exchange#additive_statistics": [],
    "exchange#private_parameters": [r"^distribution\.bank\."],
}


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        overlays: configs of a training without pre-training; () = the universal model.
        alone: True = every site by itself.
        pooled: True = all sites' cases in one place.
        passes: epochs a round, of ten steps each.
        own_banks: True = the distribution bank does not leave a site.
        half_precision: as in `Plan`.
    """

    overlays: Sequence[str] = ()
    alone: bool = False
    pooled: bool = False
    passes: int = 1
    own_banks: bool = False
    half_precision: bool = True


# By the name in the report; the most telling ones first, since a seed may be stopped half-way.
ARMS: Mapping[str, Arm] = {
    "universal": Arm(),
    "alone": Arm(alone=True),
    "fedavg": Arm((*UNET, "federation_plain.yaml")),
    "modality_dropout": Arm((*UNET, "federation_unet.yaml")),
    "pooled": Arm(pooled=True, passes=4),
    "universal with own banks": Arm(own_banks=True),
    "pooled with one site's steps": Arm(pooled=True),
    "modality_dropout alone": Arm((*UNET, "federation_unet.yaml"), alone=True),
    "modality_dropout in 32 bits": Arm((*UNET, "federation_unet.yaml"), half_precision=False),
}


@dataclass(frozen=True)
class Size:
    """How much is trained.

    Attributes:
        rounds, pretrain_rounds: with training in them; the U-Net trains for the sum.
        sites: as `python -m bundle partition --plan` takes them.
        cases: of the phantom's sections.
        edge: of the phantom, voxels.
        settings: further ids of the configs.
    """

    rounds: int = ROUNDS_OF_TRAINING
    pretrain_rounds: int = ROUNDS_OF_PRETRAINING
    sites: str = SITES
    cases: Mapping[str, int] = field(default_factory=lambda: CASES)
    edge: int = 48
    settings: Mapping[str, Any] = field(default_factory=dict)


def plan_arm(name: str, seed: int, sites: int, size: Size) -> Plan:
    """Plan an arm's federation of so many sites.

    Args:
        name: a key of `ARMS`; also in the federation's name.
        seed: of the weights and the order of cases.
        sites: how many take part; every round waits for all.
        size: how much is trained.
    """
    arm = ARMS[name]
    settings = {**size.settings, "seed": seed}
    word = _word(name)
    epochs = arm.passes
    if arm.overlays:
        rounds = size.rounds + size.pretrain_rounds
        stage = Stage("train", (*arm.overlays, "benchmark.yaml"), rounds, epochs, settings)
        plan = demo_plan(word, rounds, pretrain_rounds=0, sites=sites)
        plan = plan.with_changes(stages=[stage])
    else:
        collecting = 0 if arm.own_banks else 1
        plan = demo_plan(
            word, size.rounds, epochs, size.pretrain_rounds + collecting, sites, settings
        )
        first, last = plan.stages
        own = _OWN_BANK if arm.own_banks else {}
        first = replace(first, local_epochs=epochs, settings={**first.settings, **own})
        plan = plan.with_changes(stages=[first, last])
    return plan.with_changes(half_precision=arm.half_precision, validate_interval=0)


def measure(name: str, seed: int, folder: Path, size: Size) -> dict[str, Any]:
    """Train an arm and score what comes of it on cases that no site had.

    Returns:
        `models`: by the site whose model it is, or `global`, the Dice of each case on every subset;
        `seconds`; and of a federation what each site `sent`, in bytes a round, and `rebuilt`, how
        well the pre-trained network rebuilds a scan that some site lacks.
    """
    started = time.monotonic()
    arm, names = ARMS[name], _prepare(folder, size, seed)
    _add_pool(folder)
    if arm.alone:
        groups = {site: [site] for site in names}
    else:
        groups = {"global": [POOL] if arm.pooled else names}
    models, sent, rebuilt = {}, {}, {}
    for whose, sites in groups.items():
        plan = plan_arm(name, seed, len(sites), size)
        # Each site alone is a federation of its own.
        plan = plan.with_changes(name=f"{plan.name}_{whose}")
        server = run_in_simulator(plan, folder, sites)
        models[whose] = _score(plan.stages[-1], server, folder)
        if not arm.alone and not arm.pooled:
            sent = _bytes(read_log(server / "train" / ROUNDS))
        if len(plan.stages) > 1 and not arm.alone:
            rebuilt = _rebuild(plan.stages[0], server, folder)
    return {
        "models": models,
        "sent": sent,
        "rebuilt": rebuilt,
        "seconds": round(time.monotonic() - started, 1),
    }


def _prepare(folder: Path, size: Size, seed: int) -> list[str]:
    """Share out the same cases for every seed, so that all are tested on the same."""
    return prepare_sites(folder, size.sites, size.cases, size.edge, seed, phantom_seed=0)


def _add_pool(folder: Path) -> None:
    """Write the settings of one place that has the cases of all sites, as they are there."""
    own = {"datalist_file": "datalist.json", "cache_dir": None, "state_dir": f"../state/{POOL}"}
    (folder / "sites" / f"{POOL}.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")


def _score(stage: Stage, server: Path, folder: Path) -> dict[str, Any]:
    output = folder / "scores"
    shutil.rmtree(output, ignore_errors=True)
    datalist = folder / "sites" / "datalist.json"
    evaluate(stage, server / stage.task / "model.pt", datalist, output)
    cases, dice = compact_dice(read_csv(output / "scores.csv"))
    return {"cases": cases, "dice": dice}


def _bytes(entries: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Mean number of bytes that each site sends in a round."""
    sites = {site for entry in entries for site in entry["sites"]}
    sent = {s: [e["sites"][s]["bytes"] for e in entries if s in e["sites"]] for s in sites}
    return {site: round(sum(sizes) / len(sizes)) for site, sizes in sorted(sent.items())}


def _rebuild(stage: Stage, server: Path, folder: Path) -> dict[str, Any]:
    """Rebuild FLAIR from T1 and T2, which is what the third site would want."""
    given, target = ("t1", "t2"), "flair"
    datalist = str(folder / "sites" / "datalist.json")
    workflow = read_workflow(stage, {"datalist_file": datalist, "cache_dir": None})
    workflow.initialize()
    get = workflow.parser.get_parsed_content
    load_weights(get("network"), str(server / stage.task / PRETRAINED))
    cases = labelled_cases(get("datalist"), "testing")
    whole = subset_name(BRATS_MODALITIES, BRATS_MODALITIES)
    data = CaseSubsets(cases, get("validate#preprocessing"), BRATS_MODALITIES, [whole])
    volumes = [data[index] for index in range(len(data))]
    inferer = get("validate#inferer")
    scores = score_network(get("network"), volumes, target, inferer, given)
    return {"modality": target, "given": list(given), **scores}


def execute(name: str, seed: int, output_dir: str, work_dir: str, size: Size) -> None:
    """Measure an arm in this process and write its record; NVFlare's output goes into a log."""
    # NVFlare's processes run elsewhere.
    output, folder = Path(output_dir), Path(work_dir).resolve() / f"seed_{seed}"
    torch.manual_seed(seed)
    log = Path(work_dir) / "logs" / f"{record_name(name, seed)}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with output_into(log):
        found = measure(name, seed, folder, size)
    record = {"arm": name, "seed": seed, "size": _size(size), **circumstances(), **found}
    path = record_path(output, name, seed)
    write_text_atomically(path, json.dumps(record, allow_nan=False) + "\n")


def record_name(name: str, seed: int) -> str:
    """Name a run's record, such as 'universal_with_own_banks-seed_1'."""
    return f"{_word(name)}-seed_{seed}"


def _word(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def record_path(output_dir: str | Path, name: str, seed: int) -> Path:
    """Where a run's record lies once the run has finished."""
    return Path(output_dir) / "runs" / f"{record_name(name, seed)}.json"


def _size(size: Size) -> dict[str, Any]:
    return {
        **{"rounds": size.rounds, "pretrain_rounds": size.pretrain_rounds, "sites": size.sites},
        **{"cases": dict(size.cases), "edge": size.edge, "settings": dict(size.settings)},
    }


def read_records(output_dir: str | Path) -> list[dict[str, Any]]:
    """Read the records of all runs that have finished."""
    paths = sorted((Path(output_dir) / "runs").glob("*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def evidence(
    output_dir: str,
    seeds: Any = (0, 1, 2),
    arms: Any = None,
    work_dir: str | None = None,
    report_only: bool = False,
    size: Size = Size(),
    make_executor: Callable[[int], Executor] = process_pool,
) -> bool:
    """Measure what has no record yet, then write the report.

    Args:
        output_dir: gets runs/, report.md and a picture; the same one goes on where it was stopped.
        seeds: of who gets which case, weights and order.
        arms: which ones; default all.
        work_dir: for data, logs and NVFlare's folders; default output_dir/work.
        report_only: True = measure nothing.
        size: how much is trained.
        make_executor: given 1, gives what a run is submitted to.

    Returns:
        True = nothing failed.

    Raises:
        ValueError: no such arm, or records of another size in the folder.
    """
    wanted = list(ARMS) if arms is None else [arms] if isinstance(arms, str) else list(arms)
    unknown = [name for name in wanted if name not in ARMS]
    if unknown:
        raise ValueError(f"arms: expected some of {list(ARMS)}, got {unknown}")
    seeds = [seeds] if isinstance(seeds, int) else list(seeds)
    _check_size(read_records(output_dir), size)
    done = {(record["arm"], record["seed"]) for record in read_records(output_dir)}
    todo = [(a, s) for s in seeds for a in wanted if (a, s) not in done and not report_only]
    failures = []
    work = work_dir or str(Path(output_dir) / "work")
    try:
        for name, seed in tqdm(todo, "runs", unit="run", disable=None):
            if record_path(output_dir, name, seed).exists():
                continue  # another process in the same folder has been here
            with make_executor(1) as executor:
                future = executor.submit(execute, name, seed, str(output_dir), work, size)
                error = future.exception()
            if error is not None:
                failures.append(f"{name}, seed {seed}: {type(error).__name__}: {error}")
                tqdm.write(f"FAILED {failures[-1]}")
    finally:
        print(f"wrote {write_report(read_records(output_dir), output_dir)}")
    return not failures


def _check_size(records: Sequence[Mapping[str, Any]], size: Size) -> None:
    for record in records:
        if record["size"] != _size(size):
            raise ValueError(
                f"expected runs of {_size(size)}, got a record of {record['size']} (arm "
                f"{record['arm']}, seed {record['seed']}). Choose another output_dir."
            )


def main(
    output_dir: str,
    seeds: Any = (0, 1, 2),
    arms: Any = None,
    work_dir: str | None = None,
    report_only: bool = False,
) -> None:
    """Measure and report, see `evidence`; the exit status is 1 if a run failed."""
    if not evidence(output_dir, seeds, arms, work_dir, report_only):
        raise SystemExit(1)


if __name__ == "__main__":
    fire.Fire(main)
