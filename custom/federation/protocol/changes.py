"""What a state was made with, and what a job that resumes it would change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.bundle import ConfigParser

from bundle.training.made_with import describe, differences
from federation.protocol.identity import Identity, read_identity

# Where a state has it.
MADE_WITH = "made_with"
# What must not change under a state: what the numbers in it mean. A learning rate may.
_MATTERING = (
    *("modalities", "regions", "label_aliases", "spacing", "network_def", "method", "exchange"),
)
_UNSAID = "the state does not say what it was made with: it is of a version before 0.5"


class ChangesRefused(ValueError):
    """A job would go on with a state that was made with something else."""


def made_with(identity: Identity, parser: ConfigParser) -> dict[str, Any]:
    """Describe what a state is made with, as plain values.

    Args:
        identity: the bundle, see `federation.protocol.identity`.
        parser: of the stage's configs, whose method has been built.

    Returns:
        `identity`, and `settings` by id: modalities, regions, voxel size, network, method, and what
        is shared.
    """
    return {"identity": identity._asdict(), "settings": describe(parser, _MATTERING)}


def changes(before: Any, now: Mapping[str, Any]) -> list[str]:
    """List what differs between two descriptions, one line each; [] = nothing.

    Raises:
        ValueError: `before` is no description.
    """
    told = before if isinstance(before, Mapping) else {}
    old = told.get("settings")
    if not isinstance(old, Mapping) or not isinstance(told.get("identity"), Mapping):
        raise ValueError(f"expected identity and settings, got {before!r:.200}")
    found = differences(old, now["settings"]).values()
    pairs = zip(
        Identity._fields, read_identity(before["identity"]), now["identity"].values(), strict=True
    )
    return [*found, *(f"bundle's {name}: {a}, now {b}" for name, a, b in pairs if a != b)]


def check_changes(
    before: Any, now: Mapping[str, Any], accepted: bool, allowed: bool = True
) -> list[str]:
    """Refuse to go on from a state that was made with something else.

    Args:
        before: what the state says of itself; None = it is of a version that did not say.
        now: `made_with` of this job.
        accepted: True = the job's setting `accept_changes` takes them.
        allowed: False = this site never does.

    Returns:
        The changes that were accepted.

    Raises:
        ChangesRefused: there are changes, and they are not accepted; it lists them.
        ValueError: as in `changes`.
    """
    found = [_UNSAID] if before is None else changes(before, now)
    if found and not (accepted and allowed):
        way_out = (
            "write the job with --accept_changes to take them; that is written down"
            if allowed
            else "begin a federation of another name: this site takes no changes"
        )
        raise ChangesRefused(
            "expected the federation to be resumed with what it was made with, got "
            f"{len(found)} change(s): {'; '.join(found)}. Undo them, or {way_out}."
        )
    return found
