"""Differential privacy of what a site sends: its update is clipped, and drowned in noise."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from torch import Tensor

from federation.filters.accountant import Accountant
from federation.protocol.messages import PRIVACY
from federation.protocol.tensors import alike, as_state
from federation.settings import find_site

# Two updates of norm C each can be 2 C apart.
_SENSITIVITY_PER_NORM = 2


def clip(update: Mapping[str, Tensor], norm: float) -> dict[str, Tensor]:
    """Scale an update down to an L2 norm, over all its tensors together, in double precision.

    Args:
        update: finite tensors.
        norm: what is longer is shortened to it; what is shorter stays.

    Raises:
        ValueError: a number is not finite: no scale makes it small.
    """
    doubles = {key: value.double() for key, value in update.items()}
    squares = sum(float(torch.linalg.vector_norm(value)) ** 2 for value in doubles.values())
    if not math.isfinite(squares):
        raise ValueError(
            "expected a finite update, got NaN, infinite or far too large numbers. Nothing was "
            "sent; look for the site's exploding loss."
        )
    scale = min(1.0, norm / math.sqrt(squares)) if squares else 1.0
    return {key: value * scale for key, value in doubles.items()}


class GaussianPrivacy(DXOFilter):
    """Client filter: clips the whole update's L2 norm, adds noise, and tells epsilon and delta.

    What is protected is all that a site's data do to one message, so any one patient of it: two
    updates of norm C differ by at most 2 C, whatever data they come from, and the noise has
    standard deviation `noise_multiplier` times 2 C for each number. That holds against whoever sees
    the message, the server included. Not protected are case counts, metrics, which modalities the
    site has, and logs.

    Put it before `HalfPrecision`: what is done afterwards costs no privacy.

    Args:
        clip_norm: C, above 0.
        noise_multiplier: the noise's standard deviation divided by 2 C, above 0.
        delta: see `Accountant`.
        refused: patterns of what must not be in a private message, additive statistics above all:
            sums over patients, for which noise of this size is either nothing or ruin.
        record: see `Accountant`; a relative path is taken in the folder where the site keeps its
            state (`federation.settings`), so that the account goes on from job to job.
        seed: for tests; None = from the system's entropy, which training's seed does not touch.

    Raises:
        ValueError: a clip norm or noise of 0, with which epsilon is infinite, or below.
    """

    def __init__(
        self,
        clip_norm: float,
        noise_multiplier: float,
        delta: float = 1e-5,
        refused: Sequence[str] = (),
        record: str | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__([DataKind.WEIGHT_DIFF], [DataKind.WEIGHT_DIFF])
        if not (0 < clip_norm < math.inf and 0 < noise_multiplier < math.inf):
            raise ValueError(
                f"expected clip_norm and noise_multiplier above 0, got {clip_norm} and "
                f"{noise_multiplier}. Without noise epsilon is infinite, which is not private; for "
                "training without privacy leave this filter out."
            )
        self.clip_norm, self.noise_multiplier, self.delta = clip_norm, noise_multiplier, delta
        self.refused, self.record, self.seed = refused, record, seed
        # Read when first needed: only then is the site known, and what other jobs have spent.
        self.accountant = Accountant(delta) if record is None else None
        # PyTorch's global one is seeded by the config: everybody could subtract its noise.
        self._generator = torch.Generator()
        self._generator.manual_seed(secrets.randbits(63) if seed is None else seed)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """Return a private copy of a message.

        Raises:
            ValueError: it holds what cannot be made private so; nothing is sent then.
        """
        update = as_state(dxo.data, "the update")
        self._check(update)
        if self.accountant is None:
            self.accountant = Accountant(self.delta, self._record_path(fl_ctx))
        clipped = clip(update, self.clip_norm)
        self.accountant.spend(self.noise_multiplier)
        deviation = self.noise_multiplier * _SENSITIVITY_PER_NORM * self.clip_norm
        data = {}
        for key, value in clipped.items():
            noise = torch.randn(value.shape, generator=self._generator, dtype=torch.float64)
            noisy = (value + deviation * noise).to(update[key].dtype)
            data[key] = alike(noisy, dxo.data[key])
        site = fl_ctx.get_identity_name() if fl_ctx is not None else ""
        statement = self.accountant.statement()
        self.log_info(fl_ctx, f"privacy of {site or 'this site'} {statement}")
        meta = {k: v for k, v in dxo.meta.items() if k != MetaKey.FILTER_HISTORY}
        meta[PRIVACY] = {
            "epsilon": self.accountant.epsilon(),
            "delta": self.delta,
            "releases": self.accountant.releases,
            "statement": statement,
        }
        return DXO(dxo.data_kind, data=data, meta=meta)

    def _record_path(self, fl_ctx: FLContext | None) -> Path:
        path = Path(self.record)
        if path.is_absolute() or fl_ctx is None:
            return path
        app_root = fl_ctx.get_prop(FLContextKey.APP_ROOT) or "."
        site = find_site(fl_ctx.get_identity_name(), app_root)
        return (site.state_dir or Path(app_root)) / path

    def _check(self, update: Mapping[str, Tensor]) -> None:
        for key, value in update.items():
            if not value.is_floating_point() or any(re.search(p, key) for p in self.refused):
                raise ValueError(
                    f"expected an update of parameters alone, got {key!r} ({value.dtype}), which "
                    "noise of this size does not protect. Name it under private_parameters."
                )
