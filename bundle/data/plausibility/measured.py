"""What was measured on one case, as plain values that a memo can keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measured:
    """What was measured on one case.

    Attributes:
        numbers: plain numbers by name; what cannot be measured is not among them.
        hashes: modality -> hash of its voxels without header.
        profiles: modality -> how its voxels are spread, see `bundle.data.plausibility.coarse`.
        arrangements: modality -> how its voxels lie, see there.
    """

    numbers: Mapping[str, float] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    profiles: Mapping[str, Sequence[int]] = field(default_factory=dict)
    arrangements: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @classmethod
    def read(cls, content: Any) -> Measured:
        """Read what `asdict` has written.

        Raises:
            ValueError, AttributeError, TypeError, KeyError: it is something else.
        """
        numbers = {str(name): float(value) for name, value in content["numbers"].items()}
        hashes = {str(name): str(value) for name, value in content["hashes"].items()}
        profiles, arrangements = (
            {str(n): [int(v) for v in values] for n, values in content[key].items()}
            for key in ("profiles", "arrangements")
        )
        return cls(numbers, hashes, profiles, arrangements)
