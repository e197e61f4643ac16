"""What patches of each modality look like, and how they go together, as sums that add up.

Letters besides the legend of `bundle.modalities`: N patches, K descriptors of a patch, P patches
of interest, G given modalities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from bundle.networks.bank_consistency import check_sums

# A descriptor that never varies must not divide by zero; unit: descriptor squared.
_LEAST_VARIANCE = 1e-6


class ConditionalGaussian(NamedTuple):
    """How one modality's descriptor is distributed, given those of others, at the same patch.

    Attributes:
        weight: (K, G * K) float.
        bias: (K,) float.
        covariance: (K, K) float, positive definite.
    """

    weight: Tensor
    bias: Tensor
    covariance: Tensor

    def mean(self, descriptors: Tensor) -> Tensor:
        """Compute the expected descriptors (P, K) from the given ones (P, G * K).

        The G modalities stand in vocabulary order, each with its K descriptors together.
        """
        # Double precision, also because automatic mixed precision leaves it alone.
        mean = descriptors.double() @ self.weight.double().T + self.bias.double()
        return mean.to(descriptors.dtype)


class _PairStatistics(NamedTuple):
    """The bank's sums on the CPU, and what can be read off them for one or two modalities."""

    counts: Tensor
    sums: Tensor
    squares: Tensor
    products: Tensor

    def moments(self, modality: int, others: list[int], prior: float) -> tuple[Tensor, Tensor]:
        """Mean (K,) and covariance (K, K) at the patches that the `others` have too.

        Mixed with `prior` patches that are like all of the modality's; with all, if there are none.
        """
        if not (self.counts[modality, others].sum() + prior):
            others = [modality]
        every = prior / self.counts[modality, modality].clamp_min(1)
        total = (self.counts[modality, others].sum() + prior).clamp_min(1e-9)
        mean = self.sums[modality, others].sum(0) + every * self.sums[modality, modality]
        square = self.squares[modality, others].sum(0) + every * self.squares[modality, modality]
        mean = mean / total
        return mean, square / total - torch.outer(mean, mean)

    def correlation(self, one: int, other: int, prior: float) -> Tensor:
        """Correlation (K, K) at the patches that have both, mixed with `prior` without any."""
        count = self.counts[one, other]
        if count == 0:
            return torch.zeros_like(self.products[one, other])
        mean, covariance = self.moments(one, [other], 0)
        mean_other, covariance_other = self.moments(other, [one], 0)
        cross = self.products[one, other] / count - torch.outer(mean, mean_other)
        scale = torch.outer(_deviation(covariance), _deviation(covariance_other))
        return cross / scale * count / (count + prior)


class DistributionBank(nn.Module):
    """Sufficient statistics of patch descriptors, for every pair of modalities seen together.

    All buffers are sums, so banks of several sites add up to the bank of the pooled cases, and no
    case needs to be complete. They are named in `additive_statistics`: add them up, do not average
    them, and keep them in double precision (half precision cannot count beyond 2048). For modality
    i at the patches where i and j were both scanned:

        counts[i, j]    how many patches; counts[i, i] is all of i's
        sums[i, j]      (K,) sum of i's descriptors
        squares[i, j]   (K, K) sum of i's times i's descriptors
        products[i, j]  (K, K) sum of i's times j's descriptors

    Cases that lack a scan may differ from those that have it (another scanner, another protocol).
    A conditional is therefore fitted where the target was scanned: means and variances of the given
    modalities come from the patches they share with the target, those of the target from the
    patches it shares with them. For one given modality, and for any number where all cases are
    complete, this is ordinary least squares (but for shrinkage and floor). Pairs are assembled as
    correlations, each centred and scaled by the means and deviations of its own patches, so that
    none leaves [-1, 1], which covariances from different patches would. What was assembled pair by
    pair need not be positive definite: eigenvalues of the correlation below `floor` are raised.

    Args:
        modalities: M, how many modalities.
        features: K, how many descriptors a patch has.
        names: what messages call the modalities; None = by their numbers.
        shrinkage: how many imaginary patches, ordinary ones of each modality, but uncorrelated, are
            added to every pair: a correlation from n patches is multiplied by n / (n + shrinkage).
            So a pair never seen together is independent, few patches say little, and with many the
            estimate is exact. 500 is about half a case in patches of 8 voxels; patches of one case
            resemble each other, hence not less. 0 = none.
        floor: least eigenvalue of the assembled correlation, above 0 and far below 1. It bounds how
            precisely any modality is thought to tell another.

    Attributes:
        version: how often the statistics have changed, loading included.

    Source: our reading of the "distribution approximation" of arXiv 2406.01987 (design.md 1.1).
    """

    additive_statistics: ClassVar[tuple[str, ...]] = ("counts", "sums", "squares", "products")

    counts: Tensor
    sums: Tensor
    squares: Tensor
    products: Tensor

    def __init__(
        self,
        modalities: int,
        features: int,
        names: Sequence[str] | None = None,
        shrinkage: float = 500.0,
        floor: float = 1e-3,
    ) -> None:
        super().__init__()
        self.names = tuple(names) if names is not None else tuple(map(str, range(modalities)))
        if len(self.names) != modalities:
            raise ValueError(f"expected {modalities} names, got {list(self.names)}")
        self.features, self.shrinkage, self.floor, self.version = features, shrinkage, floor, 0
        pairs = (modalities, modalities)
        square = (*pairs, features, features)
        shapes = (pairs, (*pairs, features), square, square)
        for name, shape in zip(self.additive_statistics, shapes, strict=True):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self.register_load_state_dict_post_hook(_count_a_change)

    @torch.no_grad()
    def update(self, descriptors: Tensor, present: Tensor, valid: Tensor) -> None:
        """Add patches. Count each patch once: a warm-up epoch, not every epoch.

        Args:
            descriptors: (B, M, N, K) float; those of absent modalities and invalid patches may hold
                anything, NaN included.
            present: (B, M) bool, True = the modality was scanned.
            valid: (B, N) bool, True = the patch counts.

        Raises:
            ValueError: shapes that do not fit each other or the bank.
        """
        self._check(descriptors, present, valid)
        seen = (present[:, :, None] & valid[:, None, :]).to(self.counts.device)
        values = descriptors.to(self.sums).masked_fill(~seen[..., None], 0)
        seen_PM = seen.transpose(1, 2).flatten(0, 1).double()
        values_PMK = values.transpose(1, 2).flatten(0, 1)
        squares_PMKK = values_PMK[..., :, None] * values_PMK[..., None, :]
        self.counts += seen_PM.T @ seen_PM
        self.sums += torch.einsum("pik,pj->ijk", values_PMK, seen_PM)
        self.squares += torch.einsum("pikl,pj->ijkl", squares_PMKK, seen_PM)
        self.products += torch.einsum("pik,pjl->ijkl", values_PMK, values_PMK)
        self.version += 1

    def merge(self, other: DistributionBank) -> None:
        """Add another bank's statistics to this one's: the same as all patches in one bank.

        Raises:
            ValueError: the banks are of different modalities or descriptors.
        """
        if (self.names, self.features) != (other.names, other.features):
            raise ValueError(
                f"expected a bank of {list(self.names)} with {self.features} descriptors, "
                f"got one of {list(other.names)} with {other.features}"
            )
        for name in self.additive_statistics:
            getattr(self, name).add_(getattr(other, name).to(self.counts.device))
        self.version += 1

    def reset(self) -> None:
        """Forget everything."""
        for name in self.additive_statistics:
            getattr(self, name).zero_()
        self.version += 1

    def check_statistics(
        self, sums: Mapping[str, Tensor], rounding: Mapping[str, float], cases: Sequence[int]
    ) -> None:
        """Check sums that somebody else has counted; see `bank_consistency.check_sums`."""
        check_sums(sums, rounding, cases, self.names)

    def check_seen(self) -> None:
        """Make sure that every modality was seen; call it when the bank is filled, at all sites.

        Raises:
            ValueError: naming the modalities without a single patch.
        """
        unseen = [n for n, c in zip(self.names, self.counts.diagonal(), strict=True) if c == 0]
        if unseen:
            raise ValueError(
                "expected at least one training case with a scan of each modality, got none of "
                f"{', '.join(map(repr, unseen))}. How it looks cannot be learnt: drop it from "
                "'modalities' in the config, or add cases (or sites) that have it."
            )

    def marginal(self, modality: int) -> tuple[Tensor, Tensor]:
        """Return mean (K,) and covariance (K, K) of one modality's descriptor, float64 on the CPU.

        Raises:
            ValueError: the modality was never seen.
        """
        gaussian = self.conditional(modality, torch.zeros(len(self.names), dtype=torch.bool))
        return gaussian.bias, gaussian.covariance

    def conditional(self, target: int, given: Tensor) -> ConditionalGaussian:
        """Condition one modality's descriptor on those of others, float64 on the CPU.

        Args:
            target: number of the modality that is asked for.
            given: (M,) bool, True = the modality's descriptor is known; the target's own entry does
                not matter. Nothing given leaves the marginal.

        Raises:
            ValueError: the target was never seen.
        """
        self._check_known(target)
        others = [m for m in given.nonzero().flatten().tolist() if m != target]
        mean, covariance = self._assemble(target, others)
        own = slice(self.features)
        known = slice(self.features, None)
        cross = covariance[own, known]
        factor = torch.linalg.cholesky(covariance[known, known])
        weight = torch.cholesky_solve(cross.T, factor).T
        remaining = covariance[own, own] - weight @ cross.T
        bias = mean[own] - weight @ mean[known]
        return ConditionalGaussian(weight, bias, (remaining + remaining.T) / 2)

    def _assemble(self, target: int, given: list[int]) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the target's and, behind them, the given descriptors."""
        statistics = _PairStatistics(*(getattr(self, n).cpu() for n in self.additive_statistics))
        members = [target, *given]
        partners = [given or [target], *([target] for _ in given)]
        moments = [
            statistics.moments(member, others, self.shrinkage)
            for member, others in zip(members, partners, strict=True)
        ]
        deviation = torch.cat([_deviation(covariance) for _, covariance in moments])
        blocks = [
            [self._correlation(statistics, i, j, moments[row][1]) for j in members]
            for row, i in enumerate(members)
        ]
        correlation = torch.cat([torch.cat(row, dim=1) for row in blocks]).fill_diagonal_(1)
        correlation = _positive_definite(correlation, self.floor)
        mean = torch.cat([mean for mean, _ in moments])
        return mean, correlation * torch.outer(deviation, deviation)

    def _correlation(
        self, statistics: _PairStatistics, i: int, j: int, covariance_i: Tensor
    ) -> Tensor:
        if i != j:
            return statistics.correlation(i, j, self.shrinkage)
        deviation, count = _deviation(covariance_i), statistics.counts[i, i].clamp_min(1)
        return covariance_i / torch.outer(deviation, deviation) * count / (count + self.shrinkage)

    def _check_known(self, modality: int) -> None:
        if self.counts[modality, modality] == 0:
            raise ValueError(
                f"expected patches of modality {self.names[modality]!r} in the bank, got none. "
                "Update the bank with cases that have it first; `check_seen` names all that lack."
            )

    def _check(self, descriptors: Tensor, present: Tensor, valid: Tensor) -> None:
        batch, patches = valid.shape
        expected = (batch, len(self.names), patches, self.features)
        if descriptors.shape != expected or present.shape != expected[:2]:
            raise ValueError(
                f"expected descriptors of shape {expected} and present of shape {expected[:2]} "
                f"for valid of shape {(batch, patches)}, got {tuple(descriptors.shape)} and "
                f"{tuple(present.shape)}"
            )


def _count_a_change(bank: DistributionBank, incompatible_keys: Any) -> None:
    bank.version += 1


def _deviation(covariance: Tensor) -> Tensor:
    return covariance.diagonal().clamp_min(_LEAST_VARIANCE).sqrt()


def _positive_definite(correlation: Tensor, floor: float) -> Tensor:
    """Raise eigenvalues to `floor`, then restore the diagonal of ones."""
    values, vectors = torch.linalg.eigh((correlation + correlation.T) / 2)
    raised = (vectors * values.clamp_min(floor)) @ vectors.T
    scale = raised.diagonal().rsqrt()
    return raised * torch.outer(scale, scale)
