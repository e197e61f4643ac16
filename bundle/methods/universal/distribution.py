"""Supervision for modalities that were never scanned: their distribution is known from others.

Letters besides the legend of `bundle.modalities`: N and P patches, K descriptors of a patch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bundle.losses.distribution import (
    conditional_matching,
    marginal_excess,
    marginal_matching,
)
from bundle.networks.descriptors import SIZES, patch_descriptors
from bundle.networks.distribution_bank import ConditionalGaussian, DistributionBank

# Below that, an explained share of variance is rounding.
_NOTHING_EXPLAINED = 1e-6


class DistributionApproximation(nn.Module):
    """Compare what was rebuilt for truly absent modalities with what the bank knows of them.

    As it stands, what is rebuilt is drawn to look like a scan, with a scan's full spread and
    texture: `marginal_matching`, and `conditional_matching` of all descriptors.

    *Cautious*, it is left to be the expectation that least squares makes of it, which varies less
    than a scan and is closer to the truth voxel by voxel: `marginal_excess`, and the conditional
    term for descriptors that are no sizes (how bright a patch is), times the share of their
    variance that the case's scans explain. What was never seen together with any of them then
    has no conditional term, instead of being drawn to its mean.

    The Gaussians are drawn from the bank when first needed and kept until it changes.

    Args:
        bank: statistics of `len(DESCRIPTORS)` descriptors; filled by `update`, or loaded.
        patch: side of a patch in voxels; small against the crop, so that a crop has many.
        cautious: see above.
        marginal_weight: factor of the term `marginal`; 0 = not computed.
        conditional_weight: factor of the term `conditional`; 0 = not computed.
        cap: see `conditional_matching`; None = no cap.
        minimum_patches: a modality that the bank saw in fewer patches is left out: its variances
            would be too rough to measure by. `bank.check_seen` is the loud way.

    Source: our reading of the "distribution approximation" of arXiv 2406.01987 (design.md 1.1).
    """

    def __init__(
        self,
        bank: DistributionBank,
        patch: int = 8,
        cautious: bool = False,
        marginal_weight: float = 1.0,
        conditional_weight: float = 1.0,
        cap: float | None = 3.0,
        minimum_patches: int = 100,
    ) -> None:
        super().__init__()
        self.bank, self.patch, self.cautious, self.cap = bank, patch, cautious, cap
        self.marginal_weight, self.conditional_weight = marginal_weight, conditional_weight
        self.minimum_patches = minimum_patches
        self.register_buffer("sizes", torch.tensor(SIZES), persistent=False)
        self._learnable: list[bool] | None = None
        self._conditionals: dict[tuple, ConditionalGaussian] = {}
        self._explained: dict[tuple, float] = {}
        self._known_version = bank.version

    @torch.no_grad()
    def update(self, image: Tensor, present: Tensor, brain: Tensor) -> None:
        """Add a batch to the bank; arguments as in `forward`."""
        descriptors, valid = patch_descriptors(image, brain, self.patch)
        self.bank.update(descriptors, present, valid)

    def forward(
        self, rebuilt: Tensor, image: Tensor, present: Tensor, brain: Tensor
    ) -> dict[str, Tensor]:
        """Compute the loss terms of the modalities that were truly absent.

        The only gradient is into `rebuilt`, at the brain voxels of absent modalities in valid
        patches.

        Args:
            rebuilt: (B, M, D, H, W) float, z-scores, the reconstruction of every modality.
            image: (B, M, D, H, W) float, same unit; an absent modality may hold anything, NaN
                included.
            present: (B, M) bool, True = the modality was truly scanned. Not what random dropping
                left: a dropped modality has a target.
            brain: (B, 1, D, H, W) bool, True = inside the brain.

        Returns:
            Weighted scalars, never NaN for finite input: `marginal`, averaged over the absent
            modalities, whose patches are pooled over the batch, and `conditional`, averaged over
            the absent modalities of each case. Exactly 0, and without gradient, where nothing is
            absent, no patch is valid or the bank does not know the modality.
        """
        self._forget_if_changed()
        completed = torch.where(present[..., None, None, None], image.detach(), rebuilt)
        descriptors, valid = patch_descriptors(completed, brain, self.patch)
        pooled: dict[int, list[Tensor]] = {}
        conditional = []
        for case, here in enumerate(present.tolist()):
            patches = descriptors[case][:, valid[case]]
            for target in self._targets(here) if patches.shape[1] else ():
                if self.marginal_weight:
                    pooled.setdefault(target, []).append(patches[target])
                if self.conditional_weight:
                    conditional.append(self._match_conditional(patches, target, here))
        marginal = [self._match_marginal(rows, target) for target, rows in pooled.items()]
        zero = descriptors.new_zeros(())
        return {
            "marginal": self.marginal_weight * (torch.stack(marginal).mean() if marginal else zero),
            "conditional": self.conditional_weight
            * (torch.stack(conditional).mean() if conditional else zero),
        }

    def _targets(self, here: list[bool]) -> list[int]:
        if all(here):
            return []
        if self._learnable is None:
            self._learnable = (self.bank.counts.diagonal() >= self.minimum_patches).tolist()
        return [m for m, scanned in enumerate(here) if not scanned and self._learnable[m]]

    def _match_conditional(self, patches_MPK: Tensor, target: int, here: list[bool]) -> Tensor:
        gaussian = self._conditional(target, tuple(here), patches_MPK.device)
        given = patches_MPK[torch.tensor(here)].detach().transpose(0, 1).flatten(1)
        rebuilt, mean, covariance = patches_MPK[target], gaussian.mean(given), gaussian.covariance
        if not self.cautious:
            return conditional_matching(rebuilt, mean, covariance, self.cap)
        share = self._share_explained(target, tuple(here), patches_MPK.device)
        if not share:
            return patches_MPK.new_zeros(())
        levels = ~self.sizes
        return share * conditional_matching(
            rebuilt[:, levels], mean[:, levels], covariance[levels][:, levels], self.cap
        )

    def _share_explained(self, target: int, given: tuple[bool, ...], device: torch.device) -> float:
        """Say how much of a modality others tell, 0 to 1; exactly 0 for what is independent."""
        key = (target, given, device)
        if key not in self._explained:
            left, every = (
                self._conditional(target, known, device).covariance[~self.sizes][:, ~self.sizes]
                for known in (given, self._nothing)
            )
            share = 1 - float(torch.linalg.solve(every, left).diagonal().mean())
            self._explained[key] = share if share > _NOTHING_EXPLAINED else 0.0
        return self._explained[key]

    def _match_marginal(self, rows: list[Tensor], target: int) -> Tensor:
        # Conditioned on nothing: so it is kept beside the other conditionals, on the right device.
        gaussian = self._conditional(target, self._nothing, rows[0].device)
        patches = torch.cat(rows)
        if not self.cautious:
            return marginal_matching(patches, gaussian.bias, gaussian.covariance)
        sizes = self.sizes.to(patches.device)
        return marginal_excess(patches, gaussian.bias, gaussian.covariance, sizes)

    @property
    def _nothing(self) -> tuple[bool, ...]:
        return (False,) * len(self.bank.names)

    def _conditional(
        self, target: int, given: tuple[bool, ...], device: torch.device
    ) -> ConditionalGaussian:
        key = (target, given, device)
        if key not in self._conditionals:
            drawn = self.bank.conditional(target, torch.tensor(given))
            self._conditionals[key] = ConditionalGaussian(*(t.to(device) for t in drawn))
        return self._conditionals[key]

    def _forget_if_changed(self) -> None:
        if self.bank.version != self._known_version:
            self._forget()

    def _forget(self) -> None:
        self._learnable = None
        self._conditionals.clear()
        self._explained.clear()
        self._known_version = self.bank.version


KINDS = ("none", "marginal", "conditional", "cautious")


def approximation(
    kind: str, bank: DistributionBank, conditional_weight: float = 1.0, **settings: Any
) -> DistributionApproximation | None:
    """Make a distribution approximation of one of the kinds that configs name.

    Args:
        kind: `none`; `marginal`, that term alone; `conditional`, both terms; or `cautious`, both
            in their cautious form.
        bank, conditional_weight: as in `DistributionApproximation`, with its other `settings`.

    Raises:
        ValueError: another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"distribution: expected one of {list(KINDS)}, got {kind!r}")
    if kind == "none":
        return None
    return DistributionApproximation(
        bank,
        cautious=kind == "cautious",
        conditional_weight=0.0 if kind == "marginal" else conditional_weight,
        **settings,
    )
