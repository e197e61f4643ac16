"""One's own scores beside those of another table on the same cases, case by case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events

from bundle.atomic import write_text_atomically
from bundle.evaluation.bootstrap import bootstrap_interval
from bundle.evaluation.metrics import SubsetScores
from bundle.evaluation.score_tables import Dice, Place, dice_of, read_dice
from bundle.evaluation.tables import markdown

REFERENCE_FILE = "reference.md"
_MEAN = "mean"


@dataclass(frozen=True)
class Paired:
    """The paired difference of a region, for the subsets of a size.

    Attributes:
        region: its name; 'mean' = over the regions.
        scans: how many scans the network was given; 0 = any number.
        own, reference: mean Dice over cases, 0 to 1.
        low, high: ends of the 95 % interval of own - reference, cases resampled.
        cases: how many.
    """

    region: str
    scans: int
    own: float
    reference: float
    low: float
    high: float
    cases: int


def compare(
    scores: str | Path, reference: str | Path, modalities: Sequence[str], output: str | None = None
) -> str:
    """Pair two tables, and write what their difference is.

    Args:
        scores: a scores.csv of this bundle.
        reference: another table, see `bundle.evaluation.score_tables`.
        modalities: the vocabulary.
        output: a Markdown file that gets the text; None = none.

    Returns:
        The text.

    Raises:
        ValueError: as `read_dice`, `check_cases` and `pair`.
    """
    own, theirs = read_dice(scores, modalities), read_dice(reference, modalities)
    text = comparison(own, theirs, modalities, Path(reference).name)
    if output is not None:
        write_text_atomically(output, text)
    return text


def check_cases(cases: Iterable[str], reference: Mapping[Place, float], name: str) -> None:
    """Refuse cases that the reference has no scores of.

    Args:
        cases: one's own.
        reference: may have more cases than these.
        name: of the reference, for the message.

    Raises:
        ValueError: saying how many and which first.
    """
    cases, theirs = set(cases), {place.case for place in reference}
    unknown = sorted(cases - theirs)
    if unknown:
        raise ValueError(
            f"{name}: expected scores of the same cases, got none of {len(unknown)} of "
            f"{len(cases)} cases, first {unknown[0]}. The reference table has {len(theirs)} cases, "
            f"first {min(theirs, default='none')}. Compare a table of the same cases."
        )


def comparison(own: Dice, reference: Dice, modalities: Sequence[str], name: str) -> str:
    """Write the paired differences by region and number of scans, in points of Dice.

    Args:
        own: one's own Dice.
        reference: that of the same cases, and perhaps of more.
        modalities: the vocabulary.
        name: of the reference.

    Raises:
        ValueError: as `check_cases` and `pair`.
    """
    cases = {place.case for place in own}
    check_cases(cases, reference, name)
    both = own.keys() & reference.keys()
    rows = [
        (
            row.region,
            str(row.scans or f"1 to {len(modalities)}"),
            f"{100 * row.own:.1f}",
            f"{100 * row.reference:.1f}",
            f"{100 * (row.own - row.reference):+.1f}",
            f"{100 * row.low:+.1f} to {100 * row.high:+.1f}",
            str(row.cases),
        )
        for row in pair(own, reference)
    ]
    head = ("region", "scans", "Dice %", "reference", "difference", "95 % interval", "cases")
    theirs = len({place.case for place in reference})
    lines = [
        f"Paired with {name}: {len(cases)} of its {theirs} cases, {len(both)} scores.",
        f"Scores that only one of them has: {len(own) - len(both)} here, "
        f"{sum(place.case in cases for place in reference) - len(both)} there.",
        "The interval resamples cases, of one training each; another training would differ too.",
        "HD95 is not compared: tables differ in its rule for empty masks.",
    ]
    return f"{markdown(head, rows, left=1)}\n" + "\n".join(lines) + "\n"


def pair(own: Dice, reference: Dice) -> list[Paired]:
    """Compute the paired differences: by region and number of scans, then over all of them.

    A case's difference is the mean over the subsets of that size that both tables have of it. Mean
    over the regions are those subsets of which both have every region.

    Raises:
        ValueError: no score in common.
    """
    both = sorted(own.keys() & reference.keys())
    if not both:
        raise ValueError(
            "the tables have no score in common: no subset or no region is in both. Compare tables "
            "of the same modalities and regions."
        )
    regions = list(dict.fromkeys(place.region for place in own if place in reference))
    values: dict[tuple[str, int], dict[str, list[tuple[float, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    whole: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for place in both:
        pair_of_dice = own[place], reference[place]
        whole[place.case, place.subset].append(pair_of_dice)
        for scans in (place.subset.count("+") + 1, 0):
            values[place.region, scans][place.case].append(pair_of_dice)
    for (case, subset), found in whole.items():
        if len(found) == len(regions) > 1:
            mean = tuple(np.mean(found, axis=0))
            for scans in (subset.count("+") + 1, 0):
                values[_MEAN, scans][case].append(mean)
    sizes = [*sorted({scans for _, scans in values} - {0}), 0]
    keys = [(region, scans) for region in (*regions, _MEAN) for scans in sizes]
    return [_paired(*key, values[key]) for key in keys if key in values]


def _paired(region: str, scans: int, of_case: Mapping[str, list[tuple[float, float]]]) -> Paired:
    means = np.array([np.mean(found, axis=0) for found in of_case.values()])
    low, high = bootstrap_interval((means[:, 0] - means[:, 1])[None])
    own, reference = means.mean(0).tolist()
    return Paired(region, scans, own, reference, low, high, len(means))


class ReferenceHandler:
    """Compares an evaluation with a reference table when it has ended, into reference.md.

    The table is read and its cases are checked at once, before anything is evaluated. In a
    distributed evaluation rank 0 writes.

    Args:
        reference: the table.
        cases: the cases that will be evaluated.
        output_dir: gets reference.md.
        modalities: the vocabulary.
        scores: the metric that scored the evaluation, attached to the same engine.

    Raises:
        ValueError: as `read_dice` and `check_cases`.
    """

    def __init__(
        self,
        reference: str | Path,
        cases: Iterable[str],
        output_dir: str | Path,
        modalities: Sequence[str],
        scores: SubsetScores,
    ) -> None:
        self.name = Path(reference).name
        self.dice = read_dice(reference, modalities)
        check_cases(cases, self.dice, self.name)
        self.output_dir = Path(output_dir)
        self.modalities = tuple(modalities)
        self.scores = scores

    def attach(self, engine: Engine) -> None:
        """Write when the run has completed."""
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _write(self) -> None:
        if idist.get_rank() == 0:
            own = dice_of(self.scores.rows)
            text = comparison(own, self.dice, self.modalities, self.name)
            write_text_atomically(self.output_dir / REFERENCE_FILE, text)
            print(text)
