"""Writing NIfTI files whichever way their axes lie."""

from __future__ import annotations

from typing import Any

from monai.config import NdarrayOrTensor
from monai.data import NibabelWriter


class InPlaceWriter(NibabelWriter):
    """MONAI's NIfTI writer without its resampling: for SaveImaged's `writer`, with `resample` off.

    Even then MONAI 1.6 computes the grid to resample to, and counts one spatial axis too few: it
    asks for the inverse of the affine's first two axes alone, and writes nothing of a volume in
    sagittal slices, where these two have none.
    """

    @classmethod
    def resample_if_needed(
        cls,
        data_array: NdarrayOrTensor,
        affine: NdarrayOrTensor | None = None,
        target_affine: NdarrayOrTensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[NdarrayOrTensor, NdarrayOrTensor | None]:
        """Return values and affine as they are.

        Raises:
            ValueError: a resampling was asked for.
        """
        if target_affine is not None:
            raise ValueError("expected SaveImaged with resample off, because this writer cannot.")
        return data_array, affine
