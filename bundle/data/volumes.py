"""Reading the files of one case, and reporting what is wrong with them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage

from bundle.data.forms import NO_FORMS, Forms, read_forms

_UNREADABLE = (
    OSError,
    EOFError,
    MemoryError,
    ValueError,
    TypeError,
    zlib.error,
    ImageFileError,
    HeaderDataError,
)


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
    """

    voxels: dict[str, np.ndarray]
    grid: Grid | None
    blank: list[str]


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
    blank: list[str] = []
    problems: list[str] = []
    for name, path in files.items():
        try:
            volume = read_volume(path, case)
        except CaseError as error:
            problems.append(str(error))
            continue
        grids[Path(path)] = volume.grid
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
    return CaseVolumes(voxels, next(iter(grids.values()), None), blank)


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
    return _grid_of(_open(Path(path), case), Path(path), case)


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
        distance_mm = _corner_distance_mm(expected, found)
        if distance_mm > tolerance_mm:
            wanted = f"corner voxels within {tolerance_mm} mm"
            raise CaseError(
                _grid_message(case, first, path, wanted, f"{distance_mm:.3g} mm", "apart")
            )


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
    image = _read(path, case)
    if inspect is not None:
        inspect(image)
    grid = _grid_of(image, path, case)
    return Volume(_finite_voxels(image, path, case).reshape(grid.shape), grid)


def count_volumes(path: str | Path, case: str) -> int:
    """Count the volumes in a file: 1 for a 3D file, the length of the fourth dimension else.

    Raises:
        CaseError: the file does not exist or is no NIfTI file.
    """
    shape = _open(Path(path), case).shape
    return int(shape[3]) if len(shape) > 3 else 1


def read_volumes(path: str | Path, case: str, count: int) -> Volume:
    """Read a 4D file once as (count, D, H, W) float32, and the grid that its volumes share.

    Raises:
        CaseError: as `read_volume`, and for a file that does not hold `count` volumes.
    """
    path = Path(path)
    image = _read(path, case)
    shape = tuple(int(n) for n in image.shape)
    if len(shape) != 4 or shape[3] != count:
        raise CaseError(
            f"case {case}: {path.name} must have 4 dimensions, the last of length {count}, "
            f"one for each modality; got shape {shape}. Split it into one file for each modality."
        )
    voxels = np.ascontiguousarray(np.moveaxis(_finite_voxels(image, path, case), 3, 0))
    return Volume(voxels, Grid(shape[:3], _affine_of(image, path, case), read_forms(image)))


def is_blank(voxels: np.ndarray) -> bool:
    """True = one value wherever it is not 0, or 0 everywhere: the modality counts as absent."""
    inside = voxels[voxels != 0]
    return bool((inside == inside[0]).all()) if inside.size else True


def _open(path: Path, case: str) -> SpatialImage:
    """Open a file for its header; nibabel reads voxels when they are asked for."""
    _check_exists(path, case)
    try:
        return nib.load(path)
    except _UNREADABLE as error:
        raise _unreadable(path, case, error) from error


def _read(path: Path, case: str) -> SpatialImage:
    """Read a whole file into memory, to the checksum at the end of a packed one.

    nibabel itself stops at the last voxel, and so takes a damaged file for a good one.
    """
    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        return _open(path, case)  # other formats that nibabel knows
    _check_exists(path, case)
    try:
        # Not gzip.decompress, whose messages say less of what is wrong.
        with gzip.open(path) if name.endswith(".gz") else path.open("rb") as file:
            content = BytesIO(file.read())
        content.name = str(path)  # for nibabel's messages
        for kind in (nib.Nifti1Image, nib.Nifti2Image):
            if kind.header_class.may_contain_header(content.getbuffer()):
                return kind.from_stream(content)
        raise ImageFileError("it does not begin with a NIfTI header")
    except _UNREADABLE as error:
        raise _unreadable(path, case, error) from error


def _check_exists(path: Path, case: str) -> None:
    if not path.is_file():
        raise CaseError(
            f"case {case}: file {path} does not exist. "
            "Correct the path, or drop its key from the datalist."
        )


def _grid_of(image: SpatialImage, path: Path, case: str) -> Grid:
    shape = _shape_3d(tuple(int(n) for n in image.shape), path, case)
    return Grid(shape, _affine_of(image, path, case), read_forms(image))


def _affine_of(image: SpatialImage, path: Path, case: str) -> np.ndarray:
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or np.linalg.det(affine[:3, :3]) == 0:
        raise CaseError(
            f"case {case}: {path.name} has no usable affine, got {affine.tolist()}. "
            "Copy the header of another modality of the case into it."
        )
    return affine


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


def _shape_3d(shape: tuple[int, ...], path: Path, case: str) -> tuple[int, ...]:
    spatial, rest = shape[:3], shape[3:]
    if len(spatial) < 3 or any(length != 1 for length in rest) or 0 in spatial:
        raise CaseError(
            f"case {case}: {path.name} must be one 3D volume, got shape {shape}. "
            "Split it into one file for each modality."
        )
    return spatial


def _corner_distance_mm(first: Grid, second: Grid) -> float:
    corners = np.array([(*at, 1) for at in product(*[(0, n - 1) for n in first.shape])])
    shift_mm = corners @ (first.affine - second.affine).T
    return float(np.linalg.norm(shift_mm[:, :3], axis=1).max())


def _grid_message(
    case: str, first: Path, path: Path, expected: object, found: object, unit: str
) -> str:
    return (
        f"case {case}: all files must share one voxel grid. "
        f"Expected {expected} as in {Path(first).name}, got {found} {unit} in {Path(path).name}. "
        f"Resample {Path(path).name}, or drop its key from the datalist: "
        "the case then counts as lacking it."
    )
