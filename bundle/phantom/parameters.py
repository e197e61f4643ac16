"""The parameters of a phantom data set: their defaults, and what each may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bundle.modalities import check_modalities
from bundle.phantom.case import check_size_and_difficulty
from bundle.phantom.naming import check_naming, check_sections

# Raise one whenever the same parameters give other voxels: an old folder, or an old result, is then
# not taken for new.
VERSIONS = {"icbm152": 2, "simple": 1}

# What each anatomy takes, and its defaults.
ANATOMIES: Mapping[str, Mapping[str, Any]] = {
    "icbm152": {
        "spacing_mm": (3.0, 3.0, 3.0),
        "grid": "brain",
        "head": False,
        "thick_slices": False,
        "scanner_seed": None,
    },
    "simple": {"spacing_mm": (2.0, 2.0, 2.0), "size": 48, "difficulty": 1.0},
}
GRIDS = ("brain", "brats")
# Whole cases of 1 mm take half a minute; above 6 mm nothing is left of a tumour.
FINEST_MM, COARSEST_MM = 1.0, 6.0


def parameters_of(
    anatomy: str,
    sections: Mapping[str, int],
    modalities: Sequence[str],
    seed: int,
    orientation: str,
    naming: str,
    **options: Any,
) -> dict[str, Any]:
    """Check the arguments of `write_phantom` and put them as JSON gives them back.

    Args:
        anatomy, sections, modalities, seed, orientation, naming: as there.
        options: of one anatomy; None = its default.

    Raises:
        ValueError: the first parameter that is out of range or that the anatomy does not take, with
            what was expected.
    """
    own = options_of(anatomy, options)
    check_sections(sections)
    spacing = own.pop("spacing_mm")
    slab_of(spacing)
    spacing = [float(s) for s in spacing]
    check_modalities(modalities)
    check_naming(naming, modalities)
    check_orientation(orientation)
    if anatomy == "simple":
        check_size_and_difficulty(own["size"], own["difficulty"])
    else:
        check_anatomical(spacing, orientation, **own)
    return {
        "version": VERSIONS[anatomy],
        "anatomy": anatomy,
        "sections": dict(sections),
        "spacing_mm": spacing,
        "modalities": list(modalities),
        "seed": seed,
        "orientation": orientation,
        "naming": naming,
        **own,
    }


def options_of(anatomy: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in an anatomy's own defaults, and refuse what only another anatomy takes."""
    if anatomy not in ANATOMIES:
        raise ValueError(f"anatomy: expected one of {list(ANATOMIES)}, got {anatomy!r}")
    defaults = ANATOMIES[anatomy]
    foreign = [
        name for name, value in options.items() if value is not None and name not in defaults
    ]
    if foreign:
        owner = next(name for name, own in ANATOMIES.items() if foreign[0] in own)
        raise ValueError(
            f"anatomy {anatomy}: expected options out of {list(defaults)}, got {foreign[0]!r}, "
            f"which is one of anatomy {owner}. Leave it out, or choose --anatomy {owner}."
        )
    given = {name: value for name, value in options.items() if value is not None}
    return {**defaults, **given}


def check_anatomical(
    spacing_mm: Sequence[float],
    orientation: str,
    grid: str,
    head: bool,
    thick_slices: bool,
    scanner_seed: int | None,
) -> None:
    """Refuse what a head with real anatomy cannot have."""
    if not all(FINEST_MM <= s <= COARSEST_MM for s in spacing_mm):
        raise ValueError(
            f"anatomy icbm152: expected voxel sizes from {FINEST_MM:g} to {COARSEST_MM:g} mm, got "
            f"{list(spacing_mm)}"
        )
    if grid not in GRIDS:
        raise ValueError(f"grid: expected one of {list(GRIDS)}, got {grid!r}")
    if grid == "brats" and (list(spacing_mm) != [1, 1, 1] or orientation != "LPS"):
        raise ValueError(
            f"grid brats: expected voxels of 1 mm and orientation LPS, as BraTS has them, got "
            f"{list(spacing_mm)} mm and {orientation}"
        )
    if scanner_seed is not None and scanner_seed < 0:
        raise ValueError(f"scanner_seed: expected a whole number from 0 on, got {scanner_seed}")


def check_orientation(orientation: str) -> None:
    """Refuse an orientation that is not one letter for each axis of the body."""
    axes = ({"L", "R"}, {"A", "P"}, {"S", "I"})
    if len(orientation) != 3 or any(not axis & set(orientation) for axis in axes):
        raise ValueError(
            f"expected an orientation of three letters, one each of L or R, A or P, S or I, "
            f"such as 'LPS', got {orientation!r}"
        )


def slab_of(spacing_mm: Sequence[float]) -> tuple[int, ...]:
    """Say how many of the smallest voxels each axis merges into one: (2, 2, 6) mm is (1, 1, 3)."""
    spacing = np.asarray(spacing_mm, dtype=float)
    if spacing.shape != (3,) or not (spacing > 0).all():
        raise ValueError(f"expected three voxel sizes above 0 mm, got {list(spacing_mm)}")
    slab = np.rint(spacing / spacing.min()).astype(int)
    if not np.allclose(slab * spacing.min(), spacing):
        raise ValueError(
            f"expected voxel sizes that are whole multiples of the smallest, such as 2, 2, 6 mm, "
            f"got {list(spacing_mm)}"
        )
    return tuple(slab.tolist())
