"""How sure the mean of paired differences is."""

from __future__ import annotations

import numpy as np

RESAMPLES = 10_000
_LEVEL = 0.95


def bootstrap_interval(differences: np.ndarray, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % percentile interval of the mean, resampling trainings and test cases.

    Seeds and cases cross: every training is tested on the same cases. Both are therefore drawn with
    replacement on their own, and a drawn case counts for all drawn seeds alike. The generator's
    seed is fixed: the same differences give the same interval.

    Args:
        differences: (seeds, cases) float.
        resamples: how many.

    Returns:
        Its lower and upper end. With one seed only the cases vary.

    Source: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007.
    """
    generator = np.random.default_rng(0)
    seeds, cases = differences.shape
    of_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    of_cases = generator.multinomial(cases, np.full(cases, 1 / cases), resamples) / cases
    means = ((of_seeds @ differences) * of_cases).sum(1)
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
