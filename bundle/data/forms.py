"""Where a NIfTI header says that its voxels lie: qform, sform, their codes, and the unit.

The two may differ, and viewers do not agree on which to follow. A volume on the grid of a scan is
shown where the scan is by all of them if it has both as the scan has them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.spatialimages import SpatialImage

# The low bits of `xyzt_units`; the others are the unit of time.
_UNIT_BITS = 7


class Forms(NamedTuple):
    """The forms of one header.

    Attributes:
        affines: (2, 4, 4) float64, qform and sform as stored, in the file's unit; zeros where the
            code is 0.
        codes: (3,) int64, the codes of qform and sform, and the code of the unit of space (0 =
            unknown, 1 = metre, 2 = millimetre, 3 = micrometre).
    """

    affines: np.ndarray
    codes: np.ndarray


# Of a file in a format without forms.
NO_FORMS = Forms(np.zeros((2, 4, 4)), np.full(3, -1, dtype=np.int64))


def read_forms(image: SpatialImage) -> Forms:
    """Read the forms of a volume; `NO_FORMS` if its format is not NIfTI.

    A quaternion that is none counts as a qform with code 0.
    """
    header = image.header
    # The base of all of NIfTI's headers: of one file and of two, of version 1 and 2.
    if not isinstance(header, Nifti1Header):
        return NO_FORMS
    affines, codes = np.zeros((2, 4, 4)), []
    for place, read in enumerate((header.get_qform, header.get_sform)):
        try:
            affine, code = read(coded=True)
        except ValueError:
            affine, code = None, 0
        usable = affine is not None and bool(np.isfinite(affine).all())
        affines[place] = affine if usable else 0
        codes.append(int(code) if usable else 0)
    unit = int(header["xyzt_units"]) & _UNIT_BITS
    return Forms(affines, np.array([*codes, unit], dtype=np.int64))


def apply_forms(image: Nifti1Image, forms: Forms) -> None:
    """Give a volume the forms and the unit of another one on the same grid, in place.

    Args:
        image: its own affine is what is left where both codes are 0.
        forms: from `read_forms`; `NO_FORMS` = both forms become the image's affine, code 1.
    """
    qform, sform, unit = (int(code) for code in forms.codes)
    if unit < 0:
        image.set_sform(image.affine, code=1)
        image.set_qform(image.affine, code=1)
        return
    image.set_sform(forms.affines[1] if sform > 0 else None, code=sform)
    # Last: it sets the voxel sizes in the header, too.
    image.set_qform(forms.affines[0] if qform > 0 else None, code=qform)
    image.header["xyzt_units"] = unit
