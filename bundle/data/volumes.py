"""Reading the files of one case, and reporting what is wrong with them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage

from bundle.data.geometry import (
    CaseError,
    Grid,
    check_grids,
    grid_of,
    shape_of,
    shared_grid,
)
from bundle.data.nifti_bytes import check_voxels, is_nifti, open_nifti

_UNREADABLE = (
    OSError,
    EOFError,
    MemoryError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    zlib.error,
    ImageFileError,
    HeaderDataError,
)


class Volume(NamedTuple):
    """What one file holds.

    Attributes:
        voxels: (D, H, W) float32, the file's scaling applied.
        grid: where the voxels lie.
    """

    voxels: np.ndarray
    grid: Grid


class CaseVolumes(NamedTuple):
    """What the volumes of one case hold.

    Attributes:
        voxels: modality -> (D, H, W) float32, blank ones left out.
        grid: the voxel grid that all files share; None = the case has no file.
        blank: the modalities whose volume is constant, so that they count as absent.
        forms_mm: modality -> how far apart its header's qform and sform are, see `Grid`.
    """

    voxels: dict[str, np.ndarray]
    grid: Grid | None
    blank: list[str]
    forms_mm: dict[str, float]


def read_case(
    files: Mapping[str, str | Path],
    case: str,
    others: Mapping[Path, Grid] | None = None,
    keep: bool = True,
    look: Callable[[str, np.ndarray], None] | None = None,
) -> CaseVolumes:
    """Read the volumes of a case, each file once, and check them.

    Args:
        files: modality -> a NIfTI file of 3 dimensions.
        case: the case's name, for the messages.
        others: the grids of further files of the case, which must be the images' grid.
        keep: False = return no voxels, so that a check holds one volume at a time.
        look: is handed each modality and its voxels (D, H, W) as it is read, unless it is blank.

    Raises:
        CaseError: one line for each problem of the case; see `read_volume` and `check_grids`.
    """
    voxels: dict[str, np.ndarray] = {}
    grids: dict[Path, Grid] = {}
    forms_mm: dict[str, float] = {}
    blank: list[str] = []
    problems: list[str] = []
    for name, path in files.items():
        try:
            volume = read_volume(path, case)
        except CaseError as error:
            problems.append(str(error))
            continue
        grids[Path(path)] = volume.grid
        forms_mm[name] = volume.grid.forms_mm
        if is_blank(volume.voxels):
            blank.append(name)
            continue
        if look is not None:
            look(name, volume.voxels)
        if keep:
            voxels[name] = volume.voxels
    try:
        check_grids({**grids, **(others or {})}, case)
    except CaseError as error:
        problems.append(str(error))
    if problems:
        raise CaseError("\n".join(problems))
    return CaseVolumes(voxels, next(iter(grids.values()), None), blank, forms_mm)


def blank_warning(case: str, name: str, path: str | Path) -> str:
    """Say that a blank volume counts as absent."""
    return f"case {case}: {path} is constant everywhere, so '{name}' counts as absent"


def read_grid(path: str | Path, case: str) -> Grid:
    """Read shape and affine from a file's header; the voxels are not touched.

    Args:
        path: a NIfTI file of 3 dimensions; further dimensions of length 1 are ignored.
        case: the case the file belongs to, for the message.

    Raises:
        CaseError: the file does not exist, is no NIfTI file, is not 3D, or has no usable affine.
    """
    return grid_of(_open(Path(path), case), Path(path), case)


def read_volume(
    path: str | Path, case: str, inspect: Callable[[SpatialImage], None] | None = None
) -> Volume:
    """Read a file once, to its end: voxels, voxel grid and, where it is packed, the checksum.

    Args:
        path: a NIfTI file of 3 dimensions; further dimensions of length 1 are ignored.
        case: the case the file belongs to, for the message.
        inspect: is handed the file's image before its voxels are used, and may refuse it.

    Raises:
        CaseError: as `read_grid`, and for a truncated or damaged file, NaN or infinite voxels.
    """
    path = Path(path)
    image = _open(path, case, whole=True)
    if inspect is not None:
        inspect(image)
    grid = grid_of(image, path, case)
    return Volume(_finite_voxels(image, path, case).reshape(grid.shape), grid)


def count_volumes(path: str | Path, case: str) -> int:
    """Count the volumes in a file: 1 for a 3D file, the length of the dimension behind else.

    Raises:
        CaseError: the file does not exist, is no NIfTI file, or has volumes along two dimensions.
    """
    return shape_of(_open(Path(path), case), Path(path), case)[1]


def read_volumes(path: str | Path, case: str, names: Sequence[str | None]) -> Volume:
    """Read a file of several volumes once, and the grid that they share.

    Args:
        path: a NIfTI file, (x, y, z, n), or (x, y, z, 1, n) as ITK writes vectors.
        case: the case the file belongs to, for the message.
        names: what each volume is, for the message.

    Returns:
        (n, D, H, W) float32 voxels, n = len(names).

    Raises:
        CaseError: as `read_volume`, and for a file that does not hold a volume for each name.
    """
    path = Path(path)
    image = _open(path, case, whole=True)
    shape, count = shape_of(image, path, case)
    if count != len(names):
        raise CaseError(
            f"case {case}: {path.name} holds {count} volumes, got shape {tuple(image.shape)}; "
            f"expected {len(names)}, one for each of {list(names)}. Name every volume once, in "
            "the file's order, or split it into one file for each modality."
        )
    grid = shared_grid(image, path, case)
    voxels = _finite_voxels(image, path, case).reshape(*shape, count)
    return Volume(np.ascontiguousarray(np.moveaxis(voxels, 3, 0)), grid)


def is_blank(voxels: np.ndarray) -> bool:
    """True = one value wherever it is not 0, or 0 everywhere: the modality counts as absent."""
    inside = voxels[voxels != 0]
    return bool((inside == inside[0]).all()) if inside.size else True


def _open(path: Path, case: str, whole: bool = False) -> SpatialImage:
    """Open a file for its header; whole = and read all of it, see `open_nifti`."""
    _check_exists(path, case)
    try:
        if is_nifti(path):
            return open_nifti(path, whole)
        image = nib.load(path)  # other formats that nibabel knows
        check_voxels(image.shape)
        return image
    except _UNREADABLE as error:
        raise _unreadable(path, case, error) from error


def _check_exists(path: Path, case: str) -> None:
    if not path.is_file():
        raise CaseError(
            f"case {case}: file {path} does not exist. "
            "Correct the path, or drop its key from the datalist."
        )


def _finite_voxels(image: SpatialImage, path: Path, case: str) -> np.ndarray:
    try:
        voxels = image.get_fdata(dtype=np.float32, caching="unchanged")
    except _UNREADABLE as error:
        raise _unreadable(path, case, error) from error
    bad = voxels.size - int(np.count_nonzero(np.isfinite(voxels)))
    if bad:
        raise CaseError(
            f"case {case}: {path.name} holds {bad} voxels that are NaN or infinite "
            f"of {voxels.size}. Export it again, or drop its key from the datalist."
        )
    return voxels


def _unreadable(path: Path, case: str, error: Exception) -> CaseError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CaseError(
        f"case {case}: {path} cannot be read as a NIfTI volume ({reason}). "
        "Copy or download it again, or drop its key from the datalist."
    )
