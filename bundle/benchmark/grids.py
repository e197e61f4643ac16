"""The grids: which trainings a report needs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bundle.benchmark.controls import CONTROLS
from bundle.benchmark.named_runs import (
    CENTRE,
    LONG,
    METHODS,
    OWN_SIZE,
    PHANTOM_SIZE,
    SHORT,
    UNEVEN,
    main_run,
    named,
    single,
    specialists,
)
from bundle.benchmark.plan import (
    OwnCases,
    Phantom,
    Run,
    RunGrid,
)
from bundle.modalities import BRATS_MODALITIES

SEEDS = (0, 1, 2)
# What is chosen is chosen on these cases; the grids that report have others.
CHOOSING = Phantom(seed=1)
LENGTHS = (625, 1250, 2500, 5000, 10000)
_NOTE_ON_WORK = (
    "Equal work: as many multiply-adds in training as the plain U-Net does in {budget:g} steps of "
    "4 crops of 32 voxels, those of teachers and of pre-training included. Equal steps would give "
    "a method of twice the work twice the time."
)
_NOTE_ON_LCKD = (
    "LCKD elects its teachers on {validation} validation cases, which no other method reads."
)


def main(
    seeds: Sequence[int] = SEEDS,
    budget: float = LONG,
    phantom: Phantom = Phantom(),  # noqa: B008
) -> RunGrid:
    """Plan the comparison of the methods, with equal work near the baseline's plateau.

    Half of the scans missing and uneven gaps come first, seed by seed, so that a grid that is
    stopped has whole comparisons to show; complete data and much missing follow.

    Args:
        seeds: of the absence, the weights and the order of the cases.
        budget: the work of each training, in steps of the plain U-Net.
        phantom: the data.
    """
    runs = [
        main_run(label, gaps, seed, budget, phantom)
        for some in ((CENTRE, UNEVEN), (0.0, 0.8))
        for seed in seeds
        for gaps in some
        for label in METHODS
    ]
    uneven = "/".join(f"{rate:g}" for rate in UNEVEN)
    notes = (
        _NOTE_ON_WORK.format(budget=budget),
        _NOTE_ON_LCKD.format(validation=phantom.validation),
        f"Missing ratio {uneven}: the chance of {', '.join(BRATS_MODALITIES)}, in this order, to "
        "be missing from a training case, which keeps at least one of them.",
    )
    return RunGrid("main", "universal", "modality_dropout", tuple(runs), notes, centre=CENTRE)


def controls(
    seeds: Sequence[int] = SEEDS, budget: float = SHORT, phantom: Phantom = CHOOSING
) -> RunGrid:
    """Plan what tells which part of a method is worth its work, at a ratio of `CENTRE`.

    Args:
        seeds, budget, phantom: as in `main`; shorter trainings, on the cases for choosing.
    """
    runs = [main_run(label, CENTRE, seed, budget, phantom) for seed in seeds for label in METHODS]
    for seed in seeds:
        for label, control in CONTROLS.items():
            stages = control.stages(budget)
            run = named("ablation", label, CENTRE, seed, stages=stages, data=phantom)
            runs.append(replace(run, whole=control.whole))
    notes = (
        _NOTE_ON_WORK.format(budget=budget),
        _NOTE_ON_LCKD.format(validation=phantom.validation),
        "A part is worth its work if the whole is better than the change, which spends on more "
        "steps what the part costs.",
    )
    return _apart("controls", "universal", "modality_dropout", runs, *notes, centre=CENTRE)


def plateau(
    seeds: Sequence[int] = SEEDS,
    lengths: Sequence[int] = LENGTHS,
    phantom: Phantom = CHOOSING,
) -> RunGrid:
    """Plan the baseline's Dice by the length of its training: where does doubling bring no more?

    Args:
        seeds, phantom: as in `main`.
        lengths: steps, each twice the one before.
    """
    runs = [
        named(
            "main",
            str(length),
            CENTRE,
            seed,
            stages=single("modality_dropout", length),
            data=phantom,
        )
        for seed in seeds
        for length in lengths
    ]
    first = str(lengths[0])
    return _apart("plateau", first, first, runs)


def drawing(
    seeds: Sequence[int] = SEEDS, budget: float = SHORT, phantom: Phantom = CHOOSING
) -> RunGrid:
    """Plan the comparison of two ways to draw what a case shows: uniform and balanced.

    Args:
        seeds, budget, phantom: as in `controls`.
    """
    runs = [
        named(
            "main",
            way,
            gaps,
            seed,
            stages=single("modality_dropout", budget, {"drawing": way}),
            data=phantom,
        )
        for seed in seeds
        for gaps in (CENTRE, UNEVEN)
        for way in ("balanced", "uniform")
    ]
    return _apart("drawing", "balanced", "uniform", runs)


def realism(
    seeds: Sequence[int] = (0,),
    budget: float = 5000,
    phantom: Phantom = Phantom(training=48, seed=2),  # noqa: B008
) -> RunGrid:
    """Plan the training on complete cases whose Dice by subset stands beside a published study.

    Args:
        seeds, budget: as in `main`.
        phantom: the data; contrasts were tuned on cases of another seed.
    """
    runs = [main_run("modality_dropout", 0.0, seed, budget, phantom) for seed in seeds]
    label = "modality_dropout"
    return _apart("realism", label, label, runs, is_profile=True)


def ceiling(
    budget: float = SHORT,
    phantom: Phantom = Phantom(),  # noqa: B008
) -> RunGrid:
    """Plan one specialist for every subset, trained on complete cases, beside the baseline.

    Args:
        budget, phantom: as in `main`; each of the fifteen gets the whole budget.
    """
    runs = [
        main_run("modality_dropout", 0.0, 0, budget, phantom),
        main_run("universal", 0.0, 0, budget, phantom),
        *specialists(budget, 0, phantom),
    ]
    return _apart("ceiling", "universal", "modality_dropout", runs, centre=0.0)


def cases(
    data: OwnCases,
    small: bool = False,
    seeds: Sequence[int] = SEEDS,
    ratios: Sequence[float] = (0.5, 0.0, 0.8),
    budget: float = 750,
) -> RunGrid:
    """Plan the main comparison on cases of one's own.

    Args:
        data: the cases; all seeds share them and their parting into training and testing.
        small: True = at the phantom's size, one core a run; False = that of benchmark_cases.yaml,
            for a GPU.
        seeds, budget: as in `main`.
        ratios: missing ratios of the training cases, those that matter most first.
    """
    size = PHANTOM_SIZE if small else OWN_SIZE
    labels = ("universal", "modality_dropout", "full_only")
    runs = [
        main_run(label, ratio, seed, budget, data, size)
        for ratio in ratios
        for seed in seeds
        for label in labels
        # On complete data the two baselines are the same training.
        if (label, ratio) != ("full_only", 0.0)
    ]
    notes = ("full_only at a missing ratio of 0 is modality_dropout itself and is not run again.",)
    name = "cases_small" if small else "cases"
    return RunGrid(name, "universal", "modality_dropout", tuple(runs), notes)


def smoke() -> RunGrid:
    """Plan three trainings of seconds that prove nothing but that a grid works."""
    tiny = {"filters": 4, "blocks_down": [1, 1, 1], "epoch_samples": 8}
    phantom = Phantom(training=4, testing=2, size=32, validation=1)
    runs = [
        named("main", label, 0.0, 0, stages=single(label, 4, tiny), data=phantom)
        for label in ("modality_dropout", "full_only", "GMD")
    ]
    notes = ("A smoke test: its numbers mean nothing.",)
    return _apart("smoke", "modality_dropout", "full_only", runs, *notes)


def _apart(
    name: str, reference: str, baseline: str, runs: Sequence[Run], *notes: str, **others: Any
) -> RunGrid:
    """Make a grid whose runs bear its name: other grids train the same methods otherwise."""
    own = tuple(replace(run, name=f"{name}-{run.name}") for run in runs)
    return RunGrid(name, reference, baseline, own, notes, **others)


# Those on cases of one's own.
OWN: Mapping[str, Callable[[OwnCases], RunGrid]] = {
    "cases": cases,
    "cases_small": functools.partial(cases, small=True),
}

GRIDS: Mapping[str, Callable[[], RunGrid]] = {
    "main": main,
    "controls": controls,
    "plateau": plateau,
    "drawing": drawing,
    "realism": realism,
    "ceiling": ceiling,
    "smoke": smoke,
}
