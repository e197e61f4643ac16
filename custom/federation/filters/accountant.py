"""What privacy a site has left: epsilon and delta of the Gaussian mechanism, round after round."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from scipy.optimize import brentq
from scipy.special import erfcx
from scipy.stats import norm

from bundle.atomic import make_folder, write_text_atomically


def delta_at(epsilon: float, mu: float) -> float:
    """Compute the smallest delta at which Gaussian releases are (epsilon, delta)-private.

    Args:
        epsilon: at least 0.
        mu: sensitivity divided by the noise's standard deviation, above 0. Releases with mu_1, mu_2
            and so on cost exactly as much as one with mu = sqrt(mu_1^2 + mu_2^2 + ...).

    Source: Balle and Wang 2018 (arXiv 1805.06530), theorem 8; Dong, Roth and Su 2019
    (arXiv 1905.02383), corollaries 1 and 3.
    """
    shift = mu / 2 - epsilon / mu
    # e^epsilon Phi(shift - mu), written so that it neither overflows nor loses its digits.
    tail = norm.pdf(shift) * math.sqrt(math.pi / 2) * erfcx((mu - shift) / math.sqrt(2))
    return float(norm.cdf(shift) - tail)


def epsilon_at(delta: float, mu: float) -> float:
    """Compute the smallest epsilon at `delta`, between 0 and 1; `mu` as in `delta_at`."""
    if delta_at(0.0, mu) <= delta:
        return 0.0
    # There the first of the two terms is delta, so that their difference is below it.
    largest = mu * (mu / 2 - norm.ppf(delta))
    return float(brentq(lambda epsilon: delta_at(epsilon, mu) - delta, 0.0, largest))


class Cap(NamedTuple):
    """How much privacy may be spent in all: epsilon at a delta."""

    epsilon: float
    delta: float


class Accountant:
    """Adds up what Gaussian releases cost, exactly; it claims no gain from subsampling.

    Several processes may keep one account: each release reads it anew, under a lock.

    Args:
        delta: the delta at which epsilon is told; choose it far below 1 / (a site's cases).
        record: where the account is kept, so that a process that starts again goes on; None =
            in memory alone.

    Attributes:
        releases: how many there were.

    Raises:
        ValueError: delta is not between 0 and 1, or the record is no account.
    """

    def __init__(self, delta: float, record: str | Path | None = None) -> None:
        if not 0 < delta < 1:
            raise ValueError(f"expected delta between 0 and 1, got {delta}")
        self.delta = delta
        self.record = None if record is None else Path(record)
        self.releases = 0
        # The square of mu. Version 0.3.1 kept the same sum, so that its accounts go on.
        self._inverse_squares = 0.0
        if self.record is not None and self.record.exists():
            self._load(self.record)

    def spend(self, noise_multiplier: float, cap: Cap | None = None) -> None:
        """Count a release; call it before the release, so that a crash counts too much.

        Args:
            noise_multiplier: the noise's standard deviation divided by the sensitivity; 0 = no
                noise, which costs everything.
            cap: what all releases together may cost; None = anything.

        Raises:
            ValueError: the noise is negative, or the release would pass the cap. Nothing is spent.
            OSError: the record cannot be written; then nothing may be released.
        """
        with self._locked():
            squares = self._after(noise_multiplier, cap)
            releases = self.releases + 1
            if self.record is not None:
                content = {"releases": releases, "sum_of_inverse_squares": squares}
                write_text_atomically(self.record, json.dumps(content) + "\n", private=True)
            self.releases, self._inverse_squares = releases, squares

    def check(self, noise_multiplier: float, cap: Cap | None) -> None:
        """Refuse a release that would pass the cap; arguments and errors as in `spend`."""
        self._after(noise_multiplier, cap)

    def _after(self, noise_multiplier: float, cap: Cap | None) -> float:
        """Add a release to the sum of inverse squares."""
        if not noise_multiplier >= 0:
            raise ValueError(f"expected a noise_multiplier of at least 0, got {noise_multiplier}")
        square = noise_multiplier * noise_multiplier
        squares = self._inverse_squares + (1 / square if square else math.inf)
        if cap is not None and not _epsilon(squares, cap.delta) <= cap.epsilon:
            raise ValueError(
                "the site's cap on epsilon leaves no room for another release with this noise"
            )
        return squares

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes out, and take up what they have spent."""
        if self.record is None:
            yield
            return
        make_folder(self.record.parent, private=True)
        # A file of its own: the account's is replaced at each release, and its lock with it.
        with FileLock(str(self.record.with_name(f"{self.record.name}.lock")), mode=0o600):
            if self.record.exists():
                self._load(self.record)
            yield

    def epsilon(self) -> float:
        """Return epsilon of all releases so far; infinite after one without noise."""
        return _epsilon(self._inverse_squares, self.delta)

    def statement(self) -> str:
        """Say what holds after the releases so far."""
        epsilon, times = self.epsilon(), f"after {self.releases} release(s)"
        if math.isinf(epsilon):
            return f"{times}: NOT private, epsilon is infinite (a release without noise)"
        return f"{times}: epsilon {epsilon:.4g} at delta {self.delta:g}"

    def _load(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            releases = int(content["releases"])
            squares = float(content["sum_of_inverse_squares"])
            if releases < 0 or not squares >= 0 or (squares and not releases):
                raise ValueError(f"{releases} releases that cost {squares}")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: expected a privacy account with releases and sum_of_inverse_squares, got "
                f"something else ({error}). Restore the file: nobody else knows what was spent."
            ) from error
        self.releases, self._inverse_squares = releases, squares


def _epsilon(inverse_squares: float, delta: float) -> float:
    """Tell epsilon at a delta; infinite after a release without noise."""
    if not inverse_squares:
        return 0.0
    if math.isinf(inverse_squares):
        return math.inf
    return epsilon_at(delta, math.sqrt(inverse_squares))
