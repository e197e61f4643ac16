"""One phantom case in memory: a head, and an image of it for each modality."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bundle.modalities import BRATS_MODALITIES
from bundle.phantom.anatomy import WITHOUT_RIM_SHARE, grow_anatomy
from bundle.phantom.contrast import acquire, develop, draw_tissues

WITHOUT_RIM_SHARE_OF_HEADS = 0.1


def make_case(
    seed: int,
    size: int = 48,
    modalities: Sequence[str] = BRATS_MODALITIES,
    difficulty: float = 1.0,
    slab: Sequence[int] = (1, 1, 1),
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Make one case in memory.

    Args:
        seed: the case's only source of randomness.
        size: edge of the cube, voxels, at least 24.
        modalities: names; the BraTS ones under any of their suffixes look as they should, any other
            gets a contrast of its own. A modality looks the same whatever others are asked for.
        difficulty: 0..1. 1 lowers the tumour's contrast, raises noise and bias, blurs the oedema's
            edge and adds what merely looks like tumour; 0 is easy.
        slab: voxels that are averaged into one along each axis, for thick slices; the size shrinks
            accordingly.

    Returns:
        images: modality to (D, H, W) float32 whole numbers, at least 1 in the brain, 0 outside.
        labels: (D, H, W) uint8, 0 background, 1 necrotic or solid core, 2 oedema, 4 enhancing rim.

    Raises:
        ValueError: a difficulty outside 0..1, or a size below 24 voxels.
    """
    check_size_and_difficulty(size, difficulty)
    anatomy = grow_anatomy(np.random.default_rng([seed, 0]), size, has_rim(seed), difficulty)
    tissues = draw_tissues(np.random.default_rng([seed, 1]), difficulty)
    brain = thicken(anatomy.host > 0, slab)
    images = {}
    for modality in modalities:
        rng = np.random.default_rng([seed, 2, *modality.encode()])
        clean = acquire(rng, anatomy, modality, tissues, difficulty)
        images[modality] = develop(rng, thicken(clean, slab), brain, difficulty)
    return images, thicken(anatomy.labels, slab)


def check_size_and_difficulty(size: int, difficulty: float) -> None:
    """Refuse a size or a difficulty that no case can have."""
    if not 0 <= difficulty <= 1:
        raise ValueError(f"expected a difficulty from 0 (easy) to 1 (hard), got {difficulty}")
    if size < 24:
        raise ValueError(
            f"expected a size of at least 24 voxels, got {size}: the rim would fill the core"
        )


def has_rim(seed: int, anatomy: str = "simple") -> bool:
    """Say whether the case of this seed has an enhancing rim.

    About one ellipsoid in four has none, and one head in ten, which is more than in BraTS.
    """
    without = WITHOUT_RIM_SHARE if anatomy == "simple" else WITHOUT_RIM_SHARE_OF_HEADS
    return bool(np.random.default_rng([seed, 3]).random() >= without)


def thicken(volume: np.ndarray, slab: Sequence[int]) -> np.ndarray:
    """Merge slabs of voxels into one: the mean of a float volume, the middle voxel of any other."""
    counts = [n // s for n, s in zip(volume.shape, slab, strict=True)]
    blocks = volume[tuple(slice(n * s) for n, s in zip(counts, slab, strict=True))]
    blocks = blocks.reshape([edge for pair in zip(counts, slab, strict=True) for edge in pair])
    if np.issubdtype(volume.dtype, np.floating):
        return blocks.mean((1, 3, 5))
    return blocks[:, slab[0] // 2, :, slab[1] // 2, :, slab[2] // 2]
