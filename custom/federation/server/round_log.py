"""What happened in each round, for programs: one line of JSON a round, one file a validation."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.atomic import write_text_atomically
from federation.protocol.contribution import Contribution
from federation.protocol.scoring import Sums, merge, table
from federation.protocol.site_text import LONGEST_NAME, LONGEST_REASON, in_markdown
from federation.server.counts import capped_scores

logger = logging.getLogger(__name__)

ROUNDS, VALIDATIONS = "rounds.jsonl", "validations.jsonl"


class RoundLog:
    """The server's log of a stage.

    Beside it the aggregator writes who had which part (`coverage.md`, `round_0000.json`).

    Args:
        folder: the stage's folder.
        modalities: the vocabulary.
        case_factor: how many times the median of the sites' held-out cases one counts at most, in
            the table of all sites together; None = as many as it says.
    """

    def __init__(
        self, folder: str | Path, modalities: Sequence[str], case_factor: float | None = None
    ) -> None:
        self.folder, self.modalities = Path(folder), list(modalities)
        self.case_factor = case_factor

    def note_round(
        self,
        number: int,
        attempt: int,
        committed: bool,
        started: float,
        facts: Mapping[str, Mapping[str, Any]],
        accepted: Mapping[str, Contribution],
        refused: Mapping[str, str],
    ) -> None:
        """Add a round's attempt.

        Args:
            number: the round.
            attempt: from 1.
            committed: True = the global model has moved.
            started: when it started, `time.monotonic`.
            facts: what the sites report, by site.
            accepted: the contributions that were taken.
            refused: why others were not.
        """
        sites = {site: {**facts.get(site, {}), "bytes": c.bytes} for site, c in accepted.items()}
        entry = {
            "round": number,
            "attempt": attempt,
            "committed": committed,
            "seconds": round(time.monotonic() - started, 2),
            "sites": sites,
            "refused": dict(refused),
        }
        self._append(ROUNDS, entry)

    def note_validation(
        self,
        rounds: int,
        scores: Mapping[str, Sums],
        found: Mapping[str, Any],
        refused: Mapping[str, str],
    ) -> None:
        """Add the model's scores after a number of rounds, and write its tables.

        Args:
            rounds: how many rounds it has behind it.
            scores: by site.
            found: what `standing` makes of them.
            refused: why others gave none.
        """
        told = {"dice": dict(scores), "refused": dict(refused)}
        self._append(VALIDATIONS, {"rounds": rounds, **found, **told})
        self._write_tables(rounds, scores, refused)

    def _write_tables(
        self, rounds: int, scores: Mapping[str, Sums], refused: Mapping[str, str]
    ) -> None:
        lines = [f"# Dice after {rounds} rounds, held-out cases of the sites", ""]
        for site, sums in sorted(scores.items()):
            if sums:
                name = in_markdown(site, LONGEST_NAME)
                lines += [f"## {name}", "", table(sums, self.modalities)]
        together = merge(capped_scores(scores, self.case_factor))
        if together:
            lines += ["## all sites together", "", table(together, self.modalities)]
        lines += [
            f"- no scores from {in_markdown(site, LONGEST_NAME)}: "
            f"{in_markdown(reason, LONGEST_REASON)}"
            for site, reason in sorted(refused.items())
        ]
        self._write("tables.md", "\n".join(lines))

    def _append(self, name: str, entry: Mapping[str, Any]) -> None:
        """Add a line; the file is written anew, so that a crash leaves no half of one."""
        path = self.folder / name
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        self._write(name, before + json.dumps(entry, allow_nan=False) + "\n")

    def _write(self, name: str, text: str) -> None:
        """Write a report; a full disk costs the report, not the job."""
        try:
            write_text_atomically(self.folder / name, text)
        except OSError as error:
            logger.error(f"could not write {self.folder / name} ({error})")


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Read what a `RoundLog` wrote; [] where there is no such file."""
    path = Path(path)
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
