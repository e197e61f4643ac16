"""The demonstration's data: the phantom, with modalities missing, made when first asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bundle.data.degrade import degrade
from bundle.data.phantom import DEFAULT_SECTIONS, ensure_phantom
from bundle.modalities import BRATS_MODALITIES


def phantom_with_gaps(
    folder: str,
    ratio: float,
    sections: Sequence[str],
    modalities: Sequence[str] = BRATS_MODALITIES,
    seed: int = 0,
    counts: Mapping[str, int] = DEFAULT_SECTIONS,
    size: int = 48,
) -> str:
    """Return a datalist of phantom cases with fixed absence; write what is not there yet.

    Args:
        folder: where the phantom lies or is to lie.
        ratio: chance, 0 to 1, that a modality of a case is missing for good.
        sections: the sections with gaps, e.g. ["training"]; the others stay complete.
        modalities: the vocabulary.
        seed: of phantom and absence.
        counts: cases in each section.
        size: edge of the cube, voxels.

    Returns:
        The path of the datalist, in `folder`.
    """
    whole = ensure_phantom(folder, sections=counts, size=size, modalities=modalities, seed=seed)
    path = Path(folder) / f"datalist_{'_'.join(sections)}_missing_{ratio:g}.json"
    degrade(whole, path, ratio=ratio, sections=sections, seed=seed, modalities=modalities)
    return str(path)
