"""How far the sites' updates agree, and which one stands out.

A cosine is the one of a site's update with the mean of the others: over the parameters that another
site holds too, each with the plain mean of its other holders. Blocks of modalities that a site
lacks, statistics and counters do not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median_low

import torch
from torch import Tensor

# A site is marked, which changes no weight, if its cosine is below the first number, the median of
# the others above the second. One of three that points backwards leaves 0 to the others.
OPPOSED, AGREED = -0.25, -0.1
# Or if its norm in a group of parameters is so many times the median of at least so many holders,
# or the median is so many times its norm.
FAR, _FEWEST = 5.0, 3
_TINY = 1e-300


class Agreement:
    """Collects inner products of the sites' updates.

    They are kept for each set of sites that hold the same parameters; what is left out of a mean is
    never subtracted from it, so that one huge update cannot drown the others.
    """

    def __init__(self) -> None:
        self._products: dict[tuple[str, ...], Tensor] = {}

    def add(self, sites: Sequence[str], values_HN: Tensor) -> None:
        """Add numbers (H, N), float64, that these H sites hold and nobody else."""
        norms = torch.linalg.vector_norm(values_HN, dim=1)
        # Single precision takes half the time, and has no room for squares of large numbers.
        scaled = (values_HN / norms.clamp_min(_TINY)[:, None]).float()
        found = (scaled @ scaled.T).double() * torch.outer(norms, norms)
        holders = tuple(sites)
        self._products[holders] = self._products.get(holders, 0.0) + found

    def cosines(self) -> dict[str, float]:
        """Compute each site's cosine with the mean of the others, -1 to 1.

        A site is left out that shares no parameter with another, or where an update is all zero.
        """
        sites = sorted({site for holders in self._products for site in holders})
        cosines = {}
        for site in sites:
            dot = own = others = 0.0
            for holders, products in self._products.items():
                if site not in holders or len(holders) == 1:
                    continue
                row, count = holders.index(site), len(holders) - 1
                rest = [i for i in range(len(holders)) if i != row]
                dot += float(products[row, rest].sum()) / count
                own += float(products[row, row])
                others += float(products[rest][:, rest].sum()) / count**2
            if own > 0 and others > 0:
                cosines[site] = max(-1.0, min(1.0, dot / (own**0.5 * others**0.5)))
        return cosines


def outliers(
    cosines: Mapping[str, float], norms: Mapping[str, Mapping[str, float]]
) -> dict[str, list[str]]:
    """Mark the sites whose update stands out.

    A site *points against the others* if its cosine is below `OPPOSED` while the median cosine of
    the other sites is above `AGREED`. Its norm is *far from the median* if, in a group of
    parameters with at least three holders, it is more than `FAR` times the median or less than its
    `FAR`th part. With two sites nobody can tell which one is wrong.

    Args:
        cosines: by site, see `Agreement`.
        norms: {site: {group of parameters: L2 norm of its update}}.

    Returns:
        {site: why}, of those that are marked.
    """
    marks: dict[str, list[str]] = {}
    for site, cosine in cosines.items():
        others = [value for name, value in cosines.items() if name != site]
        if cosine < OPPOSED and others and median_low(others) > AGREED:
            marks.setdefault(site, []).append(f"points against the others (cosine {cosine:.2f})")
    for group in dict.fromkeys(group for by_group in norms.values() for group in by_group):
        by_site = {site: some[group] for site, some in norms.items() if group in some}
        median = median_low(by_site.values())
        if len(by_site) < _FEWEST or median == 0:
            continue
        for site, norm in by_site.items():
            if norm > FAR * median or norm * FAR < median:
                marks.setdefault(site, []).append(
                    f"norm of {group} is {norm / median:.3g} times the median"
                )
    return dict(sorted(marks.items()))


def clipping(norms: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Tell by what to multiply each update so that no norm is above the median of its group.

    Args:
        norms: as in `outliers`.

    Returns:
        {site: {group: 0 to 1}}; 1 leaves it as it is. Of two middle norms the lower one counts.
    """
    medians = {
        group: median_low(some[group] for some in norms.values() if group in some)
        for group in {group for by_group in norms.values() for group in by_group}
    }
    return {
        site: {
            group: 1.0 if norm <= medians[group] else medians[group] / norm
            for group, norm in by_group.items()
        }
        for site, by_group in norms.items()
    }
