"""Judging one case: which rules its numbers break, and what to say about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from bundle.data.plausibility.coarse import NECROSIS, OEDEMA, RIM, standard_name
from bundle.data.plausibility.rules import RULES, is_odd

Numbers = Mapping[str, float]

# Numbers of one modality each, such as "zeros t1", and their rules.
_KINDS = {
    "zeros": "background",
    "filled": "few_voxels",
    "values": "label_as_scan",
    "forms": "two_forms",
    "overlap": "masks",
    "mirror": "mirrored",
}


@dataclass(frozen=True)
class Suspicion:
    """What a rule has found about a case.

    Attributes:
        rule: a key of `RULES`.
        case: the case.
        measured: the number, in the unit of the rule.
        where: which modality or other case, in words; "" = the whole case.
    """

    rule: str
    case: str
    measured: float
    where: str = ""

    @property
    def refused(self) -> str:
        """When the case is refused: "always", "strict" or "never", see `Rule`."""
        return RULES[self.rule].refused

    def __str__(self) -> str:
        rule = RULES[self.rule]
        side = "at most" if rule.odd_above else "at least"
        where = f"{self.where}: " if self.where else ""
        return (
            f"case {self.case}: {where}{rule.says} ({self.rule}: {rule.number} "
            f"{self.measured:.3g}, expected {side} {rule.limit:g}). {rule.advice}"
        )


def judge(case: str, numbers: Numbers) -> list[Suspicion]:
    """Apply every rule whose numbers were measured, in the order of the table.

    Args:
        case: the case's name.
        numbers: from `bundle.data.plausibility.measure`.
    """
    found = [
        Suspicion(rule, case, measured, where)
        for rule, measured, where in _readings(numbers)
        if is_odd(rule, measured)
    ]
    return sorted(found, key=lambda suspicion: list(RULES).index(suspicion.rule))


def count_by_rule(suspicions: Iterable[Suspicion]) -> dict[str, int]:
    """Count the flagged cases by rule, without any name; rules that flag none are left out."""
    flagged = {(suspicion.rule, suspicion.case) for suspicion in suspicions}
    counts = {rule: sum(name == rule for name, _ in flagged) for rule in RULES}
    return {rule: count for rule, count in counts.items() if count}


def _readings(numbers: Numbers) -> Iterator[tuple[str, float, str]]:
    """Yield (rule, its number, where) for all that can be read off."""
    simple = {
        "voxel_small": "voxel",
        "voxel_large": "voxel",
        "head_small": "extent",
        "head_large": "extent",
        "agent_in_rim": f"agent {RIM}",
        "one_label": "label values",
        "tumour_large": "tumour share",
        "label_outside": "label outside",
        "oedema_dark": f"{OEDEMA} flair",
    }
    for rule, name in simple.items():
        if name in numbers:
            yield rule, numbers[name], ""
    yield from _by_modality(numbers)
    yield from _differences(numbers)
    yield from _ring(numbers)
    if f"agent {RIM}" not in numbers and "agent tail" in numbers:
        yield "agent_in_brain", numbers["agent tail"], ""
    # One voxel off is how a label on another corner of the voxel looks.
    if numbers.get("label shift", 0) >= 2:
        yield "label_moved", numbers["label fit"], ""


def _by_modality(numbers: Numbers) -> Iterator[tuple[str, float, str]]:
    for key, value in numbers.items():
        kind, _, name = key.partition(" ")
        filled = is_odd("background", numbers.get(f"zeros {name}", 1))
        if kind in _KINDS:
            yield _KINDS[kind], value, name
        elif kind in ("corners", "border") and not filled:
            yield kind, value, name
        elif kind == "copy":
            yield "same_file", value, name.replace("+", " and ")
        elif kind == "shell" and standard_name(name) in ("t1", "t1ce"):
            yield "t1_order", value, name
        elif kind == "shell" and standard_name(name) == "t2":
            yield "t2_order", value, name


def _ring(numbers: Numbers) -> Iterator[tuple[str, float, str]]:
    """Judge a ring: bone is black on every modality, while fluid below the dura is bright on T2."""
    rings = {key.partition(" ")[2]: n for key, n in numbers.items() if key.startswith("ring ")}
    dark = {name: number for name, number in rings.items() if is_odd("dark_ring", number)}
    if dark:
        is_bone = dark == rings and any(standard_name(name) == "t2" for name in rings)
        number = max(rings.values()) if is_bone else min(dark.values())
        yield "scalp" if is_bone else "dark_ring", number, " and ".join(dark)


def _differences(numbers: Numbers) -> Iterator[tuple[str, float, str]]:
    if {"fluid t2", "fluid flair"} <= set(numbers):
        yield "t2_flair", numbers["fluid t2"] - numbers["fluid flair"], ""
    for rule, part in (("agent_elsewhere", "agent {}"), ("rim_dark", "{} t1ce")):
        others = [part.format(other) for other in (NECROSIS, OEDEMA)]
        found = [numbers[name] for name in others if name in numbers]
        if found and part.format(RIM) in numbers:
            yield rule, max(found) - numbers[part.format(RIM)], ""
    for rule, part in (("necrosis_outside", NECROSIS), ("rim_outside", RIM)):
        if {f"open {OEDEMA}", f"open {part}"} <= set(numbers):
            yield rule, numbers[f"open {OEDEMA}"] - numbers[f"open {part}"], ""
