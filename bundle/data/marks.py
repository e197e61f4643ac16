"""The mark in the header of every volume that inference writes, so that none passes for the truth.

It is the header's description (`descrip`, 80 bytes), which viewers show and most programs keep:
"patchwork 0.5.0 prediction".
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
from nibabel.spatialimages import SpatialImage

from bundle import __version__
from bundle.atomic import written_atomically

# How the names of written files end, and what their headers say.
WRITTEN: Mapping[str, str] = {
    "pred": "prediction",
    "probabilities": "probabilities",
    "rebuilt": "rebuilt scan",
    "uncertainty": "uncertainty",
}
_MARK = re.compile(rf"^patchwork \S+ ({'|'.join(WRITTEN.values())})\b")


def mark_of(kind: str) -> str:
    """Return the description of a written volume.

    Args:
        kind: how the file's name ends, one of `WRITTEN`.
    """
    return f"patchwork {__version__} {WRITTEN[kind]}"


def description_of(image: SpatialImage) -> str:
    """Read the description of a volume's header; "" in formats that have none."""
    try:
        field = bytes(image.header["descrip"])
    except (KeyError, ValueError, TypeError, IndexError):
        return ""
    return field.split(b"\0")[0].decode("latin-1").strip()


def is_marked(description: str) -> bool:
    """True = inference of this bundle, of any version, wrote the volume that says this."""
    return _MARK.match(description) is not None


def accept(path: str | Path) -> str:
    """Take the mark off a volume that a person has corrected, so that it may serve as ground truth.

    The description becomes "accepted, was patchwork 0.5.0 prediction"; nothing else changes.

    Args:
        path: a NIfTI file, packed (.gz) or not.

    Returns:
        The description that the file had.

    Raises:
        ValueError: it is no NIfTI file, or has no mark.
        OSError: it cannot be read or written.
    """
    path = Path(path)
    packed = path.name.lower().endswith(".gz")
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    place = _place_of_description(content, path)
    old = bytes(content[place]).split(b"\0")[0].decode("latin-1").strip()
    if not is_marked(old):
        raise ValueError(
            f"{path} has no mark of a written volume, its description is {old!r}. It may be read "
            "as ground truth as it is."
        )
    content[place] = f"accepted, was {old}".encode("latin-1")[:79].ljust(80, b"\0")
    with written_atomically(path) as file:
        file.write(gzip.compress(content, 1, mtime=0) if packed else content)
    return old


def _place_of_description(content: bytearray, path: Path) -> slice:
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        if kind.header_class.may_contain_header(bytes(content[:540])):
            start = kind.header_class.template_dtype.fields["descrip"][1]
            return slice(start, start + 80)
    raise ValueError(f"{path}: expected a NIfTI file, which begins with its header")
