"""Who had which part in a round: a report for people and for programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bundle.atomic import write_text_atomically

_MEBIBYTE = 2**20


@dataclass(frozen=True)
class Share:
    """One accepted contribution.

    Attributes:
        cases: {modality: how many of the site's training cases have it}.
        all_cases: how many training cases the site has.
        tensors: how many it sent.
        bytes: how much travelled.
        norm: L2 norm of its parameters' update.
        privacy: what its privacy filter reports; None = it had none.
    """

    cases: dict[str, int]
    all_cases: int
    tensors: int
    bytes: int
    norm: float
    privacy: dict[str, Any] | None = None


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
        counts = {"shared": {site: share.all_cases for site, share in self.accepted.items()}}
        for name in self.modalities:
            counts[name] = {s: share.cases.get(name, 0) for s, share in self.accepted.items()}
        return {
            what: {site: n / sum(by_site.values()) for site, n in by_site.items() if n}
            for what, by_site in counts.items()
        }

    def to_json(self) -> str:
        """Write everything as JSON, the same report as the same text."""
        total = sum(share.bytes for share in self.accepted.values())
        content = {**asdict(self), "weights": self.weights(), "bytes": total}
        return json.dumps(content, indent=2) + "\n"

    def to_markdown(self) -> str:
        """Write one line of Markdown, without its line end."""
        taken = ", ".join(
            f"{site} ({share.all_cases} cases, {share.bytes / _MEBIBYTE:.2f} MiB)"
            for site, share in self.accepted.items()
        )
        parts = [f"**Round {self.round}**: {taken or 'nothing was accepted, nothing moved'}"]
        parts += [f"refused {site}: {reason}" for site, reason in self.refused.items()]
        if self.silent:
            parts.append(f"no answer from {', '.join(self.silent)}")
        if self.unheld:
            kept = f"{len(self.frozen_keys)} tensors"
            if self.frozen_blocks:
                kept += f" and their blocks of {len(self.frozen_blocks)} others"
            parts.append(f"no holder of {', '.join(self.unheld)}: {kept} keep their values")
        return "- " + "; ".join(parts).replace("\n", " ")

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
