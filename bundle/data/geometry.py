"""What a file's header says: how many voxels, of which kind, and where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from bundle.data.forms import NO_FORMS, Forms, read_forms

# Edges in mm that no scanner of the living has: in metres a voxel has 0.001, in micrometres 1000.
_LEAST_EDGE_MM, _LARGEST_EDGE_MM = 0.02, 50.0
_FACTORS = {
    "meter": ("metres", "multiply it by 1000"),
    "micron": ("micrometres", "divide it by 1000"),
}


class CaseError(ValueError):
    """What is wrong with one case, one problem a line, each naming the case and the file."""


@dataclass(frozen=True)
class Grid:
    """Where a file's voxels lie.

    Args:
        shape: (D, H, W) voxels, the axes as stored.
        affine: (4, 4) float, voxel indices to millimetres.
        forms: what the header says of it, for whatever is written on the same grid.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    forms: Forms = NO_FORMS

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """The voxel size along each stored axis, in millimetres."""
        return tuple(float(size) for size in nib.affines.voxel_sizes(self.affine))

    @property
    def forms_mm(self) -> float:
        """How far apart qform and sform put a corner voxel, in millimetres; `affine` is the sform.

        0 = the header has only one of them.
        """
        qform, sform = self.forms.affines
        is_both = min(self.forms.codes[:2]) > 0
        return corner_distance_mm(self.shape, qform, sform) if is_both else 0.0


def check_grids(grids: Mapping[Path, Grid], case: str, tolerance_mm: float = 0.1) -> None:
    """Refuse files of one case that do not share the first file's voxel grid.

    Affines are compared by how far apart they put the volume's corners, not entry by entry: an
    entry of the rotation part acts over a whole side of the volume, one of the translation once.
    Label files whose affine comes from the quaternion (sform code 0) pass, rounding and all.

    Args:
        grids: each file's grid; the first one is the reference.
        case: the case the files belong to, for the message.
        tolerance_mm: how far apart a corner voxel may lie, in millimetres.

    Raises:
        CaseError: naming the two files and what differs.
    """
    if not grids:
        return
    first, *others = grids
    for path in others:
        expected, found = grids[first], grids[path]
        if found.shape != expected.shape:
            raise CaseError(_grid_message(case, first, path, expected.shape, found.shape, "voxels"))
        distance_mm = corner_distance_mm(expected.shape, expected.affine, found.affine)
        if distance_mm > tolerance_mm:
            wanted = f"corner voxels within {tolerance_mm} mm"
            raise CaseError(
                _grid_message(case, first, path, wanted, f"{distance_mm:.3g} mm", "apart")
            )


def grid_of(image: SpatialImage, path: Path, case: str) -> Grid:
    """Read shape and affine of a file that holds one volume.

    Args:
        image: the opened file; further dimensions of length 1 are ignored.
        path: its path, for the message.
        case: the case it belongs to, for the message.

    Raises:
        CaseError: several volumes, colours or complex numbers, or no usable affine in millimetres.
    """
    _, count = shape_of(image, path, case)
    if count != 1:
        raise CaseError(
            f"case {case}: {path.name} must be one 3D volume, got shape {_sizes(image)}. "
            "Split it: one file for each modality, and for a label one file of label values."
        )
    return shared_grid(image, path, case)


def shared_grid(image: SpatialImage, path: Path, case: str) -> Grid:
    """Read shape and affine of the volumes in a file, however many there are.

    Raises:
        CaseError: as `grid_of`, but for the number of volumes.
    """
    shape, _ = shape_of(image, path, case)
    check_numbers(image, path, case)
    affine = _affine_of(image, path, case)
    return Grid(shape, affine, read_forms(image))


def shape_of(image: SpatialImage, path: Path, case: str) -> tuple[tuple[int, ...], int]:
    """Return (D, H, W) and the number of volumes.

    Volumes lie along the fourth dimension, or along the fifth where ITK, SimpleITK or 3D Slicer
    wrote vectors: (x, y, z, 1, n).

    Raises:
        CaseError: fewer than 3 dimensions, none of any length, or volumes along two dimensions.
    """
    sizes = _sizes(image)
    spatial, rest = sizes[:3], [length for length in sizes[3:] if length != 1]
    if len(spatial) < 3 or 0 in sizes or len(rest) > 1:
        raise CaseError(
            f"case {case}: {path.name} must be one 3D volume, or volumes along one more dimension, "
            f"(x, y, z, n) or (x, y, z, 1, n); got shape {sizes}. "
            "Split it into one file for each modality."
        )
    return spatial, rest[0] if rest else 1


def check_numbers(image: SpatialImage, path: Path, case: str) -> None:
    """Refuse voxels that are no plain numbers.

    Raises:
        CaseError: colours (RGB, RGBA), or complex numbers, whose phase would be lost.
    """
    dtype = image.get_data_dtype()
    if dtype.names is not None:
        raise CaseError(
            f"case {case}: {path.name} holds colours ({', '.join(dtype.names)}) in each voxel, "
            "expected one number. It is a picture made for viewing: give the scan or the label "
            "that it was made from."
        )
    if dtype.kind == "c":
        raise CaseError(
            f"case {case}: {path.name} holds complex numbers, expected one real number in each "
            "voxel. Give the magnitude image."
        )


def corner_distance_mm(shape: tuple[int, ...], first: np.ndarray, second: np.ndarray) -> float:
    """Measure how far apart two affines (4, 4) put a corner voxel of a volume, at most, in mm."""
    corners = np.array([(*at, 1) for at in product(*[(0, n - 1) for n in shape])])
    shift_mm = corners @ (first - second).T
    return float(np.linalg.norm(shift_mm[:, :3], axis=1).max())


def _sizes(image: SpatialImage) -> tuple[int, ...]:
    return tuple(int(n) for n in image.shape)


def _affine_of(image: SpatialImage, path: Path, case: str) -> np.ndarray:
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or np.linalg.det(affine[:3, :3]) == 0:
        raise CaseError(
            f"case {case}: {path.name} has no usable affine, got {affine.tolist()}. "
            "Copy the header of another modality of the case into it."
        )
    edges = nib.affines.voxel_sizes(affine)
    text = " x ".join(f"{edge:.3g}" for edge in edges)
    unit = _unit_of(image)
    if unit in _FACTORS:
        name, way = _FACTORS[unit]
        raise CaseError(
            f"case {case}: the header of {path.name} gives places in {name} (xyzt_units), with "
            f"voxels of {text}. Expected millimetres. Convert the affine ({way}) and set the unit "
            "to mm; if its numbers are millimetres already, correct the unit alone."
        )
    if edges.max() < _LEAST_EDGE_MM or edges.min() > _LARGEST_EDGE_MM:
        raise CaseError(
            f"case {case}: {path.name} has voxels of {text} mm. Expected edges from "
            f"{_LEAST_EDGE_MM} to {_LARGEST_EDGE_MM:g} mm: the header seems to be in another unit. "
            "Convert its affine to millimetres."
        )
    return affine


def _unit_of(image: SpatialImage) -> str:
    try:
        return str(image.header.get_xyzt_units()[0])
    except (AttributeError, KeyError):  # another format, or a code that NIfTI does not know
        return "unknown"


def _grid_message(
    case: str, first: Path, path: Path, expected: object, found: object, unit: str
) -> str:
    return (
        f"case {case}: all files must share one voxel grid. "
        f"Expected {expected} as in {Path(first).name}, got {found} {unit} in {Path(path).name}. "
        f"Resample {Path(path).name}, or drop its key from the datalist: "
        "the case then counts as lacking it."
    )
