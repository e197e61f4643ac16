"""How many planted faults the rules of `bundle.data.plausibility` find, and what they flag wrongly.

The phantom is the default, so that nobody's data set the limits; a datalist's cases tell how the
rules do on real contrast.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bundle.data.census import table
from bundle.data.datalist import SECTIONS, labelled, load_datalist
from bundle.data.labels import BRATS_ALIASES, read_labels
from bundle.data.plausibility.judge import judge
from bundle.data.plausibility.measure import CaseMeter
from bundle.data.plausibility.measured import Measured
from bundle.data.plausibility.repeats import repeated_scans
from bundle.data.plausibility.rules import RULES
from bundle.data.volumes import Grid, read_case
from bundle.modalities import BRATS_MODALITIES
from bundle.phantom.case import make_case
from bundle.phantom.faults import FAULTS, can_have, drop_some
from bundle.phantom.planting import Case
from bundle.regions import BRATS_REGIONS, known_labels

CLEAN = "none"
_SIZES = (40, 48, 56)


@dataclass
class Rates:
    """What the rules found.

    Attributes:
        planted: fault, or `CLEAN` -> number of cases that were judged.
        found: fault -> number of them that a rule meant for it found.
        flagged: fault, or `CLEAN` -> rule -> number of cases.
    """

    planted: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    flagged: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, fault: str, rules: Sequence[str]) -> None:
        """Count one case and the rules that flagged it."""
        self.planted[fault] += 1
        self.flagged.setdefault(fault, Counter()).update(set(rules))
        if fault != CLEAN:
            self.found[fault] += bool(set(rules) & set(FAULTS[fault].rules))


def measure_rates(cases: int = 200, seed: int = 0, datalist: str | Path | None = None) -> Rates:
    """Judge cases as they are, and once more with each fault planted.

    Args:
        cases: how many phantom cases, and how often each fault is planted.
        seed: of the cases and the faults.
        datalist: take its labelled cases instead, all of them once for each fault.

    Raises:
        ValueError: fewer than one case, or a datalist without a labelled one.
    """
    loaders = list(_loaders(cases, seed, datalist))
    if not loaders:
        raise ValueError(f"expected at least one labelled case, got none in {datalist or cases}.")
    rates = Rates()

    def judge_case(numbered: tuple[int, Callable[[], Case]]) -> list[tuple[str, list[str]]]:
        number, load = numbered
        return list(_judge_with_faults(load(), seed, number))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(judge_case, enumerate(loaders))
        for fault, rules in chain.from_iterable(tqdm(results, "cases", len(loaders), leave=False)):
            rates.add(fault, rules)
    return rates


def rates_table(rates: Rates) -> str:
    """Lay out the rates: each fault with what found it, then each rule with its false alarms."""
    clean = rates.planted[CLEAN]
    rows = [("fault", "found", "by the rules", "and by")]
    for fault, planted in rates.planted.items():
        if fault == CLEAN:
            continue
        flagged = rates.flagged[fault]
        meant, others = (
            ", ".join(f"{rule} {flagged[rule]}" for rule in RULES if flagged[rule] and wanted(rule))
            for wanted in (
                lambda rule, fault=fault: rule in FAULTS[fault].rules,
                lambda rule, fault=fault: rule not in FAULTS[fault].rules,
            )
        )
        rows.append((fault, f"{rates.found[fault]} of {planted}", meant or "-", others or "-"))
    alarms = rates.flagged.get(CLEAN, Counter())
    wrong = ", ".join(f"{rule} {alarms[rule]}" for rule in RULES if alarms[rule]) or "none"
    return "\n".join([table(rows), f"clean cases: {clean}, flagged wrongly: {wrong}"])


def measure(case: Case) -> Measured:
    """Measure a case in memory as a check does when it reads the files."""
    meter = CaseMeter(BRATS_REGIONS, case.labels)
    for name, voxels in case.images.items():
        meter.add(name, voxels)
    grid = Grid(case.labels.shape, np.diag([*case.spacing_mm, 1.0]))
    return meter.measure(grid, {next(iter(case.images)): case.forms_mm})


def _judge_with_faults(case: Case, seed: int, number: int) -> Iterator[tuple[str, list[str]]]:
    """Yield (fault, rules that flag the case), the case without a fault first."""
    rng = np.random.default_rng([seed, number, 1])
    yield CLEAN, _rules(measure(drop_some(rng, case)))
    for name, fault in FAULTS.items():
        if not can_have(case, fault):
            continue
        good = drop_some(rng, case, fault)
        measured = measure(fault.plant(rng, good))
        yield name, _rules(measured) + _repeated(name, good, measured)


def _rules(measured: Measured) -> list[str]:
    return [suspicion.rule for suspicion in judge("case", measured.numbers)]


def _repeated(name: str, good: Case, measured: Measured) -> list[str]:
    """Say whether a copied case is told, in one section and in two; other faults add no case."""
    if "leak" not in FAULTS[name].rules:
        return []
    first, second = ("a", measure(good)), ("b", measured)
    apart = repeated_scans({"training": [first], "testing": [second]})
    together = repeated_scans({"training": [first, second]})
    return [suspicion.rule for suspicion in apart + together]


def _loaders(cases: int, seed: int, datalist: str | Path | None) -> Iterator[Callable[[], Case]]:
    if datalist is None:
        yield from (lambda number=number: _phantom(seed, number) for number in range(cases))
        return
    content = load_datalist(datalist, BRATS_MODALITIES)
    for item in labelled(chain.from_iterable(content[section] for section in SECTIONS)):
        yield lambda item=item: _read(item)


def _phantom(seed: int, number: int) -> Case:
    """Make a phantom case; size, difficulty and voxel size vary."""
    rng = np.random.default_rng([seed, number])
    size, difficulty = int(rng.choice(_SIZES)), float(rng.uniform(0.2, 1.0))
    images, labels = make_case(int(rng.integers(2**31)), size, difficulty=difficulty)
    edge = float(rng.uniform(1.5, 3.0))
    return Case(images, labels, (edge, edge, edge))


def _read(item: dict[str, Any]) -> Case:
    case = str(item["case"])
    label = read_labels(item["label"], case, known_labels(BRATS_REGIONS), BRATS_ALIASES)
    volumes = read_case(item["image"], case, {Path(item["label"]): label.grid})
    return Case(volumes.voxels, label.labels, tuple(label.grid.spacing_mm))
