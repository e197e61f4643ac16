"""The report on `federation.evidence`: tables, differences with intervals, and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bundle.atomic import write_text_atomically, written_atomically
from bundle.benchmark.statistics import bootstrap_interval, mean_and_spread
from bundle.data.partition import parse_plan
from bundle.modalities import BRATS_MODALITIES, all_subsets, subset_name

REPORT, PICTURE = "report.md", "sites.png"
GLOBAL, REFERENCE = "global", "universal"
_DASH = "\N{EN DASH}"
_MEBIBYTE = 2**20
# What each of the others is there to show; also the order of the tables.
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

Record = Mapping[str, Any]


def formed(site: str, plan: str) -> list[str]:
    """List the subsets that a site's own modalities form."""
    own = set(parse_plan(plan, BRATS_MODALITIES)[site])
    return [
        subset_name(s, BRATS_MODALITIES) for s in all_subsets(BRATS_MODALITIES) if set(s) <= own
    ]


def case_dice(model: Mapping[str, Any], subsets: Sequence[str]) -> np.ndarray:
    """Dice of each test case, mean over regions and these subsets: (cases,) float, 0 to 1."""
    dice = [list(model["dice"][subset].values()) for subset in subsets]
    return np.mean(dice, axis=(0, 1))


def site_dice(record: Record) -> dict[str, np.ndarray]:
    """Dice of each test case at every site, over the subsets that the site's modalities form.

    The model is the site's own where each site is by itself, else the one for all.
    """
    plan, models = record["size"]["sites"], record["models"]
    return {
        site: case_dice(models.get(site, models.get(GLOBAL)), formed(site, plan))
        for site in parse_plan(plan, BRATS_MODALITIES)
    }


def client_mean(record: Record) -> np.ndarray:
    """Dice of each test case, mean over the sites: (cases,) float."""
    return np.mean(list(site_dice(record).values()), axis=0)


def global_dice(record: Record) -> float:
    """Dice over all 15 subsets; of sites by themselves, that of the site with most modalities."""
    models, plan = record["models"], parse_plan(record["size"]["sites"], BRATS_MODALITIES)
    richest = max(plan, key=lambda site: len(plan[site]))
    model = models.get(GLOBAL, models.get(richest))
    return float(case_dice(model, list(model["dice"])).mean())


def by_arm(records: Sequence[Record]) -> dict[str, dict[int, Record]]:
    """Sort records by arm, in the order of `MEANING`, and seed."""
    found: dict[str, dict[int, Record]] = {}
    for name in MEANING:
        of_arm = {record["seed"]: record for record in records if record["arm"] == name}
        if of_arm:
            found[name] = dict(sorted(of_arm.items()))
    return found


def write_report(records: Sequence[Record], output_dir: str | Path) -> Path:
    """Write report.md and sites.png.

    Args:
        records: of one size, as `federation.evidence.execute` writes them.
        output_dir: where to.

    Returns:
        The path of report.md.
    """
    folder, arms = Path(output_dir), by_arm(records)
    path = folder / REPORT
    if not arms:
        write_text_atomically(path, "# What federating brings\n\nNo run has finished yet.\n")
        return path
    figure = draw_sites(arms)
    with written_atomically(folder / PICTURE) as file:
        figure.savefig(file, format="png", dpi=130)
    sections = [
        _opening(records),
        _table(arms),
        f"![Dice at each site]({PICTURE})",
        _differences(arms),
        _every_site(arms),
        _rebuilt(arms),
        _sent(arms),
    ]
    write_text_atomically(path, "\n\n".join(filter(None, sections)) + "\n")
    return path


def _opening(records: Sequence[Record]) -> str:
    size = records[0]["size"]
    days = sorted({record["date"][:10] for record in records})
    versions = {f"{n} {v}" for record in records for n, v in record["versions"].items()}
    hours = sum(record["seconds"] for record in records) / 3600
    cases = size["cases"]
    rounds, before = size["rounds"], size["pretrain_rounds"]
    return "\n".join(
        [
            "# What federating brings",
            "",
            f"Made by `python -m federation.evidence OUTPUT_DIR`: {len(records)} runs in NVFlare's "
            f"simulator, {days[0]} to {days[-1]}, {hours:.1f} hours of wall time.",
            "",
            f"- Made-up cases: {cases['training']} training cases dealt out to the sites "
            f"`{size['sites']}`; {cases['testing']} complete cases to test on, which no site had. "
            "The seed decides who gets which case, weights and order.",
            f"- {rounds} rounds of ten steps at each site; the universal model after {before} "
            f"rounds of pre-training, the U-Net {rounds + before} rounds from the start: as many "
            "steps. No model is chosen on held-out cases.",
            "- Dice *at a site*: over the subsets which that site's modalities form, all test "
            "cases, three regions. *Client mean*: over the sites. *Global*: over all 15 subsets; "
            "of sites by themselves, that of the one which has everything.",
            f"- Processor: {', '.join(sorted({record['cpu'] for record in records}))}. Versions: "
            f"{', '.join(sorted(versions))}.",
        ]
    )


def _table(arms: Mapping[str, Mapping[int, Record]]) -> str:
    sites = list(site_dice(next(iter(next(iter(arms.values())).values()))))
    lines = [
        "## Dice",
        "",
        "Per cent, mean \N{PLUS-MINUS SIGN} standard deviation over seeds.",
        "",
        f"| | {' | '.join(sites)} | client mean | worst client | global | seeds |",
        f"|:--|{'--:|' * len(sites)}--:|--:|--:|--:|",
    ]
    for name, records in arms.items():
        by_seed = [site_dice(record) for record in records.values()]
        cells = [_spread([float(s[site].mean()) for s in by_seed]) for site in sites]
        cells.append(_spread([float(client_mean(record).mean()) for record in records.values()]))
        worst = [min(float(dice.mean()) for dice in seed.values()) for seed in by_seed]
        cells += [_spread(worst), _spread([global_dice(r) for r in records.values()])]
        lines.append(f"| {name} | {' | '.join(cells)} | {len(records)} |")
    lines += ["", *(f"- *{name}*: {text}." for name, text in MEANING.items() if name in arms)]
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    mean, spread = mean_and_spread([100 * value for value in values])
    return f"{mean:.1f}" + ("" if spread is None else f" \N{PLUS-MINUS SIGN} {spread:.1f}")


def _difference(
    first: Mapping[int, Record], second: Mapping[int, Record], dice: Any = client_mean
) -> tuple[float, float, float, int] | None:
    """Mean paired difference with its interval, and of how many seeds; None = no common seed."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    found = np.array([dice(first[seed]) - dice(second[seed]) for seed in seeds])
    return float(found.mean()), *bootstrap_interval(found), len(seeds)


def _cell(found: tuple[float, float, float, int] | None) -> str:
    if found is None:
        return _DASH
    mean, low, high, seeds = found
    of = "" if seeds > 1 else " (n = 1)"
    return f"{100 * mean:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]{of}"


def _differences(arms: Mapping[str, Mapping[int, Record]]) -> str:
    if REFERENCE not in arms or len(arms) < 2:
        return ""
    lines = [
        f"## {REFERENCE} minus the others",
        "",
        "Client mean, percentage points, paired by seed and test case, with 95 % bootstrap "
        "intervals (seeds and cases drawn with replacement); above 0: the federated universal "
        "model is better. Three seeds say little about how much trainings differ.",
        "",
        "| other | client mean |",
        "|:--|--:|",
    ]
    for name, records in arms.items():
        if name != REFERENCE:
            lines.append(f"| {name} | {_cell(_difference(arms[REFERENCE], records))} |")
    for first, second in (
        ("modality_dropout", "fedavg"),
        ("modality_dropout in 32 bits", "modality_dropout"),
    ):
        if first in arms and second in arms:
            lines.append(
                f"| *{first}* minus *{second}* | {_cell(_difference(arms[first], arms[second]))} |"
            )
    return "\n".join(lines)


def _every_site(arms: Mapping[str, Mapping[int, Record]]) -> str:
    if REFERENCE not in arms or "alone" not in arms:
        return ""
    lines = [
        "## What each site gains over being alone",
        "",
        "The federated universal model minus the site's own, as above, and of each seed by itself.",
        "",
        "| site | its modalities | gain | by seed |",
        "|:--|:--|--:|--:|",
    ]
    first = next(iter(arms[REFERENCE].values()))
    for site, own in parse_plan(first["size"]["sites"], BRATS_MODALITIES).items():
        pair = (arms[REFERENCE], arms["alone"])
        found = _difference(*pair, lambda record, site=site: site_dice(record)[site])
        seeds = sorted(pair[0].keys() & pair[1].keys())
        gains = [(site_dice(pair[0][s])[site] - site_dice(pair[1][s])[site]).mean() for s in seeds]
        by_seed = ", ".join(f"{100 * gain:+.1f}" for gain in gains)
        lines.append(f"| {site} | {', '.join(own)} | {_cell(found)} | {by_seed} |")
    return "\n".join(lines)


def _rebuilt(arms: Mapping[str, Mapping[int, Record]]) -> str:
    rows = []
    for name, records in arms.items():
        found = [record["rebuilt"] for record in records.values() if record["rebuilt"]]
        if found:
            rows.append((name, *([np.mean(f[key]) for f in found] for key in ("psnr", "ssim"))))
    if not rows:
        return ""
    some = next(r["rebuilt"] for records in arms.values() for r in records.values() if r["rebuilt"])
    lines = [
        f"## {some['modality'].upper()} rebuilt from {' and '.join(some['given'])}",
        "",
        "By the pre-trained network, of test cases, inside the brain; mean over cases, then over "
        f"seeds (lowest to highest). The site with {' and '.join(some['given'])} has never seen "
        "it. The mean everywhere would have a PSNR of "
        f"{np.mean(some['constant_psnr']):.2f} dB and an SSIM of "
        f"{np.mean(some['constant_ssim']):.3f}.",
        "",
        "| | PSNR dB | SSIM |",
        "|:--|--:|--:|",
    ]
    for name, psnr, ssim in rows:
        lines.append(f"| {name} | {_range(psnr, 2)} | {_range(ssim, 3)} |")
    return "\n".join(lines)


def _range(values: Sequence[float], digits: int) -> str:
    low, high = min(values), max(values)
    return f"{np.mean(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _sent(arms: Mapping[str, Mapping[int, Record]]) -> str:
    first = {name: next(iter(records.values()))["sent"] for name, records in arms.items()}
    sent = {name: sizes for name, sizes in first.items() if sizes}
    if not sent:
        return ""
    sites = list(next(iter(sent.values())))
    lines = [
        "## What a site sends in a round",
        "",
        "MiB, in the training.",
        "",
        f"| | {' | '.join(sites)} |",
        f"|:--|{'--:|' * len(sites)}",
    ]
    for name, sizes in sent.items():
        lines.append(f"| {name} | {' | '.join(f'{sizes[s] / _MEBIBYTE:.2f}' for s in sites)} |")
    return "\n".join(lines)


def draw_sites(arms: Mapping[str, Mapping[int, Record]]) -> Figure:
    """Draw Dice at each site and its mean, a dot a seed, a bar their mean."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    axes = figure.subplots()
    sites = list(site_dice(next(iter(next(iter(arms.values())).values()))))
    width = 0.8 / len(arms)
    for place, (name, records) in enumerate(arms.items()):
        by_seed = [site_dice(record) for record in records.values()]
        rows = [[100 * float(s[site].mean()) for site in sites] for s in by_seed]
        rows = [[*row, sum(row) / len(row)] for row in rows]
        middles = np.arange(len(sites) + 1) + (place - (len(arms) - 1) / 2) * width
        bars = axes.bar(middles, np.mean(rows, axis=0), 0.9 * width, label=name, alpha=0.75)
        for row in rows:
            axes.plot(middles, row, "o", color=bars[0].get_facecolor()[:3], markersize=2.5)
    plan = parse_plan(
        next(iter(next(iter(arms.values())).values()))["size"]["sites"], BRATS_MODALITIES
    )
    names = [f"{site}\n{', '.join(plan[site])}" for site in sites]
    axes.set_xticks(range(len(sites) + 1), [*names, "mean of the sites"])
    axes.set_ylabel("Dice on test cases, own subsets, %")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure
