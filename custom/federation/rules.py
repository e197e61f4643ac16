"""What a site asks of a job before it takes part: its own rules, which no job gets around.

A refusal says why. It tells no number of cases, no path, and nothing of other jobs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import JobMetaKey

# Fewer people can be recognised in a sum or a count; also NVFlare's own choice for statistics.
FEW = 5
_METHOD = re.compile(r"method_(\w+)\.(json|yaml)")
# The method of train.json without an overlay of another one.
_DEFAULT_METHOD = "universal"


@dataclass(frozen=True)
class Rules:
    """A site's rules; the defaults are those of a site that writes none.

    Attributes:
        require_private: True = a training must send what `GaussianPrivacy` makes of its result.
        most_epsilon: epsilon that all jobs together may reach; it implies `require_private`. None =
            any.
        delta: the delta of `most_epsilon`, whatever delta a job reports.
        least_noise: where noise is required, the smallest noise_multiplier of `GaussianPrivacy`.
            With 1, one release comes to an epsilon of 4.4 at a delta of 1e-5.
        least_cases: training cases below which the site joins nothing.
        least_cases_statistics: cases below which a sum or a count does not leave the site. Those
            that have the same modalities must be so many: sums for each pair of modalities can be
            subtracted from each other.
        least_cases_scores: held-out cases below which no Dice of theirs leaves the site.
        statistics_of_few: True = sums over fewer cases may leave in pre-training; the census keeps
            to `least_cases_statistics` all the same.
        jobs, federations, methods: the names of those in which the site takes part; None = all. A
            job says its names itself: they keep out what was not meant for the site, and no liar.
        accept_changes: False = never go on with a federation whose bundle or settings have changed.
    """

    require_private: bool = False
    most_epsilon: float | None = None
    delta: float = 1e-5
    least_noise: float = 1.0
    least_cases: int = 1
    least_cases_statistics: int = FEW
    least_cases_scores: int = 1
    statistics_of_few: bool = False
    jobs: tuple[str, ...] | None = None
    federations: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    accept_changes: bool = True

    @property
    def needs_private(self) -> bool:
        """True = no result of a training leaves without noise."""
        return self.require_private or self.most_epsilon is not None

    @property
    def least_summed(self) -> int:
        """How many cases a sum of pre-training must be over."""
        return 1 if self.statistics_of_few else self.least_cases_statistics

    def check_noise(self, noise_multiplier: float) -> None:
        """Refuse a training with less noise than the site asks for, where it asks for any.

        Raises:
            ValueError: so it is.
        """
        if self.needs_private and not noise_multiplier >= self.least_noise:
            raise ValueError("the site asks for more noise than the job brings")

    def check_names(self, job: str | None, federation: str, methods: Iterable[str]) -> None:
        """Refuse what the site does not take part in.

        Args:
            job: the job's name; None = unknown.
            federation: the name under which the site would keep its state.
            methods: see `methods_of`.

        Raises:
            ValueError: which of the three it is, without the names that would be taken.
        """
        asked = (
            ("jobs", self.jobs, [job]),
            ("federations", self.federations, [federation]),
            ("methods", self.methods, methods),
        )
        for what, taken, names in asked:
            if taken is not None and not set(names) <= set(taken):
                raise ValueError(f"the site does not take part in {what} of this name")

    def check_joining(self, cases: int) -> None:
        """Refuse to join with too few training cases.

        Raises:
            ValueError: so it is.
        """
        if cases < self.least_cases:
            raise ValueError("the site has fewer training cases than it asks for")

    def check_scoring(self, cases: int) -> None:
        """Refuse to score too few held-out cases; none at all say nothing of anybody.

        Raises:
            ValueError: so it is.
        """
        if 0 < cases < self.least_cases_scores:
            raise ValueError("the site has fewer held-out cases than it asks for to send scores")

    def enough_scored(self, sums: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Keep the subsets of modalities that enough cases form.

        Args:
            sums: `federation.protocol.scoring.Sums`.
        """
        least = self.least_cases_scores
        return {
            subset: dict(regions)
            for subset, regions in sums.items()
            if all(cases >= least for _, cases in regions.values())
        }

    def census_minimum(self, job: str | None, cases: int, minimum: float) -> float:
        """Say which counts may leave the site in a census: this one, and larger ones.

        Args:
            job: the census's name; None = unknown.
            cases: the site's training cases.
            minimum: what the job asks for.

        Returns:
            Infinite where the site does not take part: no count leaves.
        """
        if cases < self.least_cases or (self.jobs is not None and job not in self.jobs):
            return math.inf
        return max(minimum, self.least_cases_statistics)


def job_name(fl_ctx: FLContext) -> str | None:
    """Tell the name of the job that is running; None = unknown."""
    meta = fl_ctx.get_prop(FLContextKey.JOB_META)
    name = meta.get(JobMetaKey.JOB_NAME.value) if isinstance(meta, dict) else None
    return name if isinstance(name, str) else None


def methods_of(configs: Iterable[str]) -> list[str]:
    """Name the methods of a stage by its config files, in which each has an overlay of its name.

    Example: `methods_of(["train.json", "method_lckd.yaml"])` gives ['lckd'], and without an overlay
    ['universal'], whose pre-training counts too.
    """
    found = [match.group(1) for name in configs if (match := _METHOD.fullmatch(name))]
    return found or [_DEFAULT_METHOD]


def read_rules(values: Any, where: str) -> Rules:
    """Read a site's rules from plain values.

    Args:
        values: names of `Rules` and their values; None = no rules.
        where: what messages start with.

    Raises:
        ValueError: an unknown name, or a value of another kind.
    """
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected names and values, got a {type(values).__name__}")
    known = [field.name for field in fields(Rules)]
    unknown = sorted(set(map(str, values)) - set(known))
    if unknown:
        raise ValueError(f"{where}: expected rules of {known}, got {unknown}. Correct the names.")
    return Rules(**{name: _read(name, value, where) for name, value in values.items()})


def _read(name: str, value: Any, where: str) -> Any:
    kind, read = next(entry for entry in _KINDS if name in entry[0])[1:]
    try:
        return read(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {name}: expected {kind}, got {value!r:.100}") from error


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError
    return value


def _epsilon(value: Any) -> float | None:
    number = None if value is None else _number(value)
    if number is not None and not 0 < number < math.inf:
        raise ValueError
    return number


def _delta(value: Any) -> float:
    number = _number(value)
    if not 0 < number < 1:
        raise ValueError
    return number


def _noise(value: Any) -> float:
    number = _number(value)
    if not 0 < number < math.inf:
        raise ValueError
    return number


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    # YAML takes 1e-5 for a text.
    return float(value)


def _names(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Collection) or isinstance(names, Mapping) or not names:
        raise TypeError
    if not all(isinstance(name, str) and name for name in names):
        raise TypeError
    return tuple(names)


# Names, what is expected of them, and what reads it.
_KINDS = (
    (("require_private", "statistics_of_few", "accept_changes"), "true or false", _truth),
    (
        ("least_cases", "least_cases_statistics", "least_cases_scores"),
        "a whole number of at least 1",
        _count,
    ),
    (("most_epsilon",), "a number above 0, or null", _epsilon),
    (("delta",), "a number between 0 and 1", _delta),
    (("least_noise",), "a number above 0", _noise),
    (("jobs", "federations", "methods"), "a list of names, or null", _names),
)
