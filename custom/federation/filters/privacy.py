"""Differential privacy of what a site sends: its update is clipped, and noise is added."""

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
from federation.protocol.message_values import alike, as_state
from federation.protocol.messages import PRIVACY
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
            "sent. Look in the site's log for a loss that grows."
        )
    scale = min(1.0, norm / math.sqrt(squares)) if squares else 1.0
    return {key: value * scale for key, value in doubles.items()}


class GaussianPrivacy(DXOFilter):
    """Client filter: clips the whole update's L2 norm, adds noise, and tells epsilon and delta.

    It protects everything that a site's data do to one message, and so any one patient: two updates
    of norm C differ by at most 2 C, whatever data they come from, and the noise of each number has
    the standard deviation `noise_multiplier` times 2 C. It protects against everybody who sees the
    message, the server included. It does not protect case counts, metrics, which modalities the
    site has, and logs.

    Put it before `HalfPrecision`: what happens to a private message costs no privacy.

    Args:
        clip_norm: C, above 0.
        noise_multiplier: the noise's standard deviation divided by 2 C, above 0.
        delta: see `Accountant`.
        refused: patterns of what must not be in a private message. Additive statistics above all:
            they are sums over patients, which noise of this size does not protect.
        record: see `Accountant`. A relative path starts in the folder where the site keeps its
            state (`federation.settings`), so that the account goes on from job to job.
        seed: for tests; None = from the system's entropy, whatever the seed of the training is.

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
                f"{noise_multiplier}. Without noise epsilon is infinite, which is not private. To "
                "train without privacy, leave this filter out."
            )
        self.clip_norm, self.noise_multiplier, self.delta = clip_norm, noise_multiplier, delta
        self.refused, self.record, self.seed = refused, record, seed
        # A record is read with the first message: before, nobody knows the site.
        self.accountant = Accountant(delta) if record is None else None
        # The seed of PyTorch's global one is in the config: anybody could subtract its noise.
        self._generator = torch.Generator()
        self._generator.manual_seed(secrets.randbits(63) if seed is None else seed)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """Return a private copy of a message.

        Raises:
            ValueError: it holds something that noise does not make private. Nothing is sent.
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
                    "this noise does not protect. Name it under exchange#private_parameters."
                )
