"""What privacy a site has left: epsilon and delta of the Gaussian mechanism, round after round."""

from __future__ import annotations

import json
import math
from pathlib import Path

from bundle.atomic import write_text_atomically

# Every order above 1 gives a bound that holds; from 1.0001 to a million, 1 % apart (of order - 1).
_ORDERS = tuple(1 + 1e-4 * 1.01**step for step in range(2315))


def renyi_divergence(order: float, noise_multiplier: float) -> float:
    """Renyi differential privacy of one release with Gaussian noise.

    Args:
        order: alpha, above 1.
        noise_multiplier: sigma, the noise's standard deviation divided by the sensitivity.

    Source: Mironov 2017 (arXiv 1702.07476), corollary 3: alpha / (2 sigma^2).
    """
    return order / (2 * noise_multiplier**2)


def epsilon_at(order: float, divergence: float, delta: float) -> float:
    """Turn Renyi differential privacy of one order into epsilon at delta.

    Source: Canonne, Kamath, Steinke 2020 (arXiv 2004.00010), proposition 12; the same as in
    Opacus: rdp + log((alpha - 1) / alpha) - (log delta + log alpha) / (alpha - 1).
    """
    return divergence + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)


class Accountant:
    """Adds up what Gaussian releases cost. Subsampling is not claimed to amplify anything.

    Args:
        delta: the delta at which epsilon is told; far below one in the number of a site's cases.
        record: where the account is kept, so that a process that starts again goes on; None =
            in memory alone.

    Attributes:
        releases: how many there were.

    Raises:
        ValueError: delta is not between 0 and 1, or the record cannot be read.
    """

    def __init__(self, delta: float, record: str | Path | None = None) -> None:
        if not 0 < delta < 1:
            raise ValueError(f"expected delta between 0 and 1, got {delta}")
        self.delta = delta
        self.record = None if record is None else Path(record)
        self.releases = 0
        # Divergences add up, and are proportional to the order: one number holds all orders.
        self._inverse_squares = 0.0
        if self.record is not None and self.record.exists():
            self._load(self.record)

    def spend(self, noise_multiplier: float) -> None:
        """Count a release; call it before the release, so that a crash counts too much.

        Args:
            noise_multiplier: see `renyi_divergence`; 0 = no noise, which costs everything.

        Raises:
            ValueError: it is negative.
            OSError: the record cannot be written; then nothing may be released.
        """
        if not noise_multiplier >= 0:
            raise ValueError(f"expected a noise_multiplier of at least 0, got {noise_multiplier}")
        cost = 1 / noise_multiplier**2 if noise_multiplier else math.inf
        releases, squares = self.releases + 1, self._inverse_squares + cost
        if self.record is not None:
            content = {"releases": releases, "sum_of_inverse_squares": squares}
            write_text_atomically(self.record, json.dumps(content) + "\n")
        self.releases, self._inverse_squares = releases, squares

    def epsilon(self) -> float:
        """Return epsilon of all releases so far; infinite after one without noise."""
        if not self.releases:
            return 0.0
        if math.isinf(self._inverse_squares):
            return math.inf
        together = self._inverse_squares**-0.5
        return max(
            0.0,
            min(epsilon_at(a, renyi_divergence(a, together), self.delta) for a in _ORDERS),
        )

    def statement(self) -> str:
        """Say what holds after the releases so far."""
        epsilon, times = self.epsilon(), f"after {self.releases} release(s)"
        if math.isinf(epsilon):
            return f"{times}: NOT private, epsilon is infinite (a release without noise)"
        return f"{times}: epsilon {epsilon:.4g} at delta {self.delta:g}"

    def _load(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            self.releases = int(content["releases"])
            self._inverse_squares = float(content["sum_of_inverse_squares"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} cannot be read as a privacy account ({error}). What was spent is unknown: "
                "restore the file; without it no epsilon can be told."
            ) from error
