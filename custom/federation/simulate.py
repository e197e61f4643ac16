"""A whole federation on one machine, on made-up data: `python -m federation.simulate`.

Four sites that own different modalities, NVFlare's simulator, the tables and a picture.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fire
import yaml
from nvflare.recipe import SimEnv

from bundle.data.partition import parse_plan, partition
from bundle.modalities import BRATS_MODALITIES
from bundle.phantom.data_set import ensure_phantom
from federation.job import ModalityRecipe, Plan
from federation.policy import allow
from federation.protocol.stages import Stage, read_workflow
from federation.server.round_log import ROUNDS, VALIDATIONS, read_log
from federation.server.rounds_picture import draw_rounds
from federation.settings import VARIABLE

SITES = "site-1:t1+t1ce+t2+flair;site-2:t1ce+flair;site-3:t1+t2;site-4:t2"
CASES = {"training": 24, "validation": 12, "testing": 8}
# Of the phantom's crops of 32 voxels a side.
PATCHES = {"patch": 8, "descriptor_patch": 4}
_MEBIBYTE = 2**20


def demo_plan(
    name: str = "modality_aware",
    rounds: int = 20,
    local_epochs: int = 1,
    pretrain_rounds: int = 6,
    sites: int = 4,
    settings: Mapping[str, Any] | None = None,
) -> Plan:
    """Plan the demonstration: pre-training, then training, at the size of benchmark.yaml."""
    changes = dict(settings or {})
    stages = []
    if pretrain_rounds:
        configs = ("pretrain.yaml", "federation.yaml", "federation_pretrain.yaml", "benchmark.yaml")
        stages.append(
            Stage("pretrain", ("train.json", *configs), pretrain_rounds, 1, {**PATCHES, **changes})
        )
    configs = ("train.json", "federation.yaml", "benchmark.yaml")
    stages.append(Stage("train", configs, rounds, local_epochs, changes))
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
    phantom_seed: int | None = None,
) -> list[str]:
    """Write the phantom, share it out, and write each site's own settings; return the sites.

    `seed` says who gets which case, and, where `phantom_seed` is None, what cases there are.
    """
    made = seed if phantom_seed is None else phantom_seed
    datalist = ensure_phantom(str(folder / "phantom"), sections=cases, size=size, seed=made)
    sites_dir = folder / "sites"
    partition(datalist, sites_dir, plan=plan, seed=seed)
    names = list(parse_plan(plan, BRATS_MODALITIES))
    for name in names:
        own = {"datalist_file": f"{name}.json", "cache_dir": None, "state_dir": f"../state/{name}"}
        (sites_dir / f"{name}.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    server = yaml.safe_dump({"state_dir": "../state/server"})
    (sites_dir / "server.yaml").write_text(server, encoding="utf-8")
    return names


def run_in_simulator(plan: Plan, folder: Path, sites: Sequence[str]) -> Path:
    """Run a plan; return the server's folder of the federation, with a folder for each stage."""
    workspace = folder / "simulation"
    shutil.rmtree(workspace, ignore_errors=True)
    allow(workspace / plan.name / "local")
    os.environ[VARIABLE] = str(folder / "sites" / "{site}.yaml")
    environment = SimEnv(clients=list(sites), num_threads=len(sites), workspace_root=str(workspace))
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
    head = ["round", "seconds", "of it idle", *sites]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for entry in entries:
        sent = (entry["sites"].get(site) for site in sites)
        cells = (f"{s['bytes'] / _MEBIBYTE:.2f}" if s else "-" for s in sent)
        idle = entry["seconds"] - max((s["seconds"] for s in entry["sites"].values()), default=0)
        lines.append(
            f"| {entry['round']} | {entry['seconds']:.1f} | {idle:.1f} | {' | '.join(cells)} |"
        )
    peaks = [
        max(e["sites"][site].get("peak_memory_mib", 0) for e in entries if site in e["sites"])
        for site in sites
    ]
    lines.append(f"| peak memory, MiB | | | {' | '.join(map(str, peaks))} |")
    return "\n".join(lines)


def simulate(
    output_dir: str = "federation_demo",
    rounds: int = 20,
    local_epochs: int = 1,
    pretrain_rounds: int = 6,
    sites: str = SITES,
    size: int = 48,
    seed: int = 0,
) -> None:
    """Run a federation of made-up sites on this machine, and report.

    Args:
        output_dir: gets data, state, logs, tables, rounds.png and models/model.pt.
        rounds: of the training.
        local_epochs: passes of ten steps at each site and round.
        pretrain_rounds: of the masked pre-training before it, the first of which only adds up the
            sites' statistics; 0 = none.
        sites: their names and modalities, as `python -m bundle partition --plan` takes them.
        size: edge of the phantom's cube, voxels.
        seed: of the phantom and of who gets which case.
    """
    started, folder = time.monotonic(), Path(output_dir).resolve()
    names = prepare_sites(folder, sites, CASES, size, seed)
    plan = demo_plan(
        rounds=rounds,
        local_epochs=local_epochs,
        pretrain_rounds=pretrain_rounds,
        sites=len(names),
    )
    server = run_in_simulator(plan, folder, names)
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
    print(f"{time.monotonic() - started:.0f} s. Look at {folder / 'rounds.png'}.")


if __name__ == "__main__":
    fire.Fire(simulate)
