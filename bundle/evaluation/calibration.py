"""How far probabilities can be believed, and the temperature that makes them more so.

Legend: N voxels, Z bins of the logit, K bins of the probability.

Voxels are counted by their logit, in bins so narrow that fit and errors come out as from the voxels
themselves; so memory does not grow with the number of cases.

Source: Guo et al. 2017, "On calibration of modern neural networks": temperature and expected
calibration error (ECE). Here the error is that of a region's probability: the mean distance between
the probability of the voxels in a bin and the share of them that lies inside the region. That each
subset and region has a temperature of its own is ours: WT has most of the uncertain voxels, and
would set a common one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

BINS = 15
LOWEST, HIGHEST = 0.05, 20.0
# 1 in single precision has a logit beyond 16.6; what is below -40 counts as -40.
_LOW, _HIGH, _WIDTH = -40.0, 17.0, 0.01
_LOGIT_BINS = round((_HIGH - _LOW) / _WIDTH)
_BELOW_ONE = 1 - 2.0**-24


def calibration_cases(datalist: Mapping[str, Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the validation cases, all of them labelled.

    Raises:
        ValueError: there are none, or some without a label, which are named.
    """
    cases = list(datalist.get("validation", []))
    if not cases:
        raise ValueError(
            "expected validation cases to fit the temperatures on, got none in the datalist. "
            "Training cases would make a network look more certain than it may be, and testing "
            "cases are for the test: move some labelled cases into its section 'validation'."
        )
    without = [str(item.get("case")) for item in cases if not item.get("label")]
    if without:
        raise ValueError(
            f"expected labelled validation cases, got {len(without)} of {len(cases)} without a "
            f"label, first {without[0]}. Add their labels, or take them out of the section."
        )
    return cases


def count_logits(probabilities: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Count a region's voxels by their logit.

    Args:
        probabilities: (N,) of the voxels inside the brain, 0 to 1.
        inside: (N,) bool, True = inside the region in the reference.

    Returns:
        (2, 2, Z) float64: [truth, 0 = how many voxels, 1 = the sum of their logits, bin]. Arrays
        of several cases can be added.

    Raises:
        ValueError: a probability that is NaN or not from 0 to 1.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("expected probabilities from 0 to 1, got others, or NaN")
    with np.errstate(divide="ignore"):
        logits = np.clip(logit(np.minimum(p, _BELOW_ONE)), _LOW, None)
    bins = np.minimum(((logits - _LOW) / _WIDTH).astype(np.int64), _LOGIT_BINS - 1)
    counts = np.zeros((2, 2, _LOGIT_BINS))
    for truth, chosen in enumerate((~inside, inside)):
        counts[truth, 0] = np.bincount(bins[chosen], minlength=_LOGIT_BINS)
        counts[truth, 1] = np.bincount(bins[chosen], logits[chosen], minlength=_LOGIT_BINS)
    return counts


def fit_temperature(counts: np.ndarray) -> float | None:
    """Find the temperature with the smallest negative log-likelihood (NLL).

    Args:
        counts: (2, 2, Z) as from `count_logits`.

    Returns:
        0.05 to 20; None = nothing can be fitted, because no voxel lies inside the region, or none
        outside it.
    """
    if not counts[:, 0].any(axis=1).all():
        return None
    found = minimize_scalar(
        lambda power: nll(counts, float(np.exp(power))),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.clip(np.exp(found.x), LOWEST, HIGHEST))


def nll(counts: np.ndarray, temperature: float) -> float:
    """Sum of -log(probability of the truth) over the voxels of `counts`, in nats."""
    total = 0.0
    for sign, (number, logits) in zip((1, -1), _filled(counts), strict=True):
        total += float(number @ np.logaddexp(0, sign * logits / temperature))
    return total


def reliability(counts: np.ndarray, temperature: float) -> np.ndarray:
    """Sort voxels into equal bins of the calibrated probability.

    Args:
        counts: (2, 2, Z) as from `count_logits`.
        temperature: 1 = the network's own probabilities.

    Returns:
        (3, K) float64: voxels, the sum of their probabilities, how many lie inside. Can be added.
    """
    found = np.zeros((3, BINS))
    for truth, (number, logits) in enumerate(_filled(counts)):
        p = expit(logits / temperature)
        bins = np.minimum((p * BINS).astype(np.int64), BINS - 1)
        voxels = np.bincount(bins, number, minlength=BINS)
        found += [voxels, np.bincount(bins, number * p, minlength=BINS), truth * voxels]
    return found


def ece(table: np.ndarray) -> float:
    """Expected calibration error, 0 to 1, of what `reliability` returns; NaN without voxels."""
    voxels, probability, inside = table
    with np.errstate(invalid="ignore"):
        return float(np.abs(probability - inside).sum() / voxels.sum())


def _filled(counts: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Give, for each truth, the voxels and the mean logit of the bins that hold any."""
    filled = [(number[number > 0], total[number > 0]) for number, total in counts]
    return [(number, total / number) for number, total in filled]
