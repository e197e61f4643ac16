"""How far apart two methods are, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bundle.benchmark.results import Result, Results
from bundle.evaluation.bootstrap import bootstrap_interval

SMALLEST_GAP = 0.01


@dataclass(frozen=True)
class Difference:
    """A mean paired difference of Dice with its confidence interval.

    Attributes:
        mean: first minus second, -1 to 1.
        low, high: the ends of the 95 % interval.
        seeds: how many pairs of trainings.
        cases: how many test cases each.
    """

    mean: float
    low: float
    high: float
    seeds: int
    cases: int


def _case_means(result: Result) -> np.ndarray:
    return result.case_means


def dice_of_given(result: Result, count: int | None = None) -> np.ndarray:
    """Give Dice of each testing case over the subsets of so many scans: (cases,); None = all."""
    chosen = [
        scores.mean(1)
        for subset, scores in result.scores.items()
        if count is None or subset.count("+") + 1 == count
    ]
    return np.mean(chosen, axis=0)


def paired_difference(
    first: Mapping[int, Result],
    second: Mapping[int, Result],
    dice: Callable[[Result], np.ndarray] = _case_means,
) -> Difference | None:
    """Compare two methods on the seeds that both have, case by case.

    Args:
        first: results by seed.
        second: results by seed.
        dice: gives Dice of each testing case, (cases,); default its mean over subsets and regions.

    Returns:
        The difference of Dice; None = no seed in common.

    Raises:
        ValueError: two results of a seed were tested on other cases or subsets.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    for seed in seeds:
        _check_comparable(first[seed], second[seed])
    differences = np.array([dice(first[seed]) - dice(second[seed]) for seed in seeds])
    low, high = bootstrap_interval(differences)
    return Difference(float(differences.mean()), low, high, *differences.shape)


def _check_comparable(first: Result, second: Result) -> None:
    if first.cases != second.cases or set(first.subsets) != set(second.subsets):
        raise ValueError(
            f"expected {first.run.name} and {second.run.name} tested on the same cases and "
            f"subsets, got {len(first.cases)} and {len(second.cases)} cases, "
            f"{len(first.subsets)} and {len(second.subsets)} subsets. Run both again."
        )


def mean_and_spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and standard deviation (n - 1); None where there is none."""
    if not values:
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def mean_dice(found: Mapping[int, Result]) -> float | None:
    """Average Dice over trainings, given by seed; None = there are none."""
    return mean_and_spread([result.dice for result in found.values()])[0]


def region_means(found: Mapping[int, Result]) -> dict[str, np.ndarray]:
    """Average Dice over cases and trainings, given by seed.

    Returns:
        (R,) by subset; {} = there are no trainings.
    """
    means = [result.region_means for result in found.values()]
    return {s: np.mean([m[s] for m in means], axis=0) for s in means[0]} if means else {}


def specialists_regions(results: Results) -> dict[str, np.ndarray]:
    """Dice (R,) of every subset by its own specialist, mean over seeds; {} until all are there."""
    labels = results.labels("specialist")
    dice: dict[str, np.ndarray] = {}
    for subset in labels:
        dice |= region_means(results.of("specialist", subset, 0.0))
    return dice if len(dice) == len(labels) else {}


def specialists_dice(results: Results) -> dict[str, float]:
    """Dice of every subset by its own specialist, as above, mean over regions."""
    return {subset: float(dice.mean()) for subset, dice in specialists_regions(results).items()}


def gap_closed(method: float, baseline: float, ceiling: float) -> float | None:
    """Share of the way from baseline to ceiling that a method has gone.

    Returns:
        1 = all of it; above 1 or below 0 is possible; None = the gap is less than a point of Dice,
        of which shares mean nothing.
    """
    gap = ceiling - baseline
    return (method - baseline) / gap if gap >= SMALLEST_GAP else None
