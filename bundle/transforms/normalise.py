"""Z-scores over the brain that never take a voxel of the brain for background."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, NormalizeIntensity

from bundle.modalities import plain

# In standard deviations: nothing to a network, and still not 0 in half precision.
ALMOST_ZERO = 1e-6


class NormalizeBraind(MapTransform):
    """Turn each modality into z-scores over its voxels that are not 0; the others stay exactly 0.

    MONAI's NormalizeIntensityd does this, too, but a voxel that equals the mean becomes exactly 0,
    which says "outside the brain" to all that follows. Here it becomes 0.000001. That is one voxel
    in a case now and then, and thousands in a scan of few grey values whose mean is one of them.

    Args:
        keys: images (M, D, H, W), background exactly 0.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.normalise = NormalizeIntensity(nonzero=True, channel_wise=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalise every key; absent modalities stay 0."""
        item = dict(data)
        for key in self.key_iterator(item):
            inside = plain(item[key]) != 0
            scores = self.normalise(item[key])
            item[key] = scores.masked_fill_((plain(scores) == 0) & inside, ALMOST_ZERO)
        return item
