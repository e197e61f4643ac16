"""A contribution as NVFlare's message, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nvflare.app_common.abstract.fl_model import FLModel, MetaKey, ParamsType

from federation.protocol.contribution import Contribution
from federation.protocol.identity import read_identity
from federation.protocol.message_values import as_tensor

# Our entry in a message's metadata, beside NVFlare's.
ABOUT = "patchwork"
CLIENT_NAME = "client_name"
FACTS = "facts"
_LONGEST_REASON = 2000
REFUSAL = "refusal"
# Written by the filters: how many bytes went over the wire, and what privacy a site has left.
WIRE_BYTES = "wire_bytes"
PRIVACY = "privacy"
# The task of scoring the global model; the other tasks have the names of their stages.
VALIDATE = "validate"
# The metadata of what the server sends. The identity of its bundle:
IDENTITY = "identity"
# The sites whose additive statistics are part of the global ones:
COUNTED_SITES = "counted_sites"
# The name of the stage:
STAGE = "stage"
# One word for a federation from its first round to its last, over all jobs that resume it:
RUN = "run"


def to_message(given: Contribution, facts: Mapping[str, Any] | None = None) -> FLModel:
    """Write what a site sends. NVFlare adds the site's name, and the filters the size.

    The parameters are marked as differences, so that what a site lacks stays in the global model.

    Args:
        given: the contribution.
        facts: more about the round, for the server's log; plain values.
    """
    about: dict[str, Any] = {"cases": dict(given.cases), "all_cases": given.all_cases}
    if facts:
        about[FACTS] = dict(facts)
    if given.identity is not None:
        about[IDENTITY] = given.identity._asdict()
    meta = {ABOUT: about}
    if given.round is None:
        return FLModel(ParamsType.DIFF, dict(given.update), meta=meta)
    return FLModel(ParamsType.DIFF, dict(given.update), current_round=given.round, meta=meta)


def refusal(reason: str) -> FLModel:
    """Write why a site contributes nothing this time."""
    return FLModel(metrics={REFUSAL: reason})


def read_refusal(message: FLModel) -> str | None:
    """Read why a site contributes nothing; None = it does."""
    reason = (message.metrics or {}).get(REFUSAL)
    return None if reason is None else str(reason)[:_LONGEST_REASON]


def read_facts(message: FLModel) -> dict[str, Any]:
    """Read what a site tells of its round; {} = nothing."""
    about = (message.meta or {}).get(ABOUT)
    facts = about.get(FACTS) if isinstance(about, Mapping) else None
    return dict(facts) if _named(facts) else {}


def sender(message: FLModel) -> str | None:
    """Tell who sent a message, as NVFlare's controller has noted; None = it has not."""
    meta = message.meta or {}
    name = meta.get(CLIENT_NAME) or meta.get(MetaKey.SITE_NAME)
    return name if isinstance(name, str) else None


def read_message(message: FLModel) -> Contribution:
    """Read what a site has sent.

    Raises:
        ValueError: it is no contribution; the message says what it lacks.
    """
    site, about = sender(message), (message.meta or {}).get(ABOUT)
    if site is None:
        raise ValueError(
            "expected a message with the sender's name, which the controller notes, got none"
        )
    if message.params_type != ParamsType.DIFF or not _named(message.params):
        raise ValueError(
            f"expected differences ({ParamsType.DIFF.value}) by name, got {message.params_type}. "
            "Send what `to_message` makes."
        )
    if not isinstance(about, Mapping) or not _named(about.get("cases")):
        raise ValueError(
            f"expected case counts under {ABOUT!r} in the metadata, got {about!r:.200}. Send what "
            "`to_message` makes."
        )
    identity, size = about.get(IDENTITY), message.meta.get(WIRE_BYTES)
    return Contribution(
        site=site,
        # `check_contribution` names what is no tensor.
        update={key: _tensor_or_as_is(value) for key, value in message.params.items()},
        cases=about["cases"],
        all_cases=about.get("all_cases"),
        identity=read_identity(identity) if isinstance(identity, Mapping) else None,
        round=message.current_round,
        wire_bytes=size if type(size) is int and size > 0 else None,
        privacy=_privacy(message.meta.get(PRIVACY)),
    )


def _named(values: Any) -> bool:
    return isinstance(values, Mapping) and all(isinstance(key, str) for key in values)


def _privacy(given: Any) -> dict[str, Any] | None:
    """Keep the plain values: they go into a report."""
    if not _named(given):
        return None
    return {key: value for key, value in given.items() if isinstance(value, int | float | str)}


def _tensor_or_as_is(value: Any) -> Any:
    tensor = as_tensor(value)
    return value if tensor is None else tensor
