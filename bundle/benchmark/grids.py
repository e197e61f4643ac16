"""The grids: which trainings a report on a method needs."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bundle.benchmark.plan import (
    GMD_NOT_DECOUPLED,
    PCGRAD_UNET,
    Change,
    Group,
    OwnCases,
    Phantom,
    Run,
    RunGrid,
    SameTime,
    Training,
)
from bundle.modalities import BRATS_MODALITIES, all_subsets, subset_name
from bundle.phantom import PRETRAINING_PATCHES

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

# The universal model with one thing changed: what of the first stage, what of the second.
# What is not listed is the configs' default: distribution conditional, prompts the presence bits.
ABLATIONS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "no distribution": ({"distribution": "none"}, {}),
    "neither side": ({}, {"data_side": False, "model_side": False}),
    "no hypernetwork": ({}, {"hypernetwork": False}),
    "no rescaling": ({"rescale": False}, {"rescale": False}),
}
NO_PRETRAINING = "no pre-training"
# Stage 2 with the epochs that it has in the whole. NO_PRETRAINING gives the epochs of stage 1 to
# stage 2; the two together tell what pre-training brings and what its steps would bring elsewhere.
STAGE_2_ALONE = "no pre-training, nor its steps"
# Less central: with one seed.
FINER_ABLATIONS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "marginal distribution": ({"distribution": "marginal"}, {}),
    "cautious distribution": ({"distribution": "cautious"}, {}),
    "no data side": ({}, {"data_side": False}),
    "no model side": ({}, {"model_side": False}),
    # One-hot prompts would be the same run: to the network they are random ones, turned in space.
    "random prompts": ({}, {"prompt_source": "random"}),
}
# By the variant's label: the method that it varies, and what is changed in it.
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "LCKD, mean skips": ("LCKD", {"skips": "mean"}),
    "LCKD, union": ("LCKD", {"teaching": "union"}),
    "LCKD, no distillation": ("LCKD", {"distillation_weight": 0}),
    "GMD, mean_where_shared": ("GMD", {"reduction": "mean_where_shared"}),
}
# The others have one seed.
VARIANTS_OF_ALL_SEEDS = ("LCKD, mean skips", "LCKD, no distillation")
_OTHERS = ("LCKD", "GMD")
_COSTLY = (GMD_NOT_DECOUPLED, PCGRAD_UNET)
# The first sets the CPU time, the second gets it from `main_runs`.
_HAVE_THEIR_TIME = ("universal", "modality_dropout")
# A step of this method is one of modality_dropout, whose run is there even where its own is not.
_PLAIN_PACE = ("full_only",)
_NOTE_ON_FULL_ONLY = (
    "full_only at a missing ratio of 0 is modality_dropout itself and is not run again."
)
# What sets the size of a network and of its crops.
PHANTOM_SIZE = "benchmark.yaml"
OWN_SIZE = "benchmark_cases.yaml"


def single(
    label: str,
    epochs: int | None,
    overrides: Mapping[str, Any] | None = None,
    size: str = PHANTOM_SIZE,
) -> tuple[Training, ...]:
    """Train once, with the configs of a label; the one named by `size` comes last."""
    configs = ("train.json", *OVERLAYS.get(label, ()), size)
    return (Training(configs, epochs, {**CHANGED.get(label, {}), **(overrides or {})}),)


def pretrained(
    pretrain_epochs: int,
    train_epochs: int,
    first: Mapping[str, Any] | None = None,
    second: Mapping[str, Any] | None = None,
    size: str = PHANTOM_SIZE,
) -> tuple[Training, ...]:
    """Pre-train, then train from there; `first` and `second` override ids of the two stages."""
    patches = PRETRAINING_PATCHES if size == PHANTOM_SIZE else {}
    start = {"pretrained_file": "$@ckpt_dir + '/pretrained.ckpt'"}
    return (
        Training(
            ("train.json", "pretrain.yaml", size), pretrain_epochs, {**patches, **(first or {})}
        ),
        Training(("train.json", size), train_epochs, {**start, **(second or {})}),
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
            data=phantom,
        )
        for subset in subsets
    ]


def same_time(run: Run, gaps: Gaps, timed_at: Gaps) -> Run:
    """Plan the training of a run once more, with the CPU time of the universal model's.

    Args:
        run: the training.
        gaps: what its training cases lack.
        timed_at: the gaps at which the universal model's training tells the time. Its steps cost
            the same whatever is missing; that run and `run` have to be made on one device.
    """
    pace = run.name
    if run.label in _PLAIN_PACE:
        pace = run_name("main", "modality_dropout", timed_at, run.seed)
    return named(
        "wall_clock",
        run.label,
        gaps,
        run.seed,
        stages=tuple(replace(stage, epochs=None) for stage in run.stages),
        same_time=SameTime(run_name("main", "universal", timed_at, run.seed), pace),
        needs=run.needs,
        data=run.data,
    )


def main_runs(
    gaps: Gaps,
    seed: int,
    pretrain_epochs: int,
    train_epochs: int,
    phantom: Phantom | OwnCases,
    size: str = PHANTOM_SIZE,
) -> list[Run]:
    """The universal model and its opponents: equal steps, then equal CPU time."""
    steps = pretrain_epochs + train_epochs
    universal = named(
        "main",
        "universal",
        gaps,
        seed,
        stages=pretrained(pretrain_epochs, train_epochs, size=size),
        data=phantom,
    )
    dropout = named(
        "main",
        "modality_dropout",
        gaps,
        seed,
        stages=single("modality_dropout", steps, size=size),
        data=phantom,
    )
    full_only = named(
        "main",
        "full_only",
        gaps,
        seed,
        stages=single("full_only", steps, size=size),
        needs=BRATS_MODALITIES,
        data=phantom,
    )
    longer = same_time(dropout, gaps, gaps)
    # On complete data the two baselines are the same training.
    return [universal, dropout, *([full_only] if gaps != 0 else []), longer]


def ablation_runs(
    ratio: float,
    seed: int,
    pretrain_epochs: int,
    train_epochs: int,
    phantom: Phantom,
    finer: bool = False,
) -> list[Run]:
    """The universal model with one thing changed and, but for STAGE_2_ALONE, as many steps in all.

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
        variants |= {
            NO_PRETRAINING: single("universal", pretrain_epochs + train_epochs),
            STAGE_2_ALONE: single("universal", train_epochs),
        }
    return [
        named("ablation", label, ratio, seed, stages=stages, data=phantom)
        for label, stages in variants.items()
    ]


def universal(
    seeds: Sequence[int] = (0, 1, 2),
    ratios: Sequence[float] = (0.0, 0.3, 0.5, 0.8),
    ablation_seeds: Sequence[int] = (0, 1, 2),
    ablation_ratio: float = 0.5,
    one_seed: int = 0,
    pretrain_epochs: int = 25,
    train_epochs: int = 100,
    phantom: Phantom = Phantom(),  # noqa: B008 - frozen
) -> RunGrid:
    """Plan the evidence for the universal model of design.md section 1.1.

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
    notes = (
        _NOTE_ON_FULL_ONLY,
        f"*{STAGE_2_ALONE}*: {train_epochs} epochs of stage 2, as the whole has them, and not the "
        f"{pretrain_epochs} of stage 1; the other changes leave the number of steps as it is.",
    )
    return RunGrid("universal", "universal", "modality_dropout", tuple(runs), notes)


def other_methods(gaps: Gaps, labels: Sequence[str], seed: int, **lengths: Any) -> list[Run]:
    """LCKD, GMD and its variants: as many steps as the universal model.

    Args:
        gaps, seed: as in `named`.
        labels: which ones.
        lengths: `pretrain_epochs`, `train_epochs` and `phantom`, as in `universal`.
    """
    steps = lengths["pretrain_epochs"] + lengths["train_epochs"]
    return [
        named("main", label, gaps, seed, stages=single(label, steps), data=lengths["phantom"])
        for label in labels
    ]


def variant_runs(labels: Sequence[str], seed: int, **lengths: Any) -> list[Run]:
    """LCKD and GMD with something changed, at the ratio of `CENTRE`; arguments as above."""
    steps = lengths["pretrain_epochs"] + lengths["train_epochs"]
    return [
        named(
            "ablation",
            label,
            CENTRE,
            seed,
            stages=single(whole, steps, change),
            whole=whole,
            data=lengths["phantom"],
        )
        for label, (whole, change) in ((label, VARIANTS[label]) for label in labels)
    ]


def methods(
    seeds: Sequence[int] = (0, 1, 2),
    pretrain_epochs: int = 25,
    train_epochs: int = 100,
    phantom: Phantom = Phantom(),  # noqa: B008 - frozen
) -> RunGrid:
    """Plan the one table that compares everything, small enough for ten hours of two cores.

    What it has in common with `universal` are the same runs, which are not made twice in one
    folder. At a ratio of `CENTRE` every method is trained a second time, with the CPU time of the
    universal model's training instead of its number of steps; what time that is, its training at
    `UNEVEN` tells, so that a GPU may have made what both grids have in common and a CPU the rest.
    Outside of `CENTRE` the two variants of GMD have the first seed at `UNEVEN` alone.

    Args:
        seeds: of the comparison; the specialists and most of VARIANTS have the first one alone.
        pretrain_epochs: of the universal model's first stage.
        train_epochs: of its second stage; every opponent gets the sum of both.
        phantom: the data.
    """
    lengths = {"pretrain_epochs": pretrain_epochs, "train_epochs": train_epochs, "phantom": phantom}
    first = seeds[0]
    runs: list[Run] = []
    later: list[Run] = []
    # Seed by seed, so that a grid that is stopped shows a whole comparison.
    for seed in seeds:
        shared = {
            gaps: main_runs(gaps, seed, **lengths) for gaps in (CENTRE, 0.0, 0.3, 0.8, UNEVEN)
        }
        timed = [run for run in shared[UNEVEN] if run.label in _HAVE_THEIR_TIME]
        runs += timed
        for gaps, cell in shared.items():
            others = other_methods(gaps, _OTHERS, seed, **lengths)
            costly = other_methods(gaps, _COSTLY, seed, **lengths)
            if gaps == CENTRE:
                others += costly
            elif seed == first and gaps == UNEVEN:
                later += costly
            runs += [run for run in cell if run not in timed] + others
            if gaps == CENTRE:
                runs += [
                    same_time(run, gaps, UNEVEN)
                    for run in cell + others
                    if run.label not in _HAVE_THEIR_TIME
                ]
        if seed == first:
            runs += specialists(pretrain_epochs + train_epochs, first, phantom)
    for seed in seeds:
        labels = tuple(VARIANTS) if seed == first else VARIANTS_OF_ALL_SEEDS
        runs += variant_runs(labels, seed, **lengths)
    runs += later
    return RunGrid(
        "methods",
        "universal",
        "modality_dropout",
        tuple(runs),
        _notes(phantom),
        centre=CENTRE,
        changes=(
            Change(GMD_NOT_DECOUPLED, "GMD", GMD_NOT_DECOUPLED),
            Change(PCGRAD_UNET, "GMD", "GMD, no Dynamic Sharing"),
        ),
    )


def _notes(phantom: Phantom) -> tuple[str, ...]:
    """Say what grid `methods` leaves out and what its words mean."""
    uneven = "/".join(f"{rate:g}" for rate in UNEVEN)
    return (
        _NOTE_ON_FULL_ONLY,
        f"Missing ratio {uneven}: the chance of {', '.join(BRATS_MODALITIES)}, in this order, to "
        "be missing from a training case, which keeps at least one of them.",
        f"*{PCGRAD_UNET}*: GMD's losses and decoupling on the network of modality_dropout, without "
        "Dynamic Sharing. GMD's rule and the mean variant of PCGrad are one and the same.",
        "A step of GMD and its variants computes the losses of up to four subsets: equal steps are "
        "not equal work, hence equal CPU time beside them.",
        f"The CPU time to be equal to is that of universal's training at {uneven}, of the same "
        "seed and on a device of the same kind; for modality_dropout, at the same missing ratio. A "
        "step of that training costs the same whatever is missing.",
        f"LCKD elects its teachers on the phantom's {phantom.validation} validation cases, which "
        "no other method reads.",
        "The specialists have one seed, and so have those variants of LCKD and GMD whose row under "
        "*What each part is worth* says so.",
        f"Outside of a missing ratio of {CENTRE:g}, *{'* and *'.join(_COSTLY)}* have one seed at "
        f"{uneven}, and equal CPU time is given to modality_dropout alone: to fit into ten hours "
        "of two cores.",
    )


def cases(
    data: OwnCases,
    small: bool = False,
    seeds: Sequence[int] = (0, 1, 2),
    ratios: Sequence[float] = (0.5, 0.0, 0.8),
    pretrain_epochs: int = 15,
    train_epochs: int = 60,
) -> RunGrid:
    """Plan the main comparison on cases of one's own.

    Args:
        data: the cases; all seeds share them and their parting into training and testing.
        small: True = at the phantom's size, 2 mm and one core a run; False = that of
            benchmark_cases.yaml, for a GPU.
        seeds, pretrain_epochs, train_epochs: as in `universal`.
        ratios: missing ratios of the training cases, those that matter most first.
    """
    lengths = {"pretrain_epochs": pretrain_epochs, "train_epochs": train_epochs}
    size = PHANTOM_SIZE if small else OWN_SIZE
    runs = [
        run
        for ratio in ratios
        for seed in seeds
        for run in main_runs(ratio, seed, **lengths, phantom=data, size=size)
    ]
    name = "cases_small" if small else "cases"
    return RunGrid(name, "universal", "modality_dropout", tuple(runs), (_NOTE_ON_FULL_ONLY,))


def smoke() -> RunGrid:
    """Plan three trainings of seconds that prove nothing but that a grid works."""
    tiny = {"filters": 4, "blocks_down": [1, 1, 1], "epoch_samples": 8}
    phantom = Phantom(training=4, testing=2, size=32)
    first, second = (
        named("main", label, 0.0, 0, stages=single(label, 2, tiny), data=phantom)
        for label in ("modality_dropout", "full_only")
    )
    longer = named(
        "wall_clock",
        "full_only",
        0.0,
        0,
        stages=single("full_only", None, tiny),
        same_time=SameTime(budget_of=first.name, pace_of=second.name),
        data=phantom,
    )
    notes = ("A smoke test: its numbers mean nothing.",)
    return RunGrid("smoke", "modality_dropout", "full_only", (first, second, longer), notes)


# Those on cases of one's own.
OWN: Mapping[str, Callable[[OwnCases], RunGrid]] = {
    "cases": cases,
    "cases_small": functools.partial(cases, small=True),
}

GRIDS: Mapping[str, Callable[[], RunGrid]] = {
    "universal": universal,
    "methods": methods,
    "smoke": smoke,
}
