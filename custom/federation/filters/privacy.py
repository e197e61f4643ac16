"""Differential privacy of what a site sends: its update is clipped, and noise is added."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from torch import Tensor

from federation.filters.accountant import Accountant, Cap
from federation.filters.half_precision import HALVED
from federation.protocol.message_values import alike, as_state
from federation.protocol.messages import PRIVACY
from federation.protocol.patterns import check_patterns
from federation.settings import Site, find_site

# What a site has spent of its privacy, in all jobs together.
ACCOUNT = "privacy_account.json"
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


def new_key() -> int:
    """Draw 128 bits from the system's entropy."""
    return secrets.randbits(128)


def gaussian_noise(update: Mapping[str, Tensor], deviation: float, key: int) -> dict[str, Tensor]:
    """Draw noise for every number of an update.

    PyTorch's generator on a CPU uses 32 bits of its seed: whoever sees a release finds them within
    minutes, and takes the noise off. This one uses all 128.

    Args:
        update: tensors, whose names and shapes count.
        deviation: the noise's standard deviation.
        key: 128 bits, of which nobody knows any, for one release alone.

    Returns:
        float64 tensors of the same names and shapes.

    Source: Philox 4x64, Salmon et al. 2011.
    """
    generator = np.random.Generator(np.random.Philox(key=key))
    return {
        name: deviation * torch.from_numpy(generator.standard_normal(tuple(value.shape)))
        for name, value in update.items()
    }


def site_of(fl_ctx: FLContext) -> Site:
    """Read the settings of the site whose NVFlare process this is; errors as in `find_site`."""
    return find_site(fl_ctx.get_identity_name(), fl_ctx.get_prop(FLContextKey.APP_ROOT) or ".")


def accountant_of(site: Site, delta: float) -> Accountant:
    """Open a site's account, which another job of the site may have changed since.

    Args:
        site: whose.
        delta: the delta at which epsilon is told.

    Raises:
        ValueError: the site's settings name no folder for what must outlast a job, or the file
            there is no account.
    """
    if site.state_dir is None:
        raise ValueError(
            f"{site.name}: expected state_dir in the site's settings, for the privacy account of "
            "all its jobs, found none. Nothing was sent. Run python -m federation.kit, or set it."
        )
    return Accountant(delta, site.state_dir / ACCOUNT)


def cap_of(site: Site) -> Cap | None:
    """Take a site's cap on epsilon from its rules; None = it has none."""
    rules = site.rules
    return None if rules.most_epsilon is None else Cap(rules.most_epsilon, rules.delta)


class GaussianPrivacy(DXOFilter):
    """Client filter: clips the whole update's L2 norm, adds noise, and tells epsilon and delta.

    It protects everything that a site's data do to one message, and so any one patient: two updates
    of norm C differ by at most 2 C, whatever data they come from, and the noise of each number has
    the standard deviation `noise_multiplier` times 2 C. It protects against everybody who sees the
    message, the server included. It does not protect case counts, metrics, which modalities the
    site has, and logs.

    Put it before `HalfPrecision`: what happens to a private message costs no privacy. After
    `HalfPrecision` it refuses: numbers that travel multiplied by a power of two take the noise's
    size with them, which would shrink by that power.

    A site has one account for all its jobs, in the folder of its own settings that holds its state
    (`federation.settings`). A job chooses neither the account nor the noise. A release beyond the
    site's cap on epsilon is refused before anything is spent.

    Args:
        clip_norm: C, above 0.
        noise_multiplier: the noise's standard deviation divided by 2 C, above 0.
        delta: see `Accountant`.
        refused: patterns of what must not be in a private message. Additive statistics above all:
            they are sums over patients, which noise of this size does not protect.

    Raises:
        ValueError: a clip norm or noise of 0, with which epsilon is infinite, or below.

    The noise is drawn in double precision and rounded with the update. In theory the lowest bits of
    such a sum tell something of the update (Mironov 2012); the account does not know of that.
    """

    def __init__(
        self,
        clip_norm: float,
        noise_multiplier: float,
        delta: float = 1e-5,
        refused: Sequence[str] = (),
    ) -> None:
        super().__init__([DataKind.WEIGHT_DIFF], [DataKind.WEIGHT_DIFF])
        if not (0 < clip_norm < math.inf and 0 < noise_multiplier < math.inf):
            raise ValueError(
                f"expected clip_norm and noise_multiplier above 0, got {clip_norm} and "
                f"{noise_multiplier}. Without noise epsilon is infinite, which is not private. To "
                "train without privacy, leave this filter out."
            )
        self.clip_norm, self.noise_multiplier, self.delta = clip_norm, noise_multiplier, delta
        check_patterns(refused, "refused")
        self.refused = refused

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """Return a private copy of a message.

        Raises:
            ValueError: it holds something that noise does not make private, or the site's cap on
                epsilon leaves no room. Nothing is sent, and nothing spent.
        """
        update = as_state(dxo.data, "the update")
        self._check(update, dxo)
        site = site_of(fl_ctx)
        site.rules.check_noise(self.noise_multiplier)
        accountant = accountant_of(site, self.delta)
        clipped = clip(update, self.clip_norm)
        accountant.spend(self.noise_multiplier, cap_of(site))
        deviation = self.noise_multiplier * _SENSITIVITY_PER_NORM * self.clip_norm
        noise = gaussian_noise(clipped, deviation, new_key())
        data = {
            key: alike((value + noise[key]).to(update[key].dtype), dxo.data[key])
            for key, value in clipped.items()
        }
        statement = accountant.statement()
        self.log_info(fl_ctx, f"privacy of {fl_ctx.get_identity_name()} {statement}")
        meta = {k: v for k, v in dxo.meta.items() if k != MetaKey.FILTER_HISTORY}
        meta[PRIVACY] = {
            "epsilon": accountant.epsilon(),
            "delta": self.delta,
            "releases": accountant.releases,
            "statement": statement,
        }
        return DXO(dxo.data_kind, data=data, meta=meta)

    def check_affordable(self, site: Site) -> None:
        """Refuse a task whose result this filter would refuse to send, before it is worked at.

        Raises:
            ValueError: the site has no account, asks for more noise, or its cap leaves no room for
                one more release.
        """
        site.rules.check_noise(self.noise_multiplier)
        accountant_of(site, self.delta).check(self.noise_multiplier, cap_of(site))

    def _check(self, update: Mapping[str, Tensor], dxo: DXO) -> None:
        if HALVED in dxo.meta:
            raise ValueError(
                "expected an update in its own size, got one that HalfPrecision has scaled, which "
                "would shrink the noise. Put GaussianPrivacy first among the result filters."
            )
        for key, value in update.items():
            if not value.is_floating_point() or any(re.search(p, key) for p in self.refused):
                raise ValueError(
                    f"expected an update of parameters alone, got {key!r} ({value.dtype}), which "
                    "this noise does not protect. Name it under exchange#private_parameters."
                )
