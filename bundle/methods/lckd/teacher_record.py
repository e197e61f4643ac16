"""The elections of a training: a table of them, and their picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from bundle.atomic import write_text_atomically, written_atomically
from bundle.evaluation.heatmap import FAINT, INK

# Okabe and Ito's colours, which people who do not tell red from green can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#222222")
_PANEL_INCHES = (6.4, 1.9)


@dataclass(frozen=True)
class Candidate:
    """How one modality did for one region in one election.

    Attributes:
        epoch: at whose start it was held, from 1.
        region, modality: their names.
        cases: how many were scored; 0 = nothing is known.
        dice: their mean, 0 to 1, of the modality by itself; None = no case.
        teacher: True = it teaches the region from then on.
    """

    epoch: int
    region: str
    modality: str
    cases: int
    dice: float | None
    teacher: bool


class TeacherRecord:
    """Keep the elections of a training in `elections.csv`, and draw them into `teachers.png`.

    Args:
        output_dir: where to.
        modalities: the vocabulary.
        regions: the names of the regions in their order (a region table also does).
    """

    def __init__(self, output_dir: str, modalities: Sequence[str], regions: Iterable[str]) -> None:
        self.table = Path(output_dir) / "elections.csv"
        self.picture = Path(output_dir) / "teachers.png"
        self.modalities = tuple(modalities)
        self.regions = tuple(regions)

    def rows(self) -> list[Candidate]:
        """Read the table; no file = no row.

        Raises:
            ValueError: the file is no such table.
        """
        if not self.table.exists():
            return []
        lines = csv.DictReader(io.StringIO(self.table.read_text(encoding="utf-8")))
        try:
            return [_candidate(line) for line in lines]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.table} is no table of elections ({error!r}). Remove it, or give another "
                "folder with --output_dir."
            ) from error

    def forget_from(self, epoch: int) -> None:
        """Forget the elections at the start of this epoch and of later ones."""
        rows = self.rows()
        kept = [row for row in rows if row.epoch < epoch]
        if len(kept) < len(rows):
            self._write(kept)

    def add(self, epoch: int, scores: Tensor, case_counts: Tensor, teachers: Tensor) -> None:
        """Keep one election, instead of a former one of the same epoch or later, and draw all.

        Args:
            epoch: at whose start it was held, from 1.
            scores: (M, R) mean Dice, 0 to 1, of each modality by itself.
            case_counts: (M, R) of how many cases; 0 = nothing is known.
            teachers: (R,) int, an index into the vocabulary, -1 = none.
        """
        new = [
            Candidate(
                epoch,
                region,
                modality,
                int(case_counts[m, r]),
                float(scores[m, r]) if case_counts[m, r] else None,
                int(teachers[r]) == m,
            )
            for r, region in enumerate(self.regions)
            for m, modality in enumerate(self.modalities)
        ]
        self._write([row for row in self.rows() if row.epoch < epoch] + new)

    def _write(self, rows: Sequence[Candidate]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, [f.name for f in fields(Candidate)], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(asdict(row) | {"teacher": int(row.teacher)})
        write_text_atomically(self.table, text.getvalue())
        if not rows:
            self.picture.unlink(missing_ok=True)
            return
        with written_atomically(self.picture) as file:
            draw_teachers(rows, self.modalities).savefig(file, format="png", dpi=110)


def _candidate(line: dict[str, str]) -> Candidate:
    return Candidate(
        int(line["epoch"]),
        line["region"],
        line["modality"],
        int(line["cases"]),
        float(line["dice"]) if line["dice"] else None,
        bool(int(line["teacher"])),
    )


def draw_teachers(rows: Sequence[Candidate], modalities: Sequence[str]) -> Figure:
    """Draw each modality's own Dice over the epochs, a panel a region; below it, who teaches.

    Args:
        rows: of at least one election.
        modalities: the vocabulary, which fixes the colours.

    Returns:
        A figure of its own, not known to pyplot. The bar under the curves has the colour of the
        teacher from each election to the next, and none where there is no teacher.
    """
    regions = list(dict.fromkeys(row.region for row in rows))
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width, height * len(regions) + 1.1), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(regions), 1, sharex=True, squeeze=False)[:, 0]
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(modalities)}
    for axes, region in zip(panels, regions, strict=True):
        _panel(axes, [row for row in rows if row.region == region], colours)
        axes.set_title(region, loc="left", fontsize=10, fontweight="bold", color=INK)
    panels[-1].set_xlabel("epoch", color=INK)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supylabel("Dice of one modality alone, held-out cases (%)", fontsize=9, color=INK)
    figure.suptitle("Who teaches which region (bars)", fontsize=11, color=INK)
    handles = [Line2D([], [], color=colour, marker="o", label=m) for m, colour in colours.items()]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), 4),
        frameon=False,
        fontsize=9,
    )
    return figure


def _panel(axes: Axes, rows: Sequence[Candidate], colours: dict[str, str]) -> None:
    epochs = sorted({row.epoch for row in rows})
    # The last teacher's bar has no next election to end at.
    step = epochs[-1] - epochs[-2] if len(epochs) > 1 else 1
    until = dict(zip(epochs, [*epochs[1:], epochs[-1] + step], strict=True))
    for modality, colour in colours.items():
        own = [row for row in rows if row.modality == modality and row.dice is not None]
        axes.plot(
            [row.epoch for row in own],
            [100 * row.dice for row in own if row.dice is not None],
            color=colour,
            marker="o",
            markersize=3.5,
            linewidth=1.3,
        )
    for row in rows:
        if row.teacher:
            span = [row.epoch, until[row.epoch]]
            axes.fill_between(span, -14, -5, color=colours[row.modality], linewidth=0)
    axes.set(xlim=(epochs[0], until[epochs[-1]]), ylim=(-16, 102), yticks=[0, 25, 50, 75, 100])
    axes.margins(x=0)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK, labelsize=8)
    axes.spines[:].set_visible(False)
