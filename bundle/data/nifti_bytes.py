"""Opening a NIfTI file without trusting the sizes that its header claims."""

from __future__ import annotations

import gzip
import math
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import SpatialImage

# Four volumes of 512 x 512 x 512; a BraTS case has four of nine million voxels.
LARGEST_VOXELS = 2**29
# Extensions of a header lie before the voxels; those of MRIcroGL or AFNI have some kilobytes.
_LARGEST_OFFSET = 2**26
# Some tools fill the last block up.
_MOST_BEHIND = 2**16
_PIECE = 2**22
_HEADER_BYTES = 540  # of NIfTI-2; NIfTI-1 has 348


def is_nifti(path: Path) -> bool:
    """True = by its name the file is NIfTI in one piece, packed or not."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def open_nifti(path: Path, whole: bool) -> SpatialImage:
    """Read a file into memory, as far as its header says that it goes.

    nibabel itself makes room for all voxels that a header claims, unpacks whatever a packed file
    holds, and stops at the last voxel, so that it takes a damaged file for a good one.

    Args:
        path: see `is_nifti`.
        whole: True = to the checksum at the end of a packed file; False = the header alone, whose
            claims are compared with the file's size where it is not packed.

    Raises:
        ImageFileError: no NIfTI file; more voxels than `LARGEST_VOXELS`; fewer bytes than the
            header claims, or over 64 KiB more.
        OSError, EOFError, zlib.error, ValueError, ArithmeticError: as gzip and nibabel raise them.
    """
    is_packed = path.name.lower().endswith(".gz")
    # Not gzip.decompress, whose messages say less of what is wrong.
    with gzip.open(path) if is_packed else path.open("rb") as file:
        start = file.read(_HEADER_BYTES)
        kind = _kind_of(start)
        offset, size = _claimed(kind, start)
        if not is_packed:
            _check_size(path.stat().st_size, offset + size)
        content = BytesIO(start)
        _read_on(file, content, offset + size + _MOST_BEHIND + 1 if whole else offset)
    if whole:
        _check_size(len(content.getbuffer()), offset + size)
    content.seek(0)
    content.name = str(path)  # for nibabel's messages
    return kind.from_stream(content)


def check_voxels(shape: tuple[int, ...]) -> None:
    """Refuse more voxels than any case has, before room is made for them.

    Raises:
        ImageFileError: more than `LARGEST_VOXELS`.
    """
    if math.prod(max(0, int(length)) for length in shape) > LARGEST_VOXELS:
        sizes = " x ".join(map(str, shape))
        raise ImageFileError(
            f"its header claims {sizes} voxels, expected at most {LARGEST_VOXELS} together"
        )


def _kind_of(start: bytes) -> type[nib.Nifti1Image]:
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        if kind.header_class.may_contain_header(start):
            return kind
    raise ImageFileError("it does not begin with a NIfTI header")


def _claimed(kind: type[nib.Nifti1Image], start: bytes) -> tuple[int, int]:
    """Return how many bytes a header claims: before the voxels, and for them."""
    length = kind.header_class.sizeof_hdr
    header = kind.header_class(start[:length])
    offset, shape = int(header.get_data_offset()), header.get_data_shape()
    if not 0 <= offset <= _LARGEST_OFFSET:
        raise ImageFileError(
            f"its header puts the voxels at byte {offset}, expected at most {_LARGEST_OFFSET}"
        )
    check_voxels(shape)
    voxels = math.prod(max(0, int(n)) for n in shape) if shape else 0
    itemsize = header.get_data_dtype().itemsize
    if not itemsize:
        raise ImageFileError(f"its header claims voxels of no bytes, of type {header['datatype']}")
    return max(offset, length), voxels * itemsize


def _read_on(file: BinaryIO, content: BytesIO, wanted: int) -> None:
    """Read until there are so many bytes; piece by piece, since Python makes room for all it asks.

    Args:
        file: stands behind what is in `content` already.
        content: is filled, and stands anywhere.
        wanted: how many bytes it holds in the end, if there are as many.
    """
    left = wanted - content.seek(0, SEEK_END)
    while left > 0 and (piece := file.read(min(left, _PIECE))):
        left -= content.write(piece)


def _check_size(held: int, claimed: int) -> None:
    if held < claimed:
        raise ImageFileError(f"it holds {held} bytes, its header claims {claimed}")
    if held > claimed + _MOST_BEHIND:
        raise ImageFileError(
            f"more than {_MOST_BEHIND} bytes lie behind its voxels, which end at byte {claimed}"
        )
