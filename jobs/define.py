"""Writes the submit-ready job folders: `python jobs/define.py` from the bundle's folder.

Each folder holds two configurations and no code: server and sites have the bundle installed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from federation.census import CensusRecipe
from federation.job import ModalityRecipe, Plan, Privacy
from federation.protocol.stages import Stage, installed_identity
from nvflare.recipe.spec import Recipe

from bundle.cli.command import main
from bundle.cli.kinds import Names, PathText, Table

FOLDER = Path(__file__).resolve().parent
# Two sites at least: the average of one is that one's own model.
QUORUM: Mapping[str, Any] = {
    "min_sites": 2,
    "min_holders": 1,
    "round_timeout": 14400.0,
    "grace": 600.0,
    "attempts": 3,
}
TRAIN, PRETRAIN = ("train.json",), ("train.json", "pretrain.yaml")
# What a word becomes for each of them.
_QUORUM_KINDS = {name: type(value) for name, value in QUORUM.items()}
# By method: the overlays of its training, and whether masked pre-training comes first.
METHODS: Mapping[str, tuple[Sequence[str], bool]] = {
    "universal": (("federation.yaml",), True),
    "modality_dropout": (("method_modality_dropout.yaml", "federation_unet.yaml"), False),
    "lckd": (("method_lckd.yaml", "federation_lckd.yaml"), False),
    "gmd": (("method_gmd.yaml", "federation_gmd.yaml"), False),
}


@dataclasses.dataclass(frozen=True)
class Choices:
    """The choices for a job.

    Attributes:
        method: a key of `METHODS`; for `modality_aware`, `private` and `evaluate`.
        rounds, pretrain_rounds, local_epochs: how long; pretrain_rounds 0 = no pre-training.
        overlays: config files that come last, such as brats2021_small.yaml.
        settings: ids of the configs and their plain values.
    """

    method: str = "universal"
    rounds: int = 100
    pretrain_rounds: int = 30
    local_epochs: int = 1
    overlays: Sequence[str] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def stage(self, task: str, configs: Sequence[str], rounds: int, **others: Any) -> Stage:
        """Make a stage of these configs and the choices."""
        every = (*configs, *self.overlays)
        return Stage(task, every, rounds, self.local_epochs, self.settings, **others)

    def training(self, *more: str) -> list[Stage]:
        """Make the stages of the method, `more` overlays laid over its own."""
        if self.method not in METHODS:
            raise ValueError(f"method: expected one of {list(METHODS)}, got {self.method!r}")
        own, has_pretraining = METHODS[self.method]
        stages = []
        if has_pretraining and self.pretrain_rounds:
            configs = (*PRETRAIN, "federation.yaml", "federation_pretrain.yaml")
            stages.append(self.stage("pretrain", configs, self.pretrain_rounds))
        return [*stages, self.stage("train", (*TRAIN, *own, *more), self.rounds)]


def fedavg(choices: Choices) -> Plan:
    """Plain federated averaging of a U-Net with zero fill: the baseline."""
    configs = (*TRAIN, "method_modality_dropout.yaml", "federation_plain.yaml")
    return Plan("fedavg", [choices.stage("train", configs, choices.rounds)])


def modality_aware(choices: Choices) -> Plan:
    """Each modality's parameters averaged over its holders, by their cases: the default."""
    return Plan("modality_aware", choices.training())


def personalised(choices: Choices) -> Plan:
    """As `modality_aware`, for the universal model; normalisation layers stay at the site."""
    universal = dataclasses.replace(choices, method="universal")
    return Plan("personalised", universal.training("federation_personalised.yaml"))


def private(choices: Choices) -> Plan:
    """Clipped updates with Gaussian noise; without pre-training, whose sums it cannot protect."""
    alone = dataclasses.replace(choices, pretrain_rounds=0, rounds=min(choices.rounds, 20))
    return Plan("private", alone.training(), privacy=Privacy(clip_norm=1.0, noise_multiplier=2.0))


def evaluate(choices: Choices) -> Plan:
    """Score the model of the federation `modality_aware` at every site, on its test cases."""
    last = choices.training()[-1]
    stage = dataclasses.replace(last, rounds=0, section="testing")
    return Plan("evaluate", [stage], federation="modality_aware")


JOBS: Mapping[str, Callable[[Choices], Plan]] = {
    job.__name__: job for job in (fedavg, modality_aware, personalised, private, evaluate)
}


# A job that counts cases and trains nothing.
CENSUS = "census"


def plan_job(
    name: str, choices: Choices, pin: bool = False, accept_changes: bool = False, **changes: Any
) -> Plan:
    """Plan one of the jobs.

    Args:
        name: a key of `JOBS`.
        choices: the choices.
        pin: True = sites need exactly this bundle; False = they need the server's.
        accept_changes: see `Stage`.
        changes: attributes of the plan and their values.

    Raises:
        ValueError: no such job or method.
    """
    if name not in JOBS:
        raise ValueError(f"expected one of the jobs {list(JOBS)}, got {name!r}")
    plan = JOBS[name](choices)
    stages = [dataclasses.replace(stage, accept_changes=accept_changes) for stage in plan.stages]
    if pin:
        stages = [
            dataclasses.replace(stage, identity=installed_identity(stage)._asdict())
            for stage in stages
        ]
    settings = {"quorum": QUORUM, "validate_interval": 10, **changes}
    return plan.with_changes(stages=stages, **settings)


def write_job(recipe: Recipe, name: str, output_dir: str | Path) -> Path:
    """Write a job's folder; NVFlare's files get a newline at their end."""
    recipe.export(str(output_dir))
    folder = Path(output_dir) / name
    for path in folder.rglob("*.json"):
        path.write_text(path.read_text(encoding="utf-8").rstrip() + "\n", encoding="utf-8")
    return folder


def define(
    output_dir: PathText = str(FOLDER),
    only: str | None = None,
    method: str = "universal",
    rounds: int = 100,
    pretrain_rounds: int = 30,
    local_epochs: int = 1,
    overlays: Names = (),
    settings: Table | None = None,
    federation: str | None = None,
    resume: bool = False,
    accept_changes: bool = False,
    pin: bool = False,
    norm_bound: float | None = None,
    site_cases: Table | None = None,
    case_factor: float | None = None,
    robust: str | None = None,
    **quorum: Any,
) -> None:
    """Write job folders, which `nvflare job submit -j FOLDER` takes.

    Args:
        output_dir: gets a folder for each job.
        only: write one job: fedavg, modality_aware, personalised, private, evaluate or census.
        method: universal, modality_dropout, lckd or gmd.
        rounds: of the training.
        pretrain_rounds: of masked pre-training before it, for the universal method; 0 = none.
        local_epochs: a site's passes over its data in each round.
        overlays: config files that come last, such as brats2021_small.yaml.
        settings: ids and plain values, such as '{batch_size: 1}'.
        federation: the name under which server and sites keep their state; default the job's.
        resume: go on after the last round of an earlier job of this federation.
        accept_changes: resume it with other settings, or another bundle, than it was made with.
            Server and sites refuse that else, and the server writes down what has changed.
        pin: write the hash of this bundle into the job. Sites with another bundle are refused.
        norm_bound: refuse an update whose L2 norm is larger. The round reports have the norms of
            ordinary rounds.
        site_cases: your own list of sites and their training cases, such as '{site-1: 200}'. A site
            counts no more, and one that is not in it is refused.
        case_factor: without such a list, how many times the median of the sites one may count; 10.
        robust: how to average: none (weighted mean), clipped or trimmed, see docs/federation.md.
        quorum: min_sites, min_holders, round_timeout and grace in seconds, attempts.
    """
    unknown = sorted(set(quorum) - set(QUORUM))
    if unknown:
        raise ValueError(f"expected options of this command or of {list(QUORUM)}, got {unknown}")
    choices = Choices(method, rounds, pretrain_rounds, local_epochs, overlays, settings or {})
    trust = {"site_cases": site_cases, "case_factor": case_factor, "robust": robust}
    changes: dict[str, Any] = {
        "resume": resume,
        "accept_changes": accept_changes,
        "norm_bound": norm_bound,
        "trust": {name: value for name, value in trust.items() if value is not None},
        "quorum": {**QUORUM, **quorum},
    }
    if federation is not None:
        changes["federation"] = federation
    for name in JOBS if only is None else {only} - {CENSUS}:
        write_job(ModalityRecipe(plan_job(name, choices, pin, **changes)), name, output_dir)
        print(f"wrote {Path(output_dir) / name}")
    if only in (None, CENSUS):
        write_job(CensusRecipe(CENSUS), CENSUS, output_dir)
        print(f"wrote {Path(output_dir) / CENSUS}")


if __name__ == "__main__":
    main(define, "python jobs/define.py", _QUORUM_KINDS)
