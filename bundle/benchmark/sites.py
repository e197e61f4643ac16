"""The numbers behind the report on federated training, as in `bundle.benchmark.tables`.

A site is scored over the subsets that its own modalities form, for it can have no other scans.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bundle.benchmark.results import GLOBAL, Result, Results, Row
from bundle.benchmark.statistics import Difference, mean_and_spread, paired_difference
from bundle.data.partition import parse_plan
from bundle.modalities import BRATS_MODALITIES, Subset, all_subsets, subset_name

# What each arm is there to show; also the order of the tables.
MEANING: Mapping[str, str] = {
    "alone": "universal model, each site by itself",
    "modality_dropout alone": "zero-fill U-Net with random dropping, each site by itself",
    "fedavg": "the same U-Net, plain federated averaging",
    "modality_dropout": "the same U-Net, modality-aware averaging",
    "modality_dropout in 32 bits": "the same with 32 bits a number on the wire",
    "universal": "universal model, modality-aware averaging, shared bank",
    "universal with own banks": "the same, but no site's bank leaves it",
    "pooled": "universal model, all cases in one place, the steps of four sites together",
    "pooled with one site's steps": "the same with as many steps as each site makes",
}
CLIENT_MEAN = "client mean"
# Compared with each other beside the reference and all others.
_ALSO = (
    ("modality_dropout", "fedavg"),
    ("modality_dropout in 32 bits", "modality_dropout"),
)

# Results of each arm that has any, by seed.
Arms = dict[str, dict[int, Result]]


def by_arm(results: Results) -> Arms:
    """Sort the finished runs by arm, in the order of `MEANING`, and seed."""
    found = {name: results.of("federation", name, 0.0) for name in MEANING}
    return {name: dict(sorted(runs.items())) for name, runs in found.items() if runs}


def sites_of(result: Result) -> dict[str, Subset]:
    """Read who has which modalities."""
    assert result.run.federation is not None
    return parse_plan(result.run.federation.sites, BRATS_MODALITIES)


def formed(modalities: Subset) -> list[str]:
    """List the subsets that a site's own modalities form."""
    own = set(modalities)
    return [
        subset_name(s, BRATS_MODALITIES) for s in all_subsets(BRATS_MODALITIES) if set(s) <= own
    ]


def site_dice(result: Result) -> dict[str, np.ndarray]:
    """Dice of each testing case at every site, over the subsets that the site forms: (cases,).

    The model is the site's own where each site is by itself, else the one for all.
    """
    return {
        site: _case_dice(result.models.get(site, result.models.get(GLOBAL)), formed(modalities))
        for site, modalities in sites_of(result).items()
    }


def client_mean(result: Result) -> np.ndarray:
    """Dice of each testing case, mean over the sites: (cases,) float, 0 to 1."""
    return np.mean(list(site_dice(result).values()), axis=0)


def global_dice(result: Result) -> float:
    """Dice over all 15 subsets; of sites by themselves, that of the site with most modalities."""
    sites = sites_of(result)
    richest = max(sites, key=lambda site: len(sites[site]))
    model = result.models.get(GLOBAL, result.models.get(richest))
    return float(_case_dice(model, list(model["dice"])).mean())


def _case_dice(model: Mapping[str, Any], subsets: list[str]) -> np.ndarray:
    dice = [list(model["dice"][subset].values()) for subset in subsets]
    return np.mean(dice, axis=(0, 1))


def site_tables(results: Results) -> dict[str, list[Row]]:
    """Make every table that there are runs for, by the name of its file."""
    arms = by_arm(results)
    tables = {
        "sites": site_rows(arms),
        "differences": arm_rows(arms, results.grid.reference),
        "gains": site_gain_rows(arms, results.grid.reference, results.grid.baseline),
        "rebuilt": rebuilt_rows(arms),
        "sent": sent_rows(arms),
    }
    return {name: rows for name, rows in tables.items() if rows}


def seed_dice(found: Mapping[int, Result]) -> dict[str, list[float]]:
    """Dice of each seed, by site, then over all sites, at the worst one and over all subsets."""
    by_seed = [
        {site: float(dice.mean()) for site, dice in site_dice(result).items()}
        for result in found.values()
    ]
    columns = {site: [dice[site] for dice in by_seed] for site in by_seed[0]}
    columns[CLIENT_MEAN] = [float(client_mean(result).mean()) for result in found.values()]
    columns["worst client"] = [min(dice.values()) for dice in by_seed]
    columns["global"] = [global_dice(result) for result in found.values()]
    return columns


def site_rows(arms: Arms) -> list[Row]:
    """One row for every arm and site, and for what is over all sites: mean and spread of Dice."""
    rows = []
    for name, found in arms.items():
        for at, values in seed_dice(found).items():
            mean, spread = mean_and_spread(values)
            rows.append(
                {"arm": name, "at": at, "dice": mean, "spread": spread, "seeds": len(values)}
            )
    return rows


def _difference_row(row: Row, found: Difference | None) -> Row:
    names = ("difference", "low", "high", "seeds", "cases")
    if found is None:
        return row | dict.fromkeys(names)
    values = (found.mean, found.low, found.high, found.seeds, found.cases)
    return row | dict(zip(names, values, strict=True))


def arm_rows(arms: Arms, reference: str) -> list[Row]:
    """One row for every other arm: the reference minus it, paired, of the client mean."""
    if reference not in arms or len(arms) < 2:
        return []
    pairs = [(reference, name) for name in arms if name != reference]
    pairs += [(first, second) for first, second in _ALSO if first in arms and second in arms]
    return [
        _difference_row(
            {"arm": first, "other": second},
            paired_difference(arms[first], arms[second], client_mean),
        )
        for first, second in pairs
    ]


def site_gain_rows(arms: Arms, reference: str, alone: str) -> list[Row]:
    """One row for every site: what the federated model has over the site's own, in all, by seed."""
    if reference not in arms or alone not in arms:
        return []
    together, single = arms[reference], arms[alone]
    rows = []
    for site, own in sites_of(next(iter(together.values()))).items():
        found = paired_difference(
            together, single, lambda result, site=site: site_dice(result)[site]
        )
        gains = {
            f"seed {seed}": float(
                (site_dice(together[seed])[site] - site_dice(single[seed])[site]).mean()
            )
            for seed in sorted(together.keys() & single.keys())
        }
        row = _difference_row({"site": site, "modalities": ", ".join(own)}, found)
        rows.append(row | gains)
    return rows


def rebuilt_rows(arms: Arms) -> list[Row]:
    """One row for every run that rebuilt a scan: mean PSNR and SSIM over the testing cases."""
    rows = []
    for name, found in arms.items():
        for seed, result in found.items():
            scores = result.record["rebuilt"]
            if scores:
                names = ("psnr", "ssim", "constant_psnr", "constant_ssim")
                means = {key: float(np.mean(scores[key])) for key in names}
                given = "+".join(scores["given"])
                row = {"arm": name, "seed": seed, "modality": scores["modality"], "given": given}
                rows.append(row | means)
    return rows


def sent_rows(arms: Arms) -> list[Row]:
    """One row for every arm and site: bytes that the site sends in a round of the training.

    Those of the first seed; they depend on the size of the network alone.
    """
    first = {name: next(iter(found.values())).record["sent"] for name, found in arms.items()}
    return [
        {"arm": name, "site": site, "bytes": size}
        for name, sizes in first.items()
        for site, size in sizes.items()
    ]
