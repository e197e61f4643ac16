"""Who had which part in a round: a report for people and for programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bundle.atomic import write_text_atomically
from federation.protocol.site_text import LONGEST_NAME, LONGEST_REASON, in_markdown

_MEBIBYTE = 2**20


@dataclass(frozen=True)
class Share:
    """One accepted contribution.

    Attributes:
        cases: {modality: how many of the site's training cases have it}, as it claims.
        all_cases: how many training cases the site has, as it claims.
        tensors: how many it sent.
        bytes: how much travelled.
        norm: L2 norm of its parameters' update.
        privacy: what it claims about its privacy, which nobody else can tell; None = nothing.
        cosine: of its update with the mean of the others, -1 to 1, see `federation.server.
            agreement`; None = there is no other to compare with.
        marks: why it stands out; see `agreement.outliers`.
        used_cases: {modality: the cases by which it was weighed}; None = as it claims.
        used_all_cases: the same of all its cases; None = as it claims.
    """

    cases: dict[str, int]
    all_cases: int
    tensors: int
    bytes: int
    norm: float
    privacy: dict[str, Any] | None = None
    cosine: float | None = None
    marks: list[str] = field(default_factory=list)
    used_cases: dict[str, int] | None = None
    used_all_cases: int | None = None

    @property
    def counted(self) -> int:
        """By how many cases it was weighed where all sites count."""
        return self.all_cases if self.used_all_cases is None else self.used_all_cases

    def counted_of(self, modality: str) -> int:
        """By how many cases it was weighed where a modality counts."""
        used = self.cases if self.used_cases is None else self.used_cases
        return used.get(modality, 0)

    def to_markdown(self, site: str) -> str:
        """Write it as part of a line of Markdown."""
        cases = f"{self.all_cases} cases"
        if self.counted != self.all_cases:
            cases = f"claims {cases}, counted as {self.counted}"
        parts = [cases, f"{self.bytes / _MEBIBYTE:.2f} MiB", f"norm {self.norm:.3g}"]
        if self.cosine is not None:
            parts.append(f"cosine {self.cosine:+.2f}")
        line = f"{_name(site)} ({', '.join(parts)})"
        return line + "".join(f" **stands out: {in_markdown(mark)}**" for mark in self.marks)


def _name(site: str) -> str:
    return in_markdown(site, LONGEST_NAME)


@dataclass(frozen=True)
class Coverage:
    """The result of a round.

    Attributes:
        round: its number.
        modalities: the vocabulary.
        accepted: {site: its share}.
        refused: {site: why}; a site whose first contribution was taken may have a second refused.
        silent: sites that were asked and sent nothing.
        unheld: modalities of which no accepted site has a case.
        frozen_keys: tensors of these modalities, which keep their values.
        frozen_blocks: tensors whose blocks of these modalities keep their values.
    """

    round: int
    modalities: tuple[str, ...]
    accepted: dict[str, Share]
    refused: dict[str, str]
    silent: list[str]
    unheld: list[str]
    frozen_keys: list[str]
    frozen_blocks: list[str]

    def weights(self) -> dict[str, dict[str, float]]:
        """Compute {'shared' or modality: {site: its weight, 0 to 1}}; {} where nobody holds it."""
        counts = {"shared": {site: share.counted for site, share in self.accepted.items()}}
        for name in self.modalities:
            counts[name] = {s: share.counted_of(name) for s, share in self.accepted.items()}
        return {
            what: {site: n / sum(by_site.values()) for site, n in by_site.items() if n}
            for what, by_site in counts.items()
        }

    def to_json(self) -> str:
        """Write everything as JSON, the same report as the same text."""
        total = sum(share.bytes for share in self.accepted.values())
        content = {**asdict(self), "weights": self.weights(), "bytes": total}
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """Write one line of Markdown, without its line end."""
        taken = ", ".join(share.to_markdown(site) for site, share in self.accepted.items())
        parts = [f"**Round {self.round}**: {taken or 'nothing was accepted, nothing moved'}"]
        parts += [
            f"refused {_name(site)}: {in_markdown(reason, LONGEST_REASON)}"
            for site, reason in self.refused.items()
        ]
        if self.silent:
            parts.append(f"no answer from {', '.join(map(_name, self.silent))}")
        parts += [
            f"{_name(site)} claims: {in_markdown(share.privacy.get('statement', 'privacy'))}"
            for site, share in self.accepted.items()
            if share.privacy
        ]
        if self.unheld:
            kept = f"{len(self.frozen_keys)} tensors"
            if self.frozen_blocks:
                kept += f" and their blocks of {len(self.frozen_blocks)} others"
            parts.append(f"no holder of {', '.join(self.unheld)}: {kept} keep their values")
        return "- " + "; ".join(parts)

    def save(self, folder: str | Path) -> None:
        """Write `round_<number>.json`, and this round's line into `coverage.md`.

        A round that is run again replaces its line.

        Raises:
            OSError: the folder cannot be written to.
        """
        folder = Path(folder)
        write_text_atomically(folder / f"round_{self.round:04d}.json", self.to_json())
        log = folder / "coverage.md"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        kept = [line for line in lines if not line.startswith(f"- **Round {self.round}**")]
        write_text_atomically(log, "\n".join([*kept, self.to_markdown()]) + "\n")
