"""Dropping the modalities that a subset does not name."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from bundle.modalities import keep_only, names_of, presence


class DropModalitiesd(MapTransform):
    """Keep the named modalities, drop the others.

    What draws a subset at random is `bundle.modalities.draw_subset`, during training.

    Args:
        keys: images (M, D, H, W).
        modalities: the vocabulary, in channel order.
        keep: the modalities to keep.
        present_key: `present` (M,) bool, True = available; rewritten.
    """

    def __init__(
        self,
        keys: KeysCollection,
        modalities: Sequence[str],
        keep: Sequence[str],
        present_key: str = "present",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.modalities = tuple(modalities)
        self.keep = presence(keep, modalities)
        self.present_key = present_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Zero the dropped channels; kept ones stay as they are, bit for bit.

        Raises:
            ValueError: the case has none of the modalities to keep.
        """
        item = dict(data)
        kept = torch.as_tensor(item[self.present_key], dtype=torch.bool) & self.keep
        if not kept.any():
            raise ValueError(
                f"case {item.get('case')}: nothing would be left. Expected at least one of "
                f"{list(names_of(self.keep, self.modalities))}, the case has only "
                f"{list(names_of(torch.as_tensor(item[self.present_key]), self.modalities))}. "
                "Leave this subset out for this case."
            )
        for key in self.key_iterator(item):
            item[key] = keep_only(item[key], kept)
        item[self.present_key] = kept
        return item
