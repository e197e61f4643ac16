"""Dropping modalities: a random transform that draws a subset, and its twin that applies one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from bundle.modalities import draw_subset, keep_only, names_of, presence


class DropModalitiesd(MapTransform):
    """Keep the named modalities, drop the others; the deterministic twin of `RandDropModalitiesd`.

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


class RandDropModalitiesd(RandomizableTransform, MapTransform):
    """Keep a random non-empty subset of what is present, each subset equally likely.

    Args:
        keys: images (M, D, H, W).
        modalities: the vocabulary, in channel order.
        prob: how often anything is dropped at all.
        present_key: `present` (M,) bool, True = available; rewritten.
    """

    def __init__(
        self,
        keys: KeysCollection,
        modalities: Sequence[str],
        prob: float = 1.0,
        present_key: str = "present",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.modalities = tuple(modalities)
        self.present_key = present_key
        self.keep: tuple[str, ...] = ()

    def randomize(self, data: Any) -> None:
        """Draw the subset to keep; `data` is `present` (M,) bool."""
        super().randomize(None)
        present = torch.as_tensor(data, dtype=torch.bool)
        generator = torch.Generator().manual_seed(int(self.R.randint(2**31)))
        kept = draw_subset(present[None], generator)[0] if self._do_transform else present
        self.keep = names_of(kept, self.modalities)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw a subset and let `DropModalitiesd` apply it; `keep` tells afterwards which."""
        self.randomize(data[self.present_key])
        drop = DropModalitiesd(
            self.keys, self.modalities, self.keep, self.present_key, self.allow_missing_keys
        )
        return drop(data)
