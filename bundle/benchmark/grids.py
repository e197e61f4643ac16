"""The grids: which trainings a report on a method needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bundle.benchmark.plan import Grid, Group, Phantom, Run, SameTime, Stage
from bundle.modalities import BRATS_MODALITIES, all_subsets, subset_name

# By the overlay that turns train.json into the method; what has none is train.json itself.
OVERLAYS = {
    "modality_dropout": ("method_modality_dropout.yaml",),
    "full_only": ("method_full_only.yaml",),
    "specialist": ("method_specialist.yaml",),
}

# The universal model with one thing changed: what of the first stage, what of the second.
# What is not listed is the configs' default: distribution conditional, prompts the presence bits.
ABLATIONS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "no distribution": ({"distribution": "none"}, {}),
    "neither side": ({}, {"data_side": False, "model_side": False}),
    "no hypernetwork": ({}, {"hypernetwork": False}),
    "no rescaling": ({"rescale": False}, {"rescale": False}),
}
NO_PRETRAINING = "no pre-training"
# Less central: with one seed.
FINER_ABLATIONS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "marginal distribution": ({"distribution": "marginal"}, {}),
    "wasserstein distribution": ({"distribution": "wasserstein"}, {}),
    "no data side": ({}, {"data_side": False}),
    "no model side": ({}, {"model_side": False}),
    # One-hot prompts would be the same run: to the network they are random ones, turned in space.
    "random prompts": ({}, {"prompt_source": "random"}),
}
PATCHES: Mapping[str, Any] = {"patch": 8, "descriptor_patch": 4}


def single(
    label: str, epochs: int | None, overrides: Mapping[str, Any] | None = None
) -> tuple[Stage, ...]:
    """Train once, with the configs of a label."""
    configs = ("train.json", *OVERLAYS.get(label, ()), "benchmark.yaml")
    return (Stage(configs, epochs, dict(overrides or {})),)


def pretrained(
    pretrain_epochs: int,
    train_epochs: int,
    first: Mapping[str, Any] | None = None,
    second: Mapping[str, Any] | None = None,
) -> tuple[Stage, ...]:
    """Pre-train, then train from there; `first` and `second` override ids of the two stages."""
    # A crop of 32 voxels a side has 64 patches of 8 to hide, and 512 of 4 to describe.
    start = {"pretrained_file": "$@ckpt_dir + '/pretrained.ckpt'"}
    return (
        Stage(
            ("train.json", "pretrain.yaml", "benchmark.yaml"),
            pretrain_epochs,
            {**PATCHES, **(first or {})},
        ),
        Stage(("train.json", "benchmark.yaml"), train_epochs, {**start, **(second or {})}),
    )


def run_name(group: Group, label: str, ratio: float, seed: int) -> str:
    """Name a run, such as 'universal-missing_0.5-seed_1'; other groups than main stand in front."""
    words = [] if group == "main" else [group]
    words += [label.replace(" ", "_").replace("+", "_"), f"missing_{ratio:g}", f"seed_{seed}"]
    return "-".join(words)


def named(group: Group, label: str, ratio: float, seed: int, **others: Any) -> Run:
    """Make a run and its name."""
    name = run_name(group, label, ratio, seed)
    return Run(name=name, label=label, group=group, ratio=ratio, seed=seed, **others)


def specialists(epochs: int, seed: int, phantom: Phantom) -> list[Run]:
    """One model for every subset, trained and tested on that subset of complete cases."""
    subsets = [subset_name(subset, BRATS_MODALITIES) for subset in all_subsets(BRATS_MODALITIES)]
    return [
        named(
            "specialist",
            subset,
            0.0,
            seed,
            stages=single("specialist", epochs, {"specialist_subset": subset}),
            subsets=(subset,),
            phantom=phantom,
        )
        for subset in subsets
    ]


def main_runs(
    ratio: float, seed: int, pretrain_epochs: int, train_epochs: int, phantom: Phantom
) -> list[Run]:
    """The universal model and its opponents: equal steps, then equal CPU time."""
    steps = pretrain_epochs + train_epochs
    universal = named(
        "main",
        "universal",
        ratio,
        seed,
        stages=pretrained(pretrain_epochs, train_epochs),
        phantom=phantom,
    )
    dropout = named(
        "main",
        "modality_dropout",
        ratio,
        seed,
        stages=single("modality_dropout", steps),
        phantom=phantom,
    )
    full_only = named(
        "main",
        "full_only",
        ratio,
        seed,
        stages=single("full_only", steps),
        needs=BRATS_MODALITIES,
        phantom=phantom,
    )
    longer = named(
        "wall_clock",
        "modality_dropout",
        ratio,
        seed,
        stages=single("modality_dropout", None),
        same_time=SameTime(budget_of=universal.name, pace_of=dropout.name),
        phantom=phantom,
    )
    # On complete data the two baselines are the same training.
    return [universal, dropout, *([full_only] if ratio > 0 else []), longer]


def ablation_runs(
    ratio: float,
    seed: int,
    pretrain_epochs: int,
    train_epochs: int,
    phantom: Phantom,
    finer: bool = False,
) -> list[Run]:
    """The universal model with one thing changed, and as many steps in all.

    Args:
        ratio, seed, pretrain_epochs, train_epochs, phantom: as in `universal`.
        finer: True = the changes of FINER_ABLATIONS instead.
    """
    changes = FINER_ABLATIONS if finer else ABLATIONS
    variants = {
        label: pretrained(pretrain_epochs, train_epochs, first, second)
        for label, (first, second) in changes.items()
    }
    if not finer:
        alone = single("universal", pretrain_epochs + train_epochs)
        variants = {NO_PRETRAINING: alone, **variants}
    return [
        named("ablation", label, ratio, seed, stages=stages, phantom=phantom)
        for label, stages in variants.items()
    ]


def universal(
    seeds: Sequence[int] = (0, 1, 2),
    ratios: Sequence[float] = (0.0, 0.3, 0.5, 0.8),
    ablation_seeds: Sequence[int] = (0, 1, 2),
    ablation_ratio: float = 0.5,
    one_seed: int = 0,
    pretrain_epochs: int = 15,
    train_epochs: int = 110,
    phantom: Phantom = Phantom(),  # noqa: B008 - frozen
) -> Grid:
    """Plan the evidence for the universal model of DESIGN.md section 1.1.

    Args:
        seeds: of the main comparison.
        ratios: missing ratios of the training cases, 0 to 1.
        ablation_seeds: of the ablation; best some of `seeds`, since it is paired with them.
        ablation_ratio: its missing ratio, one of `ratios`.
        one_seed: of the one specialist per subset, and of FINER_ABLATIONS.
        pretrain_epochs: of the universal model's first stage.
        train_epochs: of its second stage; every opponent gets the sum of both.
        phantom: the data.
    """
    lengths = {"pretrain_epochs": pretrain_epochs, "train_epochs": train_epochs, "phantom": phantom}
    # Seed by seed, so that a grid that is stopped half-way has a whole comparison to show.
    runs = [run for seed in seeds for ratio in ratios for run in main_runs(ratio, seed, **lengths)]
    runs += [run for s in ablation_seeds for run in ablation_runs(ablation_ratio, s, **lengths)]
    runs += specialists(pretrain_epochs + train_epochs, one_seed, phantom)
    runs += ablation_runs(ablation_ratio, one_seed, **lengths, finer=True)
    notes = ("full_only at a missing ratio of 0 is modality_dropout itself and is not run again.",)
    return Grid("universal", "universal", "modality_dropout", tuple(runs), notes)


def smoke() -> Grid:
    """Plan three trainings of seconds that prove nothing but that a grid works."""
    tiny = {"filters": 4, "blocks_down": [1, 1, 1], "epoch_samples": 8}
    phantom = Phantom(training=4, testing=2, size=32)
    first, second = (
        named("main", label, 0.0, 0, stages=single(label, 2, tiny), phantom=phantom)
        for label in ("modality_dropout", "full_only")
    )
    longer = named(
        "wall_clock",
        "full_only",
        0.0,
        0,
        stages=single("full_only", None, tiny),
        same_time=SameTime(budget_of=first.name, pace_of=second.name),
        phantom=phantom,
    )
    notes = ("A smoke test: its numbers mean nothing.",)
    return Grid("smoke", "modality_dropout", "full_only", (first, second, longer), notes)


GRIDS: Mapping[str, Callable[[], Grid]] = {"universal": universal, "smoke": smoke}
