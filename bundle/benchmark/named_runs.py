"""Runs by the names of methods: which configs train one, and what a run is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bundle.benchmark.plan import (
    GMD_NOT_DECOUPLED,
    PCGRAD_UNET,
    Group,
    OwnCases,
    Phantom,
    Run,
    Training,
)
from bundle.modalities import BRATS_MODALITIES, all_subsets, subset_name
from bundle.phantom import PRETRAINING_PATCHES

# The methods of the main comparison.
METHODS = ("modality_dropout", "universal", "LCKD", "GMD")
# The overlay that turns train.json into a method; a label without one is train.json itself.
OVERLAYS = {
    "modality_dropout": ("method_modality_dropout.yaml",),
    "full_only": ("method_full_only.yaml",),
    "specialist": ("method_specialist.yaml",),
    "LCKD": ("method_lckd.yaml",),
    "GMD": ("method_gmd.yaml",),
    GMD_NOT_DECOUPLED: ("method_gmd.yaml",),
    PCGRAD_UNET: ("method_gmd.yaml",),
}
# And what of the overlay is changed, for a label that is a variant of another one.
CHANGED: Mapping[str, Mapping[str, Any]] = {
    GMD_NOT_DECOUPLED: {"decouple": False},
    # The same decoupling of the same losses on the network of method_modality_dropout.yaml.
    PCGRAD_UNET: {"network_def#_target_": "bundle.networks.unet.UNet"},
}

# What a training case lacks: a chance for every modality, or one for each in vocabulary order.
Gaps = float | tuple[float, ...]
UNEVEN = (0.2, 0.4, 0.6, 0.8)
CENTRE = 0.5

# Budgets, in steps of the plain U-Net: one to choose with, and one near its plateau.
SHORT, LONG = 3000, 8000
# The share of the universal model's budget that pre-training gets.
PRETRAINING_SHARE = 0.2
# What sets the size of a network and of its crops.
PHANTOM_SIZE = "benchmark.yaml"
OWN_SIZE = "benchmark_cases.yaml"


def single(
    label: str,
    budget: float,
    overrides: Mapping[str, Any] | None = None,
    size: str = PHANTOM_SIZE,
) -> tuple[Training, ...]:
    """Train once, with the configs of a label; the one named by `size` comes last."""
    configs = ("train.json", *OVERLAYS.get(label, ()), size)
    changed = {**CHANGED.get(label, {}), **(overrides or {})}
    return (Training(configs, None, changed, budget),)


def pretrained(
    budget: float,
    first: Mapping[str, Any] | None = None,
    second: Mapping[str, Any] | None = None,
    size: str = PHANTOM_SIZE,
) -> tuple[Training, ...]:
    """Pre-train, then train from there; `first` and `second` override ids of the two stages."""
    patches = PRETRAINING_PATCHES if size == PHANTOM_SIZE else {}
    start = {"pretrained_file": "$@ckpt_dir + '/pretrained.ckpt'"}
    before = PRETRAINING_SHARE * budget
    return (
        Training(("train.json", "pretrain.yaml", size), None, {**patches, **(first or {})}, before),
        Training(("train.json", size), None, {**start, **(second or {})}, budget - before),
    )


def run_name(group: Group, label: str, gaps: Gaps, seed: int) -> str:
    """Name a run, such as 'universal-missing_0.5-seed_1'; other groups than main stand in front."""
    words = [] if group == "main" else [group]
    rates = gaps if isinstance(gaps, tuple) else (gaps,)
    missing = "_".join(f"{rate:g}" for rate in rates)
    words += [re.sub(r"[^\w.-]+", "_", label), f"missing_{missing}", f"seed_{seed}"]
    return "-".join(words)


def named(group: Group, label: str, gaps: Gaps, seed: int, **others: Any) -> Run:
    """Make a run and its name."""
    name = run_name(group, label, gaps, seed)
    ratio = gaps
    if isinstance(gaps, tuple):
        ratio = round(sum(gaps) / len(gaps), 6)
        others["rates"] = gaps
    return Run(name=name, label=label, group=group, ratio=ratio, seed=seed, **others)


def main_run(
    label: str,
    gaps: Gaps,
    seed: int,
    budget: float,
    data: Phantom | OwnCases,
    size: str = PHANTOM_SIZE,
) -> Run:
    """Plan a method's training by its label; the universal model's has two stages."""
    stages = (
        pretrained(budget, size=size) if label == "universal" else single(label, budget, size=size)
    )
    needs = BRATS_MODALITIES if label == "full_only" else ()
    return named("main", label, gaps, seed, stages=stages, needs=needs, data=data)


def specialists(budget: float, seed: int, phantom: Phantom) -> list[Run]:
    """One model for every subset, trained and tested on that subset of complete cases."""
    subsets = [subset_name(subset, BRATS_MODALITIES) for subset in all_subsets(BRATS_MODALITIES)]
    return [
        named(
            "specialist",
            subset,
            0.0,
            seed,
            stages=single("specialist", budget, {"specialist_subset": subset}),
            subsets=(subset,),
            data=phantom,
        )
        for subset in subsets
    ]
