"""Which tensors of a method's state a site sends and receives, and by how much they moved."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bundle.modalities import check_known, check_modalities
from federation.protocol.patterns import check_patterns


class Kind(str, Enum):
    """How the server combines what the sites send of a tensor."""

    PARAMETER = "parameter"  # floating: mean, weighted by cases
    COUNTER = "counter"  # integer: the same mean, rounded
    ADDITIVE = "additive"  # sums that sites add to: sum
    RECOUNTED = "recounted"  # sums that sites count afresh: plain mean
    PRIVATE = "private"  # never leaves the site


class Part(NamedTuple):
    """What the rules say of one tensor.

    Attributes:
        kind: see `Kind`.
        modality: index in the vocabulary of the one modality that it serves; None = all.
        axis: the axis along which it holds M equal blocks, one for each modality; None = none.
    """

    kind: Kind
    modality: int | None = None
    axis: int | None = None

    @property
    def is_statistic(self) -> bool:
        """True = a sum, which is exchanged in double precision and counts for no norm."""
        return self.kind in (Kind.ADDITIVE, Kind.RECOUNTED)


@dataclass(frozen=True)
class ExchangeRules:
    r"""Who holds what, as patterns over the keys of a method's state dict.

    A pattern is a regular expression that is searched in the whole key, such as
    `network.encoder.conv_init.weight`. If several match, private wins over recounted, recounted
    over additive, and these over the patterns of modalities.

    Args:
        modalities: the vocabulary, in channel order.
        modality_parameters: patterns of tensors that serve one modality, with `{index}` for its
            index or `{name}` for its name: `network\.encoders\.{index}\.`. Only sites that have
            cases with the modality send them.
        modality_axes: {pattern: axis} for tensors that hold all modalities as M equal blocks along
            an axis: {`conv_init\.weight$`: 1} for a first convolution of M channels. They travel
            whole, but a site has no weight in the blocks of modalities that it lacks. Pairs of
            pattern and axis are accepted too.
        private_parameters: patterns of tensors that never leave a site.
        additive_statistics: patterns of sums that every site adds to; `declared_statistics` finds
            those that a method declares.
        recounted_statistics: patterns of sums that a site counts afresh and of which only ratios
            matter, such as LCKD's elections. Adding their differences to the sum of all sites would
            subtract that sum once for every site.

    Raises:
        ValueError: a modality pattern without `{index}` and `{name}`, a negative axis, or as in
            `federation.protocol.patterns`.

    Source: design.md sections 5 and 6; the blocks along an axis and the recounted sums are ours.
    """

    modalities: Sequence[str]
    modality_parameters: Sequence[str] = ()
    modality_axes: Mapping[str, int] | Sequence[tuple[str, int]] = field(default_factory=dict)
    private_parameters: Sequence[str] = ()
    additive_statistics: Sequence[str] = ()
    recounted_statistics: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_modalities(self.modalities)
        object.__setattr__(self, "modality_axes", dict(self.modality_axes))
        for pattern in self.modality_parameters:
            if "{index}" not in pattern and "{name}" not in pattern:
                raise ValueError(
                    "modality_parameters: expected {index} or {name} where the modality's index or "
                    f"name stands, got {pattern!r}"
                )
        for pattern, axis in self.modality_axes.items():
            if axis < 0:
                raise ValueError(f"modality_axes: expected an axis from 0, got {pattern!r}: {axis}")
        check_patterns(self._patterns(), "exchange")

    def of_modality(self, pattern: str, index: int) -> str:
        """Write a modality pattern out for the modality of this index."""
        # 1 is not to be found in 10, nor t1 in t1ce.
        numbered = pattern.replace("{index}", f"{index}(?!\\d)")
        return numbered.replace("{name}", f"{re.escape(self.modalities[index])}(?![^\\W_])")

    def _patterns(self) -> Iterable[str]:
        yield from self.private_parameters
        yield from self.recounted_statistics
        yield from self.additive_statistics
        yield from self.modality_axes
        for pattern in self.modality_parameters:
            # Without the look-ahead of `of_modality`, which is ours.
            yield pattern.replace("{index}", "0").replace("{name}", "t1")


class Exchange:
    """The rules, applied to the state of one method.

    Args:
        rules: see there.
        state: the method's state dict; only names, shapes and types are read.

    Attributes:
        parts: what the rules say of each key.

    Raises:
        ValueError: a pattern that no key matches (a mistyped private one would let it leave), a key
            that would serve two modalities, blocks that do not divide their axis, or a type that
            can neither be averaged nor added.
    """

    def __init__(self, rules: ExchangeRules, state: Mapping[str, Tensor]) -> None:
        self.rules = rules
        self.modalities = tuple(rules.modalities)
        self._unused = {
            *rules.private_parameters,
            *rules.recounted_statistics,
            *rules.additive_statistics,
            *rules.modality_axes,
            *rules.modality_parameters,
        }
        self.parts = {key: self._part(key, value) for key, value in state.items()}
        if self._unused:
            raise ValueError(
                "expected patterns that match a tensor of the method, got "
                f"{sorted(self._unused)}, which match none of its {len(self.parts)} (the first is "
                f"{next(iter(self.parts), None)!r}). Correct them in the job's configuration."
            )

    def _part(self, key: str, value: Tensor) -> Part:
        rules = self.rules
        # All patterns are tried: one that another outranks is not mistyped.
        private = self._matches(rules.private_parameters, key)
        recounted = self._matches(rules.recounted_statistics, key)
        additive = self._matches(rules.additive_statistics, key)
        served = self._modalities(key)
        axes = {rules.modality_axes[p] for p in self._matches(rules.modality_axes, key)}
        if private:
            return Part(Kind.PRIVATE)
        if value.is_complex() or value.dtype == torch.bool:
            raise ValueError(
                f"expected real or integer numbers under {key!r}, got {value.dtype}, which has no "
                "mean. Name it under private_parameters."
            )
        if recounted or additive:
            return Part(Kind.RECOUNTED if recounted else Kind.ADDITIVE)
        if len(served) + bool(axes) > 1:
            names = [self.modalities[index] for index in served]
            raise ValueError(
                f"{key!r} would serve {names}{' and all along an axis' if axes else ''}, expected "
                "one. Make the patterns under modality_parameters and modality_axes stricter."
            )
        kind = Kind.PARAMETER if value.is_floating_point() else Kind.COUNTER
        return Part(kind, served[0] if served else None, self._axis(key, value, axes))

    def _matches(self, patterns: Iterable[str], key: str) -> list[str]:
        found = [pattern for pattern in patterns if re.search(pattern, key)]
        self._unused.difference_update(found)
        return found

    def _modalities(self, key: str) -> list[int]:
        found = set()
        for pattern in self.rules.modality_parameters:
            for index in range(len(self.modalities)):
                if re.search(self.rules.of_modality(pattern, index), key):
                    found.add(index)
                    self._unused.discard(pattern)
        return sorted(found)

    def _axis(self, key: str, value: Tensor, axes: set[int]) -> int | None:
        if not axes:
            return None
        axis, blocks = min(axes), len(self.modalities)
        if len(axes) > 1 or axis >= value.ndim or value.shape[axis] % blocks:
            raise ValueError(
                f"{key!r} has shape {tuple(value.shape)}: expected {blocks} equal blocks, one for "
                f"each of {list(self.modalities)}, along one axis, got modality_axes "
                f"{sorted(axes)}"
            )
        return axis

    def held(self, cases: Mapping[str, int]) -> list[str]:
        """List the keys that a site sends: not private ones, nor those of modalities it lacks.

        Args:
            cases: {modality: how many of the site's training cases have it}.

        Raises:
            ValueError: a modality that the rules do not know.
        """
        check_known(cases, self.modalities, "cases of a site")
        return [
            key
            for key, part in self.parts.items()
            if part.kind != Kind.PRIVATE
            and (part.modality is None or cases.get(self.modalities[part.modality], 0) > 0)
        ]

    def take(
        self, own: Mapping[str, Tensor], received: Mapping[str, Tensor], cases: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """Return a site's state after it has received the global one.

        Args:
            own: the site's state.
            received: the global state; it may lack the tensors of modalities that the site lacks.
            cases: as in `held`.

        Returns:
            A new state. Shared tensors have the received values, in the site's own types, also
            those of modalities that the site lacks: scans that it rebuilds go through them. A
            tensor that is private, or was not received, is the very one of `own`.

        Raises:
            ValueError: a key that the site holds is missing, or one is of another shape or not
                finite.
        """
        state, held = dict(own), set(self.held(cases))
        for key, part in self.parts.items():
            if part.kind == Kind.PRIVATE or not (key in held or key in received):
                continue
            value = received.get(key)
            if value is None or value.shape != own[key].shape:
                shape = None if value is None else tuple(value.shape)
                raise ValueError(
                    f"the global model: expected {key!r} of shape {tuple(own[key].shape)}, got "
                    f"{shape}. Give server and site the same method and configuration."
                )
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise ValueError(
                    f"the global model: expected finite numbers under {key!r}, got NaN or infinite "
                    "ones. Stop the job, and resume it from an earlier checkpoint."
                )
            state[key] = value.to(own[key])
        return state

    def of_kind(self, kind: Kind, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Pick the tensors of a kind out of a state."""
        return {key: state[key] for key, part in self.parts.items() if part.kind == kind}

    def empty(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a new state, whose additive statistics are zero and all else is as in `own`."""
        zeros = {k: torch.zeros_like(v) for k, v in self.of_kind(Kind.ADDITIVE, own).items()}
        return {**own, **zeros}

    def add(self, own: Mapping[str, Tensor], received: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a state whose additive statistics are the sum of both.

        Args:
            own: the site's state, with the statistics of its own cases alone.
            received: the global state.

        Returns:
            A new state. Sums have the types of `own`; all else is the very tensor of `own`.
        """
        sums = {k: v + received[k].to(v) for k, v in self.of_kind(Kind.ADDITIVE, own).items()}
        return {**own, **sums}

    def difference(
        self, own: Mapping[str, Tensor], received: Mapping[str, Tensor], cases: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """Compute what a site sends: by how much its tensors have moved since they were received.

        Args:
            own: the site's state after its training.
            received: the global state as the site received it.
            cases: as in `held`.

        Returns:
            On the CPU: parameters in their own type, exactly zero in the blocks of modalities that
            the site lacks; statistics as float64; counters as int64.
        """
        # NVFlare's wire takes no other layout, such as channels_last.
        return {
            key: self._moved(self.parts[key], own[key], received[key], cases).contiguous()
            for key in self.held(cases)
        }

    def _moved(self, part: Part, own: Tensor, received: Tensor, cases: Mapping[str, int]) -> Tensor:
        own, received = own.detach().cpu(), received.detach().cpu()
        if part.is_statistic:
            return own.double() - received.double()
        if part.kind == Kind.COUNTER:
            return own.long() - received.long()
        moved = own - received.to(own.dtype)
        if part.axis is None:
            return moved
        lacking = ~(block_weights(part, moved.shape, cases, self.modalities) > 0)
        return moved.masked_fill(lacking, 0)


def block_weights(
    part: Part, shape: torch.Size, cases: Mapping[str, int], modalities: Sequence[str]
) -> Tensor:
    """Weigh every block of a tensor that holds all modalities: by the cases that have its own.

    Returns:
        float64, of the tensor's rank, with length 1 along every axis but the modalities'.
    """
    weights = torch.tensor([cases.get(name, 0) for name in modalities], dtype=torch.float64)
    length = shape[part.axis]
    form = [1] * len(shape)
    form[part.axis] = length
    return weights.repeat_interleave(length // len(modalities)).reshape(form)


def declared_statistics(method: nn.Module) -> list[str]:
    """Find the additive statistics that a method and its parts declare, as exact patterns."""
    return [
        f"^{re.escape(f'{prefix}.{name}' if prefix else name)}$"
        for prefix, module in method.named_modules()
        for name in getattr(module, "additive_statistics", ())
    ]
