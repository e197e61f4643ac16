"""Checking many cases, and remembering the good ones so that a resumed training starts at once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from bundle.atomic import write_text_atomically
from bundle.data.case_rules import Finding, check_case
from bundle.data.plausibility.judge import Suspicion
from bundle.data.plausibility.measured import Measured
from bundle.data.plausibility.repeats import repeated_scans
from bundle.data.volumes import CaseError
from bundle.regions import Regions

logger = logging.getLogger(__name__)

# Part of every key: raise it when a check changes, so that old verdicts are not believed.
_VERSION = 4


def file_state(path: str | Path) -> list[Any]:
    """Return a file's path, size in bytes and mtime in ns, which change when it is rewritten.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    stat = Path(path).stat()
    return [str(path), stat.st_size, stat.st_mtime_ns]


def item_files(item: Mapping[str, Any]) -> list[str]:
    """List the files that a datalist item names: its images, then its label."""
    image = item.get("image") or {}
    images = list(image.values()) if isinstance(image, Mapping) else [image]
    return [str(path) for path in [*images, item.get("label")] if path]


def fingerprint(item: Mapping[str, Any], context: Any) -> str:
    """Hash an item, the state of its files, and whatever else an outcome depends on.

    Args:
        item: a datalist item.
        context: plain values, such as the version of what is done with the item.

    Returns:
        64 hexadecimal digits; others as soon as a file is written anew.

    Raises:
        FileNotFoundError: a file of the item does not exist.
    """
    states = [file_state(path) for path in item_files(item)]
    text = json.dumps([context, dict(item), states], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Checks:
    """What is checked of each case.

    Args:
        modalities: the vocabulary.
        labels: the known label values above the background.
        aliases: other label values and how to read them.
        depth: "voxels" = everything; "headers" = the voxel grids; "none" = that the files exist.
        regions: the region table, for the rules about labels; {} = they are left out.
    """

    modalities: tuple[str, ...]
    labels: tuple[int, ...]
    aliases: Mapping[int, int]
    depth: Literal["voxels", "headers", "none"] = "voxels"
    regions: Regions = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What the memo keeps of a good case.

    Attributes:
        blank: the modalities whose volume is constant.
        measured: numbers and hashes, without names.
    """

    blank: tuple[str, ...]
    measured: Measured

    @classmethod
    def read(cls, content: Any) -> Outcome:
        """Read what `content` gave.

        Raises:
            ValueError, AttributeError, TypeError, KeyError: it is something else.
        """
        return cls(tuple(str(name) for name in content["blank"]), Measured.read(content))

    def content(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"blank": list(self.blank), **asdict(self.measured)}


class CheckMemo:
    """The outcomes of earlier checks: for each good case, what was blank and what was measured.

    What is odd about a case is judged anew by the remembered numbers, so a warning comes each time.
    Only good outcomes are kept; a bad case is checked again each time. A memo file that is missing
    or damaged counts as empty, one that cannot be written is reported and left.

    Args:
        path: the memo file, JSON; None = remember nothing.
        checks: what is checked, on which the outcome depends.
    """

    def __init__(self, path: str | Path | None, checks: Checks) -> None:
        self.path = None if path is None else Path(path)
        self.parameters = [_VERSION, asdict(checks)]
        self.outcomes: dict[str, Outcome] = self._read()
        self._known = len(self.outcomes)

    def key(self, item: Mapping[str, Any]) -> str | None:
        """Return the key of the item's outcome; None = a file is missing, so it has none."""
        try:
            return fingerprint(item, self.parameters)
        except OSError:
            return None

    def save(self) -> None:
        """Write the memo if there is something new in it."""
        if self.path is None or len(self.outcomes) == self._known:
            return
        try:
            content = {key: outcome.content() for key, outcome in self.outcomes.items()}
            write_text_atomically(self.path, json.dumps(content, indent=0, sort_keys=True))
        except OSError as error:
            logger.warning("the outcome of the checks could not be kept: %s", error)

    def _read(self) -> dict[str, Outcome]:
        if self.path is None:
            return {}
        try:
            outcomes = json.loads(self.path.read_text(encoding="utf-8"))
            return {str(key): Outcome.read(content) for key, content in outcomes.items()}
        except (OSError, ValueError, AttributeError, TypeError, KeyError):
            return {}


def check_cases(
    items: Sequence[dict[str, Any]], checks: Checks, memo: CheckMemo, title: str
) -> tuple[list[Finding], list[str]]:
    """Check items in parallel, with a progress bar on a terminal.

    Args:
        items: datalist items with absolute paths.
        checks: what to check.
        memo: earlier outcomes; gains those of now. The caller saves it.
        title: what the progress bar says.

    Returns:
        What was found out about the good cases, in order, and one line for each problem of the
        others. Of a case that the memo knows, grid and labels are not told.
    """

    def outcome(item: dict[str, Any]) -> Finding | CaseError:
        try:
            return _check_item(item, checks, memo)
        except CaseError as error:
            return error

    # Threads, not processes: unpacking and numpy release the interpreter lock.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(outcome, items)
        silent = None if checks.depth == "voxels" else True
        outcomes = list(tqdm(results, title, len(items), leave=False, disable=silent))
    bad = [error for error in outcomes if isinstance(error, CaseError)]
    good = [finding for finding in outcomes if isinstance(finding, Finding)]
    return good, [line for error in bad for line in str(error).split("\n")]


def all_suspicions(findings: Mapping[str, Sequence[Finding]]) -> list[Suspicion]:
    """List what is odd about cases, each by itself and all together.

    Args:
        findings: section -> what was found out about its cases.
    """
    alone = [s for section in findings.values() for f in section for s in f.suspicions]
    return alone + repeats(findings)


def repeats(findings: Mapping[str, Iterable[Finding]]) -> list[Suspicion]:
    """List the cases that share a scan with an earlier one, in one section or in two (`leak`)."""
    return repeated_scans(
        {
            section: [(str(found.item["case"]), found.measured) for found in section_findings]
            for section, section_findings in findings.items()
        }
    )


def refuse_odd(findings: Iterable[Finding]) -> tuple[list[Finding], list[str]]:
    """Part the cases with which no result can be right from the others.

    Returns:
        The others, and one line for each reason to refuse one.
    """
    findings = list(findings)
    good = [found for found in findings if not found.refused_if_strict]
    return good, [line for found in findings for line in found.refused_if_strict]


def _check_item(item: dict[str, Any], checks: Checks, memo: CheckMemo) -> Finding:
    if checks.depth == "none":
        _check_files(item)
        return Finding(item)
    key = memo.key(item)
    if key is not None and key in memo.outcomes:
        known = memo.outcomes[key]
        return Finding(item, known.blank, measured=known.measured)
    voxels, regions = checks.depth == "voxels", checks.regions
    finding = check_case(item, checks.modalities, checks.labels, checks.aliases, voxels, regions)
    if key is not None:
        memo.outcomes[key] = Outcome(finding.blank, finding.measured)
    return finding


def _check_files(item: Mapping[str, Any]) -> None:
    missing = [file for file in item_files(item) if not Path(file).is_file()]
    if missing:
        raise CaseError(
            "\n".join(
                f"case {item['case']}: file {file} does not exist. "
                "Correct the path, or drop its key from the datalist."
                for file in missing
            )
        )
