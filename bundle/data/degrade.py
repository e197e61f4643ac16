"""Fixed absence: which modalities each case of a data set lacks, the same every time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundle.data.census import combination_counts, count_table, modality_counts, table
from bundle.data.datalist import SECTIONS, load_datalist, write_datalist
from bundle.modalities import BRATS_MODALITIES, Subset, check_known, check_modalities


def degrade(
    datalist: str | Path,
    output: str | Path,
    ratio: float | None = None,
    rates: str | Mapping[str, float] | None = None,
    sections: Sequence[str] = ("training",),
    seed: int = 0,
    modalities: Sequence[str] = BRATS_MODALITIES,
) -> dict[str, Any]:
    """Write a datalist whose cases lack modalities at random, at given rates.

    Each present modality is dropped independently of the others. A case that would be left with
    nothing keeps one, drawn with odds 1 - rate; the rates reached are therefore a little lower than
    asked, clearly so above 0.5, and recorded beside them.

    Args:
        datalist: the datalist to start from.
        output: the datalist to write.
        ratio: chance that a modality is dropped, 0 to 1, the same for all.
        rates: or one chance for each modality, "t1=0.2,t1ce=0.4" or a dict; one not named stays.
        sections: the sections to degrade; the others stay as they are.
        seed: together with the case's name it decides what the case lacks, whatever else is in the
            datalist.
        modalities: the vocabulary.

    Returns:
        What was written, with a note under "degraded".

    Raises:
        ValueError: both or neither of `ratio` and `rates`, a chance outside 0 to 1, an unknown
            modality or section, `output` is `datalist`, or what `load_datalist` refuses.
    """
    check_modalities(modalities)
    chances = read_rates(ratio, rates, modalities)
    unknown = [section for section in sections if section not in SECTIONS]
    if unknown or not sections:
        raise ValueError(f"sections: expected some of {list(SECTIONS)}, got {list(sections)}")
    if Path(output).resolve() == Path(datalist).resolve():
        raise ValueError(f"output: {output} is the datalist itself. Choose another name.")
    source = load_datalist(datalist, modalities)
    result = {**source, **{s: [thin(i, chances, seed) for i in source[s]] for s in sections}}
    before = [item for section in sections for item in source[section]]
    after = [item for section in sections for item in result[section]]
    reached = _reached(before, after, modalities)
    result["degraded"] = {
        **({"ratio": float(ratio)} if ratio is not None else {"rates": chances}),
        "seed": seed,
        "sections": list(sections),
        "reached": reached,
        **({"before": source["degraded"]} if "degraded" in source else {}),
    }
    write_datalist(result, output)
    print(_report(output, chances, reached, after, modalities))
    return result


def read_rates(
    ratio: float | None, rates: str | Mapping[str, float] | None, modalities: Sequence[str]
) -> dict[str, float]:
    """Return the chance of every modality to be dropped.

    Raises:
        ValueError: both or neither given, a chance outside 0 to 1, or an unknown modality.
    """
    if (ratio is None) == (rates is None):
        raise ValueError(f"give either ratio or rates, got ratio={ratio} and rates={rates}")
    if rates is None:
        given: Mapping[str, Any] = dict.fromkeys(modalities, ratio)
    else:
        given = rates if isinstance(rates, Mapping) else _parse_rates(rates)
    check_known(given, modalities, "rates" if ratio is None else "ratio")
    return {name: _chance(name, given.get(name, 0)) for name in modalities}


def draw_kept(present: Iterable[str], rates: Mapping[str, float], seed: int, case: str) -> Subset:
    """Draw the modalities that a case keeps, at least one.

    Args:
        present: what the case has.
        rates: modality -> chance to be dropped, in vocabulary order.
        seed: any whole number.
        case: the case's name.

    Returns:
        What the case keeps, in vocabulary order; the same for the same four arguments.
    """
    # A file name's byte that is no letter is a letter of its own in the case's name.
    words = f"{seed}:{case}".encode("utf-8", "surrogatepass")
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(words).digest()[:8], "big"))
    # One number for every modality, present or not: what a case has does not shift the others.
    numbers = dict(zip(rates, rng.random(len(rates)), strict=True))
    here = [name for name in rates if name in set(present)]
    kept = tuple(name for name in here if numbers[name] >= rates[name])
    if kept:
        return kept
    odds = np.array([1 - rates[name] for name in here])
    odds = odds / odds.sum() if odds.sum() > 0 else np.full(len(here), 1 / len(here))
    return (here[int(rng.choice(len(here), p=odds))],)


def thin(item: Mapping[str, Any], rates: Mapping[str, float], seed: int) -> dict[str, Any]:
    """Return the item with only the modalities that `draw_kept` leaves it."""
    kept = draw_kept(item["image"], rates, seed, item["case"])
    return {**item, "image": {name: item["image"][name] for name in kept}}


def _parse_rates(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in str(text).split(",") if pair.strip()]
    if not pairs or not all(equals for _, equals, _ in pairs):
        raise ValueError(f"rates: expected name=rate pairs such as t1=0.2,t1ce=0.4, got {text!r}")
    return {name.strip(): rate.strip() for name, _, rate in pairs}


def _chance(name: str, value: Any) -> float:
    try:
        chance = float(value)
    except (TypeError, ValueError):
        chance = float("nan")
    if not 0 <= chance <= 1:
        raise ValueError(f"rate of {name!r}: expected a number from 0 to 1, got {value!r}")
    return chance


def _reached(
    before: Iterable[Mapping[str, Any]],
    after: Iterable[Mapping[str, Any]],
    modalities: Sequence[str],
) -> dict[str, float]:
    had, has = modality_counts(before, modalities), modality_counts(after, modalities)
    return {m: round(1 - has[m] / had[m], 4) if had[m] else 0.0 for m in modalities}


def _report(
    output: str | Path,
    asked: Mapping[str, float],
    reached: Mapping[str, float],
    items: Sequence[Mapping[str, Any]],
    modalities: Sequence[str],
) -> str:
    rows = [(name, f"{asked[name]:.3f}", f"{reached[name]:.3f}") for name in modalities]
    parts = [
        f"wrote {output}: {len(items)} cases degraded",
        table([("dropped", "asked", "reached"), *rows]),
        count_table("combination", combination_counts(items, modalities)),
    ]
    return "\n\n".join(parts)
