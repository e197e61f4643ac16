"""The tables of the reports, laid out for reading: per cent, signs, intervals, dashes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bundle.benchmark.results import Row
from bundle.evaluation.tables import markdown

DASH = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_MEBIBYTE = 2**20


def percent(value: float | None) -> str:
    """Write 0.7123 as 71.2."""
    return DASH if value is None else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    """Write a difference of 0.0123 as +1.23."""
    return DASH if value is None else f"{100 * value:+.2f}".replace("-", _MINUS)


def times(value: float | None) -> str:
    """Write a ratio of 1.234 as 1.23."""
    return DASH if value is None else f"{value:.2f}"


def interval(row: Row) -> str:
    """Write a difference with its interval: +1.23 [+0.40, +2.05]."""
    if row["difference"] is None:
        return DASH
    return f"{points(row['difference'])} [{points(row['low'])}, {points(row['high'])}]"


def range_cell(values: Sequence[float], digits: int) -> str:
    """Write the mean of seeds, the lowest and the highest one: 16.13 (15.00 to 16.96)."""
    if not values:
        return DASH
    mean, low, high = sum(values) / len(values), min(values), max(values)
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def pivot(
    rows: Sequence[Row],
    down: Callable[[Row], str],
    across: Callable[[Row], str],
    cell: Callable[[Row], str],
    corner: str,
) -> str:
    """Lay rows out as a table of two dimensions, in the order in which they come."""
    columns = list(dict.fromkeys(across(row) for row in rows))
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        lines.setdefault(down(row), {})[across(row)] = cell(row)
    body = [[name, *(line.get(column, DASH) for column in columns)] for name, line in lines.items()]
    return markdown([corner, *columns], body)


def _kind(row: Row) -> str:
    return str(row["method"])


def missing(row: Row) -> str:
    """Write what training cases lacked: a ratio, or rates by modality."""
    ratio = row["ratio"]
    return ratio if isinstance(ratio, str) else f"{ratio:g}"


def _most_seeds(rows: Sequence[Row]) -> int:
    return max((row["seeds"] or 0 for row in rows), default=0)


def _fewer(row: Row, most: int) -> str:
    return f" (n = {row['seeds']})" if row["seeds"] is not None and row["seeds"] < most else ""


def _nothing(row: Row) -> str:
    return "no complete case" if row["not_possible"] else DASH


def spread_cell(row: Row) -> str:
    """Write mean and spread over seeds: 71.2 ± 1.2."""
    spread = "" if row["spread"] is None else f" \N{PLUS-MINUS SIGN} {percent(row['spread'])}"
    return f"{percent(row['dice'])}{spread}"


def _dice_cell(row: Row, most: int) -> str:
    if row["dice"] is None:
        return _nothing(row)
    return f"{spread_cell(row)}{_fewer(row, most)}"


def _worst_cell(row: Row) -> str:
    if row["worst_subset"] is None:
        return _nothing(row)
    return f"{percent(row['worst_dice'])} ({row['worst_subset']})"


def methods_table(rows: Sequence[Row]) -> str:
    """Mean Dice and spread over seeds: methods down, ratios across; n where seeds are fewer."""
    most = _most_seeds(rows)
    return pivot(rows, _kind, missing, lambda row: _dice_cell(row, most), "Dice %, missing ratio")


def worst_table(rows: Sequence[Row]) -> str:
    """The worst subset of each method at each missing ratio."""
    return pivot(rows, _kind, missing, _worst_cell, "worst subset, Dice %, missing ratio")


def regions_table(rows: Sequence[Row], regions: Sequence[str]) -> str:
    """Mean Dice of each region, in one cell: methods down, ratios across."""

    def cell(row: Row) -> str:
        if row["dice"] is None:
            return _nothing(row)
        return " / ".join(percent(row[region]) for region in regions)

    return pivot(rows, _kind, missing, cell, f"{' / '.join(regions)}, Dice %, missing ratio")


def overview_table(rows: Sequence[Row], regions: Sequence[str]) -> str:
    """Dice at one missing ratio and costs: methods down, everything across."""
    most = _most_seeds(rows)
    costs = {
        "step": "training step",
        "training_memory": "training memory",
        "parameters": "parameters",
        "inference": "inference",
    }
    header = ["method", "Dice %", *regions, "worst subset", "steps", "work", *costs.values()]
    body = [
        [
            str(row["method"]),
            _dice_cell(row, most),
            *(percent(row[region]) for region in regions),
            _worst_cell(row),
            _rounded(row["steps"]),
            _rounded(row["work"]),
            *(times(row[key]) for key in costs),
        ]
        for row in rows
    ]
    return markdown(header, body)


def scans_table(rows: Sequence[Row]) -> str:
    """Dice by how many scans are given, at one missing ratio: methods down."""
    given = [name for name in rows[0] if name.startswith("given ")]
    most = _most_seeds(rows)
    body = [
        [f"{row['method']}{_fewer(row, most)}", *(percent(row[n]) for n in (*given, "mean"))]
        for row in rows
    ]
    return markdown(["Dice %", *given, "mean"], body)


def scan_differences_table(rows: Sequence[Row], baseline: str) -> str:
    """Differences to the baseline by how many scans are given, at one missing ratio."""
    most = _most_seeds(rows)
    return pivot(
        rows,
        lambda row: f"{row['method']}{_fewer(row, most)}",
        lambda row: f"given {row['given']}",
        interval,
        f"minus {baseline}",
    )


def curve_table(rows: Sequence[Row]) -> str:
    """Dice by the length of the training, and what each doubling brought."""
    given = [name for name in rows[0] if name.startswith("given ")]
    body = [
        [
            str(row["steps"]),
            *(percent(row[name]) for name in ("dice", *given)),
            interval(row),
            str(row["seeds"]),
        ]
        for row in rows
    ]
    return markdown(["steps", "Dice %", *given, "minus half the steps", "seeds"], body)


def gains_table(rows: Sequence[Row]) -> str:
    """Differences to the baseline with intervals: methods down, ratios across."""
    return differences_table([{**row, "other": row["method"]} for row in rows], "method")


def differences_table(rows: Sequence[Row], whose: str = "other method") -> str:
    """Differences with intervals: opponents down, ratios across; n where pairs are fewer."""
    most = _most_seeds(rows)
    return pivot(
        rows,
        lambda row: str(row["other"]),
        missing,
        lambda row: f"{interval(row)}{_fewer(row, most)}",
        f"{whose}, missing ratio",
    )


def gaps_table(rows: Sequence[Row]) -> str:
    """Share of the gap to the specialists that is closed, in per cent; n where pairs are fewer."""
    most = _most_seeds(rows)
    return pivot(
        rows,
        lambda row: str(row["method"]),
        missing,
        lambda row: _gap_cell(row, most),
        "gap closed, missing ratio",
    )


def _gap_cell(row: Row, most: int) -> str:
    closed = row["closed"]
    return DASH if closed is None else f"{_whole_percent(closed)}{_fewer(row, most)}"


def _whole_percent(value: float) -> str:
    return f"{100 * value:.0f} %".replace("-", _MINUS)


def ablation_table(rows: Sequence[Row]) -> str:
    """What each change costs or brings."""
    body = [[row["change"], percent(row["dice"]), interval(row), _count(row)] for row in rows]
    return markdown(["change", "Dice %", "difference to the whole", "seeds x cases"], body)


def _count(row: Row) -> str:
    return DASH if row["seeds"] is None else f"{row['seeds']} x {row['cases']}"


def subsets_table(rows: Sequence[Row], what: str = "dice", corner: str = "given, Dice %") -> str:
    """Dice of every subset at one missing ratio: subsets down, methods across.

    Args:
        rows: of `bundle.benchmark.tables.subset_rows`, of this ratio.
        what: the column to show: "dice", the mean over regions, or a region.
        corner: what to write in the first field.
    """
    return pivot(
        rows,
        lambda row: str(row["subset"]),
        lambda row: str(row["method"]),
        lambda row: percent(row[what]),
        corner,
    )


def costs_table(rows: Sequence[Row]) -> str:
    """Steps and CPU time of one training of each kind."""
    header = ["training", "kind", "on", "runs", "steps", "CPU s", "CPU ms a step"]
    body = [
        [
            str(row["method"]),
            str(row["comparison"]),
            row["device"] or DASH,
            str(row["runs"]),
            _rounded(row["steps"]),
            _rounded(row["cpu_seconds"]),
            _rounded(row["cpu_ms_per_step"]),
        ]
        for row in rows
    ]
    return markdown(header, body)


def _rounded(value: Any) -> str:
    return DASH if value is None else f"{value:.0f}"


def sites_table(rows: Sequence[Row]) -> str:
    """Dice at every site and over all sites: arms down."""
    seeds = {row["arm"]: str(row["seeds"]) for row in rows}
    what = list(dict.fromkeys(row["at"] for row in rows))
    cells = {(row["arm"], row["at"]): spread_cell(row) for row in rows}
    body = [[arm, *(cells[arm, at] for at in what), count] for arm, count in seeds.items()]
    return markdown(["", *what, "seeds"], body)


def arms_table(rows: Sequence[Row], reference: str) -> str:
    """Differences between arms with intervals; one that is not to the reference names both."""
    most = _most_seeds(rows)
    body = [
        [
            row["other"] if row["arm"] == reference else f"*{row['arm']}* minus *{row['other']}*",
            f"{interval(row)}{_fewer(row, most)}",
        ]
        for row in rows
    ]
    return markdown(["other", "client mean"], body)


def site_gains_table(rows: Sequence[Row]) -> str:
    """What each site gains over being alone, with an interval and by seed."""
    body = []
    for row in rows:
        gains = [f"{100 * row[name]:+.1f}" for name in row if name.startswith("seed ")]
        by_seed = ", ".join(gains).replace("-", _MINUS)
        body.append([row["site"], row["modalities"], interval(row), by_seed])
    return markdown(["site", "its modalities", "gain", "by seed"], body)


def rebuilt_table(rows: Sequence[Row]) -> str:
    """PSNR and SSIM of a rebuilt scan, over seeds: arms down."""
    seeds: dict[str, list[Row]] = {}
    for row in rows:
        seeds.setdefault(row["arm"], []).append(row)
    body = [
        [
            arm,
            range_cell([row["psnr"] for row in found], 2),
            range_cell([row["ssim"] for row in found], 3),
        ]
        for arm, found in seeds.items()
    ]
    return markdown(["", "PSNR dB", "SSIM"], body)


def sent_table(rows: Sequence[Row]) -> str:
    """MiB that each site sends in a round: arms down, sites across."""
    return pivot(
        rows,
        lambda row: str(row["arm"]),
        lambda row: str(row["site"]),
        lambda row: f"{row['bytes'] / _MEBIBYTE:.2f}",
        "",
    )
