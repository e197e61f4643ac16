"""A whole federation on one machine, on made-up data: `python -m federation.simulate`.

Four sites that own different modalities, NVFlare's simulator, the tables and a picture.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from nvflare.recipe import SimEnv

from bundle.atomic import write_text_atomically
from bundle.cli.command import main
from bundle.cli.kinds import Names, PathText
from bundle.data.partition import parse_plan, partition
from bundle.evaluation.tables import markdown
from bundle.modalities import BRATS_MODALITIES
from bundle.phantom import PRETRAINING_PATCHES
from bundle.phantom.data_set import ensure_phantom
from federation.job import ModalityRecipe, Plan
from federation.policy import allow
from federation.protocol.site_text import in_cell
from federation.protocol.stages import Stage, read_workflow
from federation.server.persistor import PRETRAINED
from federation.server.round_log import ROUNDS, VALIDATIONS, read_log
from federation.server.rounds_picture import draw_rounds
from federation.settings import VARIABLE

# What site after site owns where only their number is given.
_OWNED = ("t1+t1ce+t2+flair", "t1ce+flair", "t1+t2", "t2")
CASES = {"training": 24, "validation": 12, "testing": 8}
# The configs of the universal model's two stages.
TRAINING = ("train.json", "federation.yaml", "benchmark.yaml")
PRETRAINING = (
    *("train.json", "pretrain.yaml", "federation.yaml", "federation_pretrain.yaml"),
    "benchmark.yaml",
)
# One place that has the cases of all sites, as they are there.
POOL = "pool"
HOW = ("together", "alone", "pooled")
# The bank of distributions does not leave a site.
_OWN_BANK = {
    "exchange#additive_statistics": [],
    "exchange#private_parameters": [r"^distribution\.bank\."],
}
_MEBIBYTE = 2**20


def named_sites(count: int) -> str:
    """Write the plan of so many sites, which own what the four of the demonstration do, in turn."""
    owned = itertools.cycle(_OWNED)
    return ";".join(f"site-{number}:{next(owned)}" for number in range(1, count + 1))


SITES = named_sites(len(_OWNED))


def demo_plan(
    name: str = "modality_aware",
    rounds: int = 20,
    local_epochs: int = 1,
    pretrain_rounds: int = 6,
    sites: int = 4,
    settings: Mapping[str, Any] | None = None,
    configs: Sequence[str] = TRAINING,
    pretrain_epochs: int = 1,
    own_banks: bool = False,
) -> Plan:
    """Plan the demonstration: pre-training, then training, at the size of benchmark.yaml."""
    changes = dict(settings or {})
    stages = []
    if pretrain_rounds:
        own = _OWN_BANK if own_banks else {}
        first = {**PRETRAINING_PATCHES, **changes, **own}
        stages.append(Stage("pretrain", PRETRAINING, pretrain_rounds, pretrain_epochs, first))
    stages.append(Stage("train", tuple(configs), rounds, local_epochs, changes))
    return Plan(
        name,
        stages,
        quorum={"min_sites": sites, "round_timeout": 600.0, "grace": 60.0},
        validate_interval=max(1, rounds // 5),
        own_process=False,
    )


def prepare_sites(
    folder: Path,
    plan: str,
    cases: Mapping[str, int],
    size: int,
    seed: int,
    datalist: str | None = None,
) -> list[str]:
    """Share out cases and write each site's own settings; return the sites.

    Args:
        folder: gets `sites/`, and `phantom/` where no `datalist` is given.
        plan: the sites and their modalities.
        cases: of the phantom's sections.
        size: edge of the phantom's cube, voxels.
        seed: of who gets which case, and of the phantom.
        datalist: the cases to share out; None = the phantom's.
    """
    if datalist is None:
        # An ellipsoid takes no time to make, and the simulation shows how sites work together.
        datalist = ensure_phantom(
            str(folder / "phantom"), sections=cases, anatomy="simple", size=size, seed=seed
        )
    partition(datalist, folder / "sites", plan=plan, seed=seed)
    names = list(parse_plan(plan, BRATS_MODALITIES))
    for name in names:
        _write_settings(folder, name, f"{name}.json")
    server = yaml.safe_dump({"state_dir": "../state/server"})
    (folder / "sites" / "server.yaml").write_text(server, encoding="utf-8")
    return names


def _write_settings(folder: Path, site: str, datalist: str) -> None:
    own = {"datalist_file": datalist, "cache_dir": None, "state_dir": f"../state/{site}"}
    # All sites are this machine: sums over few cases leave nobody.
    own["rules"] = {"statistics_of_few": True}
    (folder / "sites" / f"{site}.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")


def run_in_simulator(
    plan: Plan, folder: Path, sites: Sequence[str], threads: int | None = None
) -> Path:
    """Run a plan.

    Args:
        plan: what to run.
        folder: with what `prepare_sites` wrote.
        sites: who takes part.
        threads: how many sites work at once, each of which holds its data and its network in
            memory; None = all.

    Returns:
        The server's folder of the federation, with a folder for each stage.
    """
    workspace = folder / "simulation"
    shutil.rmtree(workspace, ignore_errors=True)
    allow(workspace / plan.name / "local")
    os.environ[VARIABLE] = str(folder / "sites" / "{site}.yaml")
    at_once = min(len(sites), threads or len(sites))
    environment = SimEnv(clients=list(sites), num_threads=at_once, workspace_root=str(workspace))
    ModalityRecipe(plan).execute(environment)
    return folder / "state" / "server" / (plan.federation or plan.name)


def evaluate(stage: Stage, model: Path, datalist: Path, folder: Path) -> str:
    """Score an exported model on the test cases, which no site had, on every subset: the table."""
    evaluation = Stage("evaluate", (*stage.configs, "evaluate.json"), 0, 1, stage.settings)
    settings = {
        "datalist_file": str(datalist),
        "ckpt_dir": str(model.parent),
        "output_dir": str(folder),
        "pictures": False,
        "validate#key_metric#mean_dice#hd95": False,
    }
    workflow = read_workflow(evaluation, settings)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return (folder / "table.md").read_text(encoding="utf-8")


def bytes_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Write what each site sent in each round, in MiB, and the most memory that it held.

    Beside a round's seconds stand those in which its slowest site did not work: waiting, the wire,
    and what the server does.
    """
    sites = sorted({site for entry in entries for site in entry["sites"]})
    rows = []
    for entry in entries:
        sent = (entry["sites"].get(site) for site in sites)
        cells = (f"{s['bytes'] / _MEBIBYTE:.2f}" if s else "-" for s in sent)
        idle = entry["seconds"] - max(
            (s.get("seconds", 0) for s in entry["sites"].values()), default=0
        )
        rows.append([str(entry["round"]), f"{entry['seconds']:.1f}", f"{idle:.1f}", *cells])
    peaks = [
        max(e["sites"][site].get("peak_memory_mib", 0) for e in entries if site in e["sites"])
        for site in sites
    ]
    rows.append(["peak memory, MiB", "", "", *map(str, peaks)])
    return markdown(["round", "seconds", "of it idle", *map(in_cell, sites)], rows)


def bytes_sent(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """List the bytes that each site sent, round by round, without rounds that it missed."""
    sites = sorted({site for entry in entries for site in entry["sites"]})
    return {s: [e["sites"][s]["bytes"] for e in entries if s in e["sites"]] for s in sites}


def groups_of(names: Sequence[str], how: str) -> dict[str, list[str]]:
    """Say who trains with whom: the name of each model that comes of it -> its sites.

    Raises:
        ValueError: `how` is none of `HOW`.
    """
    if how not in HOW:
        raise ValueError(f"how: expected one of {list(HOW)}, got {how!r}")
    if how == "alone":
        return {name: [name] for name in names}
    return {"global": [POOL] if how == "pooled" else list(names)}


def record_models(
    make_plan: Callable[[int], Plan],
    groups: Mapping[str, Sequence[str]],
    folder: Path,
    threads: int | None = None,
) -> dict[str, Any]:
    """Train a federation for each group of sites and score its model.

    Args:
        make_plan: gives the plan for so many sites.
        groups: see `groups_of`.
        folder: with what `prepare_sites` wrote.
        threads: see `run_in_simulator`.

    Returns:
        Plain values. `datalist`: all cases. `models`: for each of them `scores`, a file of Dice by
        case, subset and region; `pretrained`, the file of the pre-trained network, None = there was
        no pre-training; and `sent`, as `bytes_sent` gives it. `pretraining`: its `configs` and
        `settings`, or None.
    """
    datalist = folder / "sites" / "datalist.json"
    models: dict[str, Any] = {}
    for whose, sites in groups.items():
        # Each site alone is a federation of its own.
        plan = make_plan(len(sites))
        plan = plan.with_changes(name=f"{plan.name}_{whose}", validate_interval=0)
        server = run_in_simulator(plan, folder, sites, threads)
        first, last = plan.stages[0], plan.stages[-1]
        scores = folder / "scores" / whose
        evaluate(last, server / last.task / "model.pt", datalist, scores)
        pretrained = server / first.task / PRETRAINED if first is not last else None
        models[whose] = {
            "scores": str(scores / "scores.csv"),
            "pretrained": pretrained and str(pretrained),
            "sent": bytes_sent(read_log(server / last.task / ROUNDS)),
        }
    before = None
    if first is not last:
        before = {"configs": list(first.configs), "settings": dict(first.settings)}
    return {"datalist": str(datalist), "models": models, "pretraining": before}


def simulate(
    output_dir: PathText = "federation_demo",
    rounds: int = 20,
    local_epochs: int = 1,
    pretrain_rounds: int = 6,
    sites: str | int = SITES,
    size: int = 48,
    seed: int = 0,
    datalist: PathText | None = None,
    configs: Names = TRAINING,
    pretrain_epochs: int = 1,
    own_banks: bool = False,
    half_precision: bool = True,
    settings: PathText | None = None,
    how: str = "together",
    record: PathText | None = None,
    threads: int | None = None,
) -> None:
    """Run a federation of made-up sites on this machine, and report.

    Args:
        output_dir: gets data, state, logs, tables, rounds.png and models/model.pt.
        rounds: of the training.
        local_epochs: passes of ten steps at each site and round of the training.
        pretrain_rounds: of the masked pre-training before it, the first of which only adds up the
            sites' statistics; 0 = none.
        sites: their names and modalities, as `python -m bundle partition --plan` takes them; or how
            many, which own what the four of the demonstration do, in turn.
        size: edge of the phantom's cube, voxels.
        seed: of the phantom and of who gets which case.
        datalist: cases to share out instead of the phantom's.
        configs: of the training, such as train.json,federation.yaml,benchmark.yaml.
        pretrain_epochs: passes at each site and round of the pre-training.
        own_banks: keep each site's bank of distributions at the site; then no round adds them up.
        half_precision: send 16 bits a number.
        settings: a JSON file with ids of the configs and their values, for both stages.
        how: together; alone = every site by itself; pooled = all cases in one place.
        record: a JSON file for what was made, for programs; then nothing else is reported.
        threads: how many sites work at once, the others wait; default all. A site at work takes 1.3
            to 1.5 GB of memory.

    Raises:
        ValueError: `how` is none of the three, or not together and no `record` is asked for; or
            fewer threads than one.
    """
    started, folder = time.monotonic(), Path(output_dir).resolve()
    if how != "together" and record is None:
        raise ValueError(f"how: expected together where there is no --record, got {how!r}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads: expected at least 1, got {threads}")
    sites = named_sites(sites) if isinstance(sites, int) else sites
    names = prepare_sites(folder, sites, CASES, size, seed, datalist)
    groups = groups_of(names, how)
    if how == "pooled":
        _write_settings(folder, POOL, "datalist.json")
    chosen = json.loads(Path(settings).read_text(encoding="utf-8")) if settings else {}

    def make_plan(count: int) -> Plan:
        plan = demo_plan(
            rounds=rounds,
            local_epochs=local_epochs,
            pretrain_rounds=pretrain_rounds,
            sites=count,
            settings=chosen,
            configs=configs,
            pretrain_epochs=pretrain_epochs,
            own_banks=own_banks,
        )
        # Sites that take turns need as many turns.
        turns = math.ceil(count / (threads or count))
        waits = {**plan.quorum, "round_timeout": plan.quorum["round_timeout"] * turns}
        return plan.with_changes(half_precision=half_precision, quorum=waits)

    if record is not None:
        made = record_models(make_plan, groups, folder, threads)
        write_text_atomically(record, json.dumps(made, indent=1) + "\n")
        return
    report(make_plan(len(names)), names, folder, threads)
    print(f"{time.monotonic() - started:.0f} s. Look at {folder / 'rounds.png'}.")


def report(plan: Plan, names: Sequence[str], folder: Path, threads: int | None = None) -> None:
    """Run a plan and print its tables; the picture and the model go into the folder."""
    server = run_in_simulator(plan, folder, names, threads)
    train = plan.stages[-1]
    models = folder / "models"
    models.mkdir(exist_ok=True)
    for name in ("model.pt", "model.json"):
        shutil.copy2(server / train.task / name, models / name)
    table = evaluate(train, models / "model.pt", folder / "sites" / "datalist.json", folder)
    validations = read_log(server / train.task / VALIDATIONS)
    draw_rounds(validations, folder / "rounds.png")
    for stage in plan.stages:
        print(f"\n# Coverage of the stage {stage.task}\n")
        print((server / stage.task / "coverage.md").read_text(encoding="utf-8"))
        print(f"# MiB sent in each round of the stage {stage.task}\n")
        print(bytes_table(read_log(server / stage.task / ROUNDS)))
    print("\n" + (server / train.task / "tables.md").read_text(encoding="utf-8"))
    print("# Global model on test cases that no site had\n")
    print(table)


if __name__ == "__main__":
    main(simulate, "python -m federation.simulate")
