"""The demonstration's data: the phantom with modalities missing, written on first use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bundle.data.degrade import degrade
from bundle.modalities import BRATS_MODALITIES
from bundle.phantom.data_set import DEFAULT_SECTIONS, ensure_phantom


def phantom_with_gaps(
    folder: str,
    ratio: float,
    sections: Sequence[str],
    modalities: Sequence[str] = BRATS_MODALITIES,
    seed: int = 0,
    counts: Mapping[str, int] = DEFAULT_SECTIONS,
    anatomy: str = "icbm152",
    size: int | None = None,
    absence_seed: int | None = None,
) -> str:
    """Return a datalist of phantom cases with fixed absence; write what is not there yet.

    Args:
        folder: where the phantom lies or is to lie.
        ratio: chance, 0 to 1, that a modality of a case is missing for good.
        sections: the sections with gaps, e.g. ["training"]; the others stay complete.
        modalities: the vocabulary.
        seed: of the phantom, and of the absence unless that has a seed of its own.
        counts: cases in each section.
        anatomy: 'icbm152' or 'simple', see `write_phantom`.
        size: edge of the cube, voxels, of a simple one; None = 48.
        absence_seed: of the absence alone, so that one phantom can lack different modalities.

    Returns:
        The path of the datalist, in `folder`.
    """
    whole = ensure_phantom(
        folder, sections=counts, anatomy=anatomy, size=size, modalities=modalities, seed=seed
    )
    own_seed = "" if absence_seed is None else f"_seed_{absence_seed}"
    path = Path(folder) / f"datalist_{'_'.join(sections)}_missing_{ratio:g}{own_seed}.json"
    drawn_with = seed if absence_seed is None else absence_seed
    degrade(whole, path, ratio=ratio, sections=sections, seed=drawn_with, modalities=modalities)
    return str(path)
