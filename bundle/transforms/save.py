"""Writing NIfTI files that lie where the scans lie, whichever way their axes go."""

from __future__ import annotations

import gzip
import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import NdarrayOrTensor, PathLike
from monai.data import NibabelWriter

from bundle.atomic import written_atomically
from bundle.data.forms import NO_FORMS, Forms, apply_forms
from bundle.data.marks import mark_of

logger = logging.getLogger(__name__)

# As nibabel packs: label maps grow by a few per cent, and are written several times faster.
_PACKING = 1


class InPlaceWriter(NibabelWriter):
    """MONAI's NIfTI writer without its resampling: for SaveImaged's `writer`, with `resample` off.

    Even then MONAI 1.6 computes the grid to resample to, and counts one spatial axis too few: it
    asks for the inverse of the affine's first two axes alone, and writes nothing of a volume in
    sagittal slices, where these two have none.

    It differs from MONAI's in four more ways. A volume of one slice keeps its three dimensions. The
    header has the qform, the sform, their codes and the unit of the scan, which
    `bundle.transforms.load.LoadModalitiesd` leaves in the metadata; without them, or off the scan's
    grid, both forms are the affine. The file is complete or not there at all. And what is there is
    not overwritten.

    Args:
        output_dtype: as the file holds the values.
        kind: one of `bundle.data.marks.WRITTEN`: the header's description says so; None = no mark.
        overwrite: True = a file of this name is replaced; False = it is refused.
    """

    def __init__(
        self,
        output_dtype: Any = np.float32,
        kind: str | None = None,
        overwrite: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(output_dtype=output_dtype, **kwargs)
        self.description = "" if kind is None else mark_of(kind)
        self.overwrite = overwrite
        self.forms = NO_FORMS

    def set_data_array(
        self,
        data_array: NdarrayOrTensor,
        channel_dim: int | None = 0,
        squeeze_end_dims: bool = True,
        **kwargs: Any,
    ) -> None:
        """Take a volume (C, D, H, W): the file gets (D, H, W), or (D, H, W, C) for several C."""
        moved = self.convert_to_channel_last(data_array, channel_dim, squeeze_end_dims=False)
        self.data_obj = moved[..., 0] if moved.shape[-1] == 1 else moved

    def set_metadata(
        self, meta_dict: Mapping[str, Any] | None, resample: bool = False, **options: Any
    ) -> None:
        """Take the affine, and the forms if the volume lies on the grid that was loaded.

        Raises:
            ValueError: a resampling was asked for.
        """
        super().set_metadata(meta_dict, resample=resample, **options)
        self.forms = _forms_of(meta_dict or {})

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

    def write(self, filename: PathLike, verbose: bool = False, **kwargs: Any) -> None:
        """Write the file.

        Raises:
            FileExistsError: there is one of this name, and `overwrite` is False.
            OSError: the folder cannot be written to, or the disk is full; nothing is left then.
        """
        path = Path(filename)
        if verbose:
            logger.info(f"writing: {path}")
        if not self.overwrite and os.path.lexists(path):
            raise FileExistsError(
                f"{path} is there already and is not overwritten. Give another --output_dir, or "
                "--overwrite true."
            )
        image = self.create_backend_obj(
            self.data_obj, affine=self.affine, dtype=self.output_dtype, **kwargs
        )
        apply_forms(image, self.forms)
        image.header["descrip"] = self.description.encode("ascii")
        with written_atomically(path) as file:
            if not path.name.endswith(".gz"):
                image.to_stream(file)
                return
            with gzip.GzipFile("", "wb", _PACKING, file, mtime=0) as packed:
                image.to_stream(packed)


def in_place_writer(kind: str, overwrite: bool = False) -> Callable[..., InPlaceWriter]:
    """Return what SaveImaged takes as `writer`; the arguments are `InPlaceWriter`'s."""
    mark_of(kind)  # a wrong kind is said before a case is segmented
    return partial(InPlaceWriter, kind=kind, overwrite=overwrite)


def _forms_of(meta: Mapping[str, Any]) -> Forms:
    """Read the forms that the loader left, unless the volume lies on another grid by now."""
    names = ("forms", "form_codes", "affine", "original_affine")
    if any(meta.get(name) is None for name in names):
        return NO_FORMS
    # A host may have moved the metadata to a GPU.
    affines, codes, now, loaded = (torch.as_tensor(meta[name]).cpu().numpy() for name in names)
    return Forms(affines, codes) if np.allclose(now, loaded, atol=1e-3) else NO_FORMS
