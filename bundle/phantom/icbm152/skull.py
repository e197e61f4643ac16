"""What a stripped brain lacks: cerebrospinal fluid around it, bone, scalp and eyes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from bundle.phantom.icbm152.fields import blob, smooth_field
from bundle.phantom.icbm152.head import Head, Tissue

# Layers from the brain outwards, mm: mean and how much it differs from place to place.
_FLUID_MM, _BONE_MM, _SCALP_MM = (2.5, 1.0), (6.5, 1.2), (6.0, 1.5)
_EYE_MM = 12.0


def add_skull(rng: Generator, head: Head) -> Head:
    """Put fluid, bone, scalp and eyes around a brain; its mask stays that of the brain."""
    shape, spacing = head.brain.shape, head.spacing_mm
    smooth_brain = ndimage.binary_closing(
        np.pad(head.brain, 8), iterations=max(1, round(6 / spacing))
    )[8:-8, 8:-8, 8:-8]
    outside = ndimage.distance_transform_edt(~(smooth_brain | head.brain)) * spacing
    uneven = smooth_field(rng, shape, 15, spacing)
    edges = np.cumsum(
        [
            mean + np.clip(uneven, -2, 2) * spread
            for mean, spread in (_FLUID_MM, _BONE_MM, _SCALP_MM)
        ],
        axis=0,
    )
    free = (1 - sum(head.shares.values())).clip(0, 1)
    shares = dict(head.shares)
    inner = np.zeros(shape, np.float32)
    for tissue, edge in zip((Tissue.FLUID, Tissue.BONE, Tissue.SCALP), edges, strict=True):
        reached = (0.5 + 0.5 * np.tanh((edge - outside) / (0.6 * spacing))).astype(np.float32)
        shares[tissue] = shares.get(tissue, 0) + free * np.clip(reached - inner, 0, 1)
        inner = np.maximum(inner, reached)
    return replace(head, shares=add_eyes(head, shares))


def add_eyes(head: Head, shares: dict[Tissue, np.ndarray]) -> dict[Tissue, np.ndarray]:
    """Put two eyes in front of the brain, below its middle, in the place of what is not brain."""
    low, high = (f(np.argwhere(head.brain), axis=0) for f in (np.min, np.max))
    middle, extent = (low + high) / 2, high - low
    eyes = np.zeros(head.brain.shape, np.float32)
    for side in (-1, 1):
        centre = [
            middle[0] + side * 32 / head.spacing_mm,
            low[1] + 0.02 * extent[1],
            low[2] + 0.27 * extent[2],
        ]
        far = blob(head.brain.shape, centre, np.eye(3)) * head.spacing_mm
        eyes = np.maximum(eyes, 0.5 + 0.5 * np.tanh((_EYE_MM - far) / (0.6 * head.spacing_mm)))
    eyes = (eyes * ~head.brain).astype(np.float32)
    return {
        **{tissue: (share * (1 - eyes)).astype(np.float32) for tissue, share in shares.items()},
        Tissue.EYE: eyes,
    }
