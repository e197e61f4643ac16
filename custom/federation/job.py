"""Puts an NVFlare job together from the parts of the federation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from nvflare.job_config.api import FedJob
from nvflare.job_config.defs import FilterType
from nvflare.recipe.spec import Recipe

from federation.filters.half_precision import FullPrecision, HalfPrecision
from federation.filters.privacy import GaussianPrivacy
from federation.protocol.messages import VALIDATE
from federation.protocol.stages import Stage, read_workflow
from federation.server.aggregator import ModalityAggregator
from federation.server.controller import ModalityFedAvg
from federation.server.persistor import PRETRAINED, BundlePersistor
from federation.site.executor import BundleTrainer

# Seconds between two requests for a task; NVFlare's own 2 s are most of a short round.
_REQUEST_INTERVAL = 0.1
# Packages that every participant has installed, so that jobs carry no code.
_INSTALLED = ["bundle", "federation"]


@dataclass(frozen=True)
class Privacy:
    """Differential privacy of what leaves a site, see `filters.privacy.GaussianPrivacy`."""

    clip_norm: float
    noise_multiplier: float
    delta: float = 1e-5


@dataclass(frozen=True)
class Plan:
    """What a job does.

    Attributes:
        name: of the job.
        stages: trainings, one after the other; one called `pretrain` starts the next one.
        federation: the name under which server and sites keep their state; None = the job's.
        resume: True = go on after the last round of an earlier job of this federation.
        quorum: arguments of `ModalityFedAvg`: min_sites, min_holders, round_timeout, grace,
            attempts.
        validate_interval: rounds between two validations at the sites.
        norm_bound: largest L2 norm of a contribution; None = any.
        trust: arguments of `ModalityAggregator`: site_cases, case_factor, robust.
        privacy: clipping and noise; None = contributions are not private.
        half_precision: True = 16 bits a number on the wire.
        own_process: see `BundleTrainer`.
    """

    name: str
    stages: Sequence[Stage]
    federation: str | None = None
    resume: bool = False
    quorum: Mapping[str, Any] | None = None
    validate_interval: int = 0
    norm_bound: float | None = None
    trust: Mapping[str, Any] | None = None
    privacy: Privacy | None = None
    half_precision: bool = True
    own_process: bool = True

    def with_changes(self, **changes: Any) -> Plan:
        """Return a plan that differs in these attributes."""
        return replace(self, **changes)


class ModalityRecipe(Recipe):
    """The job of a plan, for any environment of NVFlare's: `execute(SimEnv(...))`, `export(dir)`.

    The exported folder holds two configurations and no code; every participant has the bundle
    installed.

    Raises:
        ValueError: a stage's configs do not say what is shared, or a private job would send
            statistics.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        min_sites = (plan.quorum or {}).get("min_sites", 1)
        job = FedJob(name=plan.name, min_clients=min_sites)
        job.job.set_app_packages(_INSTALLED)
        federation = plan.federation or plan.name
        before: Stage | None = None
        for stage in plan.stages:
            self._add_stage(job, federation, stage, before)
            before = stage
        job.to_clients(
            BundleTrainer(
                federation, [stage.to_dict() for stage in plan.stages], own_process=plan.own_process
            )
        )
        self._add_filters(job)
        job.to_server({"server": {"task_request_interval": _REQUEST_INTERVAL}})
        super().__init__(job)

    def _add_stage(self, job: FedJob, federation: str, stage: Stage, before: Stage | None) -> None:
        plan, last = self.plan, stage is self.plan.stages[-1]
        modalities, rules = read_rules(stage)
        if plan.privacy is not None and rules.get("additive_statistics"):
            raise ValueError(
                f"stage {stage.task}: expected no additive statistics in a private job, got "
                f"{rules['additive_statistics']}. The noise does not protect sums over patients. "
                "Leave the stage out of a private job."
            )
        persistor_id = f"persistor_{stage.task}"
        persistor = BundlePersistor(
            federation,
            stage.to_dict(),
            resume=plan.resume or stage.rounds == 0,
            pretrained=None if before is None else before.task,
        )
        job.to_server(persistor, id=persistor_id)
        aggregator = ModalityAggregator(
            modalities,
            _submitted(rules),
            norm_bound=plan.norm_bound,
            **_trust_submitted(plan.trust or {}),
        )
        controller = ModalityFedAvg(
            aggregator,
            persistor_id,
            stage.task,
            stage.rounds,
            validate_interval=plan.validate_interval if last else 0,
            validate_last=last,
            export="model.pt" if last else PRETRAINED,
            **(plan.quorum or {}),
        )
        job.to_server(controller, id=f"controller_{stage.task}")

    def _add_filters(self, job: FedJob) -> None:
        """Add the filters of what leaves and what arrives, in the order in which they act."""
        plan = self.plan
        spared = sorted({p for s in plan.stages for p in statistics_of(read_rules(s)[1])})
        # One task at a time: NVFlare writes several in an order that differs from run to run.
        for stage in plan.stages:
            self._add_result_filters(job, stage.task, spared)
        if plan.half_precision:
            for task in (*(stage.task for stage in plan.stages), VALIDATE):
                to_site = {"filter_type": FilterType.TASK_DATA, "tasks": [task]}
                job.to_server(HalfPrecision(spared), **to_site)
                job.to_clients(FullPrecision(), **to_site)

    def _add_result_filters(self, job: FedJob, task: str, spared: Sequence[str]) -> None:
        plan, back = self.plan, {"filter_type": FilterType.TASK_RESULT, "tasks": [task]}
        if plan.privacy is not None:
            noise = GaussianPrivacy(**asdict(plan.privacy))
            job.to_clients(noise, **back)
        if plan.half_precision:
            job.to_clients(HalfPrecision(spared), **back)
            job.to_server(FullPrecision(), **back)


def _submitted(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Write rules so that they survive `nvflare job submit`.

    It writes a job's configurations anew, and takes a pattern with dots and backslashes for several
    keys one in another wherever it stands as a key (NVFlare 2.9).
    """
    axes = rules.get("modality_axes")
    return dict(rules) if not axes else {**rules, "modality_axes": [[*a] for a in axes.items()]}


def _trust_submitted(trust: Mapping[str, Any]) -> dict[str, Any]:
    """Write a list of sites as pairs: a site's name may hold dots, see `_submitted`."""
    listed = trust.get("site_cases")
    if listed is None:
        return dict(trust)
    return {**trust, "site_cases": [[*pair] for pair in dict(listed).items()]}


def read_rules(stage: Stage) -> tuple[list[str], dict[str, Any]]:
    """Read vocabulary and exchange rules of a stage's configs, as plain values.

    Raises:
        ValueError: the configs have no `exchange`.
    """
    parser = read_workflow(stage, {}).parser
    rules = parser.get("exchange")
    if rules is None:
        raise ValueError(
            f"stage {stage.task}: expected 'exchange' in {list(stage.configs)}, which says what "
            "sites share, got none. Add federation.yaml, or the method's own overlay, such as "
            "federation_lckd.yaml."
        )
    return list(parser.get("modalities")), dict(rules)


def statistics_of(rules: Mapping[str, Any]) -> list[str]:
    """List the patterns of statistics, which keep their precision on the wire."""
    return [*rules.get("additive_statistics", ()), *rules.get("recounted_statistics", ())]
