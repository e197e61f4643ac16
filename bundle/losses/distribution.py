"""Losses for what has no target but a known distribution: descriptors of rebuilt patches.

Letters besides the legend of `bundle.modalities`: K descriptors of a patch, P patches.

Everything is computed in double precision, which automatic mixed precision leaves alone, and
returned in that of the descriptors. Gradients flow into the descriptors only: what the bank and the
scanned modalities say is taken as given.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

# In units of the bank's variances: keeps the gradient finite where rebuilt patches are all alike.
_LEAST_VARIANCE = 1e-6
# Eigenvalues that much smaller than the largest are rounding errors of 0.
_NEGLIGIBLE = 1e-12


def gaussian_w2(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> Tensor:
    """Squared 2-Wasserstein distance between two Gaussians.

    |mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_b^1/2 cov_a cov_b^1/2)^1/2). The trace of the
    root is the sum of the eigenvalues' roots, whose gradient, unlike that of a matrix root by
    eigenvectors, exists also where eigenvalues coincide; eigenvalues of 0 get none.

    Args:
        mean_a: (K,) float.
        cov_a: (K, K) float, symmetric, no negative eigenvalue.
        mean_b: (K,) float, as `cov_b` without gradient.
        cov_b: (K, K) float, as `cov_a`.

    Returns:
        () float in the type of `mean_a`, squared unit of the means, at least 0, which it is for
        identical Gaussians.

    Source: Dowson and Landau 1982, "The Frechet distance between multivariate normal
    distributions", Journal of Multivariate Analysis 12.
    """
    a, b = cov_a.double(), cov_b.detach().double()
    shift = mean_a.double() - mean_b.detach().double()
    values, vectors = torch.linalg.eigh(b)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    spectrum = torch.linalg.eigvalsh(root @ a @ root)
    counts = spectrum > _NEGLIGIBLE * spectrum.detach().abs().max()
    # Replaced before the root is taken: its derivative at 0 would turn 0 * inf into NaN.
    roots = torch.where(counts, spectrum.where(counts, 1).sqrt(), 0)
    distance = shift.square().sum() + a.trace() + b.trace() - 2 * roots.sum()
    return distance.clamp_min(0).to(mean_a.dtype)


def marginal_matching(descriptors: Tensor, mean: Tensor, cov: Tensor) -> Tensor:
    """How far rebuilt patches, taken together, are from the distribution they should follow.

    The squared Wasserstein distance between the Gaussian fitted to the descriptors and the given
    one, with every descriptor in units of its given standard deviation, divided by K. A single
    patch has no covariance: then only the mean counts.

    Args:
        descriptors: (P, K) float, of one modality; P may be 0.
        mean: (K,) float, from the bank.
        cov: (K, K) float, from the bank, positive definite.

    Returns:
        () float without unit, at least 0; exactly 0 if P is 0. Never NaN for finite descriptors.

    Source: our reading of the "distribution approximation" of arXiv 2406.01987 (design.md 1.1).
    """
    patches, features = descriptors.shape
    if patches == 0:
        return descriptors.new_zeros(())
    deviation = cov.detach().diagonal().double().sqrt()
    scores = (descriptors.double() - mean.detach().double()) / deviation
    centre = scores.mean(0)
    if patches == 1:
        return centre.square().mean().to(descriptors.dtype)
    ridge = _LEAST_VARIANCE * torch.eye(features, dtype=torch.float64, device=scores.device)
    centred = scores - centre
    found = centred.T @ centred / patches + ridge
    expected = cov.detach().double() / torch.outer(deviation, deviation) + ridge
    distance = gaussian_w2(centre, found, torch.zeros_like(centre), expected)
    return (distance / features).to(descriptors.dtype)


def marginal_excess(descriptors: Tensor, mean: Tensor, cov: Tensor, sizes: Tensor) -> Tensor:
    """How far rebuilt patches, taken together, go beyond the distribution that they should follow.

    As `marginal_matching`, but only what is too much counts: in any direction a spread wider than
    the given one, and a mean that is off, for a size one that is too large. A rebuilt scan is an
    expectation, which spreads less than what it expects, Var(E[Y|X]) <= Var(Y), and looks smoother;
    to widen it to the full spread would be to guess the sign of what is not known.

    Args:
        descriptors: (P, K) float, of one modality; P may be 0.
        mean: (K,) float, from the bank.
        cov: (K, K) float, from the bank, positive definite.
        sizes: (K,) bool, True = a size, such as a standard deviation.

    Returns:
        () float without unit, at least 0, which it is for whatever varies less and is as bright;
        exactly 0 if P is 0. Never NaN for finite descriptors.

    Source: ours (design.md section 1.1).
    """
    patches, features = descriptors.shape
    if patches == 0:
        return descriptors.new_zeros(())
    deviation = cov.detach().diagonal().double().sqrt()
    scores = (descriptors.double() - mean.detach().double()) / deviation
    centre = scores.mean(0)
    distance = torch.where(sizes, centre.clamp_min(0), centre).square().sum()
    if patches > 1:
        factor = torch.linalg.cholesky(cov.detach().double() / torch.outer(deviation, deviation))
        white = torch.linalg.solve_triangular(factor, (scores - centre).T, upper=False)
        spectrum = torch.linalg.eigvalsh(white @ white.T / patches)
        distance = distance + (spectrum.clamp_min(1).sqrt() - 1).square().sum()
    return (distance / features).to(descriptors.dtype)


def conditional_matching(
    descriptors: Tensor,
    conditional_mean: Tensor,
    conditional_cov: Tensor,
    cap: float | None = None,
) -> Tensor:
    """How unlikely rebuilt patches are, given what the scanned modalities show there.

    The Gaussian negative log-likelihood per patch and descriptor, less its constant: half the
    squared Mahalanobis distance to the expected descriptors, divided by K.

    Args:
        descriptors: (P, K) float, of one modality; P may be 0.
        conditional_mean: (P, K) float, what is expected at each patch.
        conditional_cov: (K, K) float, positive definite.
        cap: beyond this many standard deviations the loss grows linearly, not quadratically, so
            that a few odd patches, such as lesions, do not dominate. None = no cap.

    Returns:
        () float without unit, at least 0; 0 where all is as expected, and exactly 0 if P is 0.

    Source: our reading of the "distribution approximation" of arXiv 2406.01987 (design.md 1.1).
    """
    if len(descriptors) == 0:
        return descriptors.new_zeros(())
    factor = torch.linalg.cholesky(conditional_cov.detach().double())
    residual = descriptors.double() - conditional_mean.detach().double()
    scores = torch.linalg.solve_triangular(factor, residual.T, upper=False)
    if cap is None:
        return scores.square().mean().div(2).to(descriptors.dtype)
    return huber_loss(scores, torch.zeros_like(scores), delta=cap).to(descriptors.dtype)
