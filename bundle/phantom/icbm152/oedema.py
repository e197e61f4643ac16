"""Oedema: it spreads from the core along white matter, and stops at fluid and at the falx."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from scipy import ndimage, sparse
from scipy.sparse.csgraph import dijkstra

from bundle.phantom.icbm152.fields import smooth_field
from bundle.phantom.icbm152.head import Head, Tissue

# Of the way through a tissue, beside that through white matter.
_GREY, _BARRIER = 4.0, 60.0
# The grid on which ways are measured.
_COARSE_MM = 3.0
_REACH_MM = 75.0


def spread_oedema(rng: Generator, head: Head, core: np.ndarray, volume_ml: float) -> np.ndarray:
    """Spread oedema around a core.

    Args:
        rng: the source of randomness.
        head: without the tumour, pushed aside by it.
        core: (D, H, W) float32, the core's share of each voxel.
        volume_ml: of the oedema.

    Returns:
        (D, H, W) float32 in 0..1, its share; 0 where the core or fluid fills the voxel.
    """
    way = ways_from(rng, head, core > 0.5)
    white, grey = head.shares[Tissue.WHITE], head.shares[Tissue.GREY]
    open_to = np.clip(white + 0.75 * grey, 0, 1) * np.clip(1 - core, 0, 1)
    spot = head.shares.get(Tissue.SPOT)
    if spot is not None:
        open_to = np.clip(open_to + spot * (1 - core), 0, 1)
    volumes = open_to * head.spacing_mm**3 / 1000
    order = np.argsort(way, axis=None)
    filled = np.cumsum(volumes.ravel()[order])
    last = min(int(np.searchsorted(filled, volume_ml)), len(order) - 1)
    edge = way.ravel()[order][last]
    if not np.isfinite(edge):
        edge = way[np.isfinite(way)].max()
    # It thins out: seen from where it ends, over some mm.
    width = rng.uniform(1.0, 2.5)
    patchy = 0.08 * smooth_field(rng, core.shape, 3, head.spacing_mm)
    dense = 0.5 + 0.5 * np.tanh((edge - np.where(np.isfinite(way), way, 1e6)) / width)
    dense = dense * np.clip(rng.uniform(0.8, 1.0) + patchy, 0.4, 1)
    return (dense * open_to).astype(np.float32)


def ways_from(rng: Generator, head: Head, core: np.ndarray) -> np.ndarray:
    """Measure the cheapest way from the core to each voxel, in mm of white matter.

    Args:
        rng: the source of randomness.
        head: through which the ways lead.
        core: (D, H, W) bool, where they begin.

    Returns:
        (D, H, W) float32; infinite where no way leads or farther than oedema reaches.
    """
    step = max(1, round(_COARSE_MM / head.spacing_mm))
    box = _box_around(core, int(_REACH_MM / head.spacing_mm))
    dear = 1 + (_GREY - 1) * _of(head, Tissue.GREY)[box]
    barrier = _of(head, Tissue.FLUID)[box] + _of(head, Tissue.DURA)[box]
    dear = dear + _BARRIER * np.clip(barrier - 0.15, 0, 1)
    dear = dear * np.exp(0.45 * smooth_field(rng, dear.shape, 4, head.spacing_mm))
    # Of a block of voxels the mean: a sheet of fluid thinner than a block still bars the way.
    dear, start = (_pool(part, step) for part in (dear, core[box].astype(np.float32)))
    inside = _pool(head.brain[box].astype(np.float32), step) > 0.5
    start = (start > 0.3) & inside
    if not start.any():
        start = (
            _pool(core[box].astype(np.float32), step)
            == _pool(core[box].astype(np.float32), step).max()
        )
        inside = inside | start
    far = _dijkstra(dear * step * head.spacing_mm, inside, start)
    # Where no way leads a spline would spread the infinite.
    far = np.where(np.isfinite(far), far, 4 * _REACH_MM * _GREY)
    fine = ndimage.zoom(far, step, order=1, mode="nearest", grid_mode=True)
    ways = np.full(core.shape, np.inf, np.float32)
    part = tuple(slice(s.start, s.start + n) for s, n in zip(box, fine.shape, strict=True))
    ways[part] = np.where(head.brain[part], fine, np.inf)
    return ways


def _of(head: Head, tissue: Tissue) -> np.ndarray:
    return head.shares.get(tissue, np.zeros(head.brain.shape, np.float32))


def _box_around(core: np.ndarray, reach: int) -> tuple[slice, ...]:
    found = ndimage.find_objects(core.astype(np.uint8))[0]
    return tuple(
        slice(max(0, s.start - reach), min(n, s.stop + reach))
        for s, n in zip(found, core.shape, strict=True)
    )


def _pool(volume: np.ndarray, step: int) -> np.ndarray:
    """Take the mean of blocks; what does not fill a block at the far end is left out."""
    counts = [n // step for n in volume.shape]
    whole = volume[tuple(slice(n * step) for n in counts)]
    return whole.reshape([e for n in counts for e in (n, step)]).mean((1, 3, 5))


def _dijkstra(dear: np.ndarray, inside: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Measure the cheapest ways over the 26 neighbours of each voxel."""
    numbers = np.full(dear.shape, -1)
    numbers[inside] = np.arange(inside.sum())
    rows, columns, costs = [], [], []
    for offset in np.argwhere(np.ones((3, 3, 3))) - 1:
        if tuple(offset) <= (0, 0, 0):
            continue
        here = tuple(
            slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, dear.shape, strict=True)
        )
        there = tuple(
            slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, dear.shape, strict=True)
        )
        both = inside[here] & inside[there]
        rows.append(numbers[here][both])
        columns.append(numbers[there][both])
        length = float(np.linalg.norm(offset))
        costs.append(0.5 * (dear[here][both] + dear[there][both]) * length)
    size = int(inside.sum())
    graph = sparse.coo_matrix(
        (np.concatenate(costs), (np.concatenate(rows), np.concatenate(columns))), (size, size)
    ).tocsr()
    far = dijkstra(graph, directed=False, indices=numbers[start], min_only=True)
    ways = np.full(dear.shape, np.inf)
    ways[inside] = far
    return ways
