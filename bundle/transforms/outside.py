"""Nothing outside the scans: where every modality of a case is exactly 0, a prediction is 0.

On the network's grid `bundle.inference.inferers.PresenceInferer` sees to it. Between that grid and
the one of the files, values are interpolated, and leak over the edge by up to a voxel of either.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from bundle.modalities import plain


def mark_nonzero(image: Tensor) -> Tensor:
    """Note for each voxel which modalities are not exactly 0 there, in one byte.

    Args:
        image: (M, D, H, W), M at most 8.

    Returns:
        (1, D, H, W) uint8, bit m = modality m is not 0.
    """
    marks = torch.zeros(1, *image.shape[1:], dtype=torch.uint8)
    for bit, volume in enumerate(plain(image)):
        marks[0] |= (volume != 0).to(torch.uint8) << bit
    return marks


class EmptyOutsided(MapTransform):
    """Set to 0 what lies where every present modality is exactly 0 in its file.

    Args:
        keys: volumes (C, D, H, W) on the grid of the files, such as probabilities after Invertd.
        nonzero_key: where `mark_nonzero`'s answer for the case as loaded stands.
        present_key: where `present` (M,) bool stands, True = the network was given it.
    """

    def __init__(
        self,
        keys: KeysCollection,
        nonzero_key: str = "nonzero",
        present_key: str = "present",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.nonzero_key = nonzero_key
        self.present_key = present_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Empty every key; the input tensors are left alone.

        Raises:
            ValueError: the case's marks are missing, or lie on another grid.
        """
        item = dict(data)
        marks = item.get(self.nonzero_key)
        for key in self.key_iterator(item):
            volume = item[key]
            found = "nothing" if marks is None else f"shape {tuple(marks.shape[1:])}"
            if marks is None or marks.shape[1:] != volume.shape[1:]:
                raise ValueError(
                    f"case {item.get('case')}: expected under '{self.nonzero_key}' which voxels of "
                    f"the files are not 0, on the grid of '{key}', {tuple(volume.shape[1:])}, got "
                    f"{found}. LoadModalitiesd writes it (nonzero_key); Invertd comes before this."
                )
            item[key] = volume.masked_fill(self._outside(item, marks, volume.device), 0)
        return item

    def _outside(self, item: Mapping[Hashable, Any], marks: Tensor, device: Any) -> Tensor:
        present = torch.as_tensor(item[self.present_key]).tolist()
        bits = sum(1 << bit for bit, here in enumerate(present) if here)
        return ((plain(torch.as_tensor(marks)) & bits) == 0).to(device)
