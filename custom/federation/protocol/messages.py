"""A contribution as NVFlare's message, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nvflare.app_common.abstract.fl_model import FLModel, MetaKey, ParamsType

from federation.protocol.contribution import Contribution
from federation.protocol.facts import described, read_values
from federation.protocol.identity import Identity, read_identity
from federation.protocol.message_values import as_tensor
from federation.protocol.site_text import LONGEST_REASON, one_line, reason_of

# Bytes; no message is larger.
_LARGEST_MESSAGE = 2**50
# Our entry in a message's metadata, beside NVFlare's.
ABOUT = "patchwork"
CLIENT_NAME = "client_name"
FACTS = "facts"
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
    """Read why a site contributes nothing, as one line; None = it does."""
    metrics = message.metrics
    reason = metrics.get(REFUSAL) if isinstance(metrics, Mapping) else None
    return None if reason is None else one_line(reason, LONGEST_REASON)


def read_facts(message: FLModel) -> dict[str, Any]:
    """Read what a site tells of its round; {} = nothing.

    Raises:
        ValueError: see `federation.protocol.facts.read_values`.
    """
    about = _meta(message).get(ABOUT)
    return read_values(about.get(FACTS) if isinstance(about, Mapping) else None, FACTS)


def sender(message: FLModel) -> str | None:
    """Tell who sent a message, as NVFlare's controller has noted; None = it has not."""
    meta = _meta(message)
    name = meta.get(CLIENT_NAME) or meta.get(MetaKey.SITE_NAME)
    return name if isinstance(name, str) else None


def read_message(message: FLModel) -> Contribution:
    """Read what a site has sent: every value is of its type, or nothing is read.

    Raises:
        ValueError: it is no contribution; the message says what it lacks.
    """
    site, about = sender(message), _meta(message).get(ABOUT)
    if site is None:
        raise ValueError(
            "expected a message with the sender's name, which the controller notes, got none"
        )
    if message.params_type != ParamsType.DIFF or not _named(message.params):
        kind = described(getattr(message.params_type, "value", message.params_type))
        raise ValueError(
            f"expected differences ({ParamsType.DIFF.value}) by name, got "
            f"{described(message.params)} of the type {kind}. Send what `to_message` makes."
        )
    if not isinstance(about, Mapping) or not _named(about.get("cases")):
        raise ValueError(
            f"expected case counts under {ABOUT!r} in the metadata, got {described(about)}. Send "
            "what `to_message` makes."
        )
    return Contribution(
        site=site,
        # `check_contribution` names what is no tensor.
        update={key: _tensor_or_as_is(key, value) for key, value in message.params.items()},
        cases=dict(about["cases"]),
        all_cases=about.get("all_cases"),
        identity=_identity(about.get(IDENTITY)),
        round=_count(message.current_round, "the round"),
        wire_bytes=_count(_meta(message).get(WIRE_BYTES), WIRE_BYTES),
        privacy=read_values(_meta(message).get(PRIVACY), PRIVACY) or None,
        facts=read_facts(message),
    )


def _meta(message: FLModel) -> Mapping[str, Any]:
    return message.meta if isinstance(message.meta, Mapping) else {}


def _named(values: Any) -> bool:
    return isinstance(values, Mapping) and all(isinstance(key, str) for key in values)


def _identity(given: Any) -> Identity | None:
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise ValueError(f"expected the bundle's identity by name, got {described(given)}")
    return read_identity(given)


def _count(given: Any, what: str) -> int | None:
    if given is None:
        return None
    if type(given) is not int or not 0 <= given <= _LARGEST_MESSAGE:
        raise ValueError(
            f"{what}: expected a whole number from 0 within limits, got {described(given)}"
        )
    return given


def _tensor_or_as_is(key: str, value: Any) -> Any:
    try:
        tensor = as_tensor(value)
    except Exception as error:
        # A reference to a file that is gone, or whatever else a message may hold.
        raise ValueError(f"{key!r} cannot be read ({reason_of(error)})") from error
    return value if tensor is None else tensor
