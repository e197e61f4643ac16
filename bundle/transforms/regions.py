"""Label files into region masks, and predicted region masks back into label maps."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from bundle.data.labels import read_labels
from bundle.data.volumes import Grid, check_grids
from bundle.regions import (
    Regions,
    check_regions,
    known_labels,
    labels_to_regions,
    regions_to_labels,
)


class LoadRegionsd(MapTransform):
    """Read a label file into region masks (R, D, H, W) uint8, 1 = inside, on the file's own grid.

    Args:
        keys: paths of label files.
        regions: label values by region, e.g. {"TC": [1, 4], "WT": [1, 2, 4], "ET": [4]}.
        aliases: label values of other releases, e.g. {3: 4}; None = none.
        reference_key: a loaded image whose grid the label must share; None = no comparison.
    """

    def __init__(
        self,
        keys: KeysCollection,
        regions: Regions,
        aliases: Mapping[int, int] | None = None,
        reference_key: str | None = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_regions(regions)
        self.regions = {name: tuple(values) for name, values in regions.items()}
        self.aliases = dict(aliases or {})
        self.reference_key = reference_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load; raises `CaseError` naming case and file for whatever is wrong with it."""
        item = dict(data)
        case = str(item.get("case", "?"))
        for key in self.key_iterator(item):
            path = Path(item[key])
            read = read_labels(path, case, known_labels(self.regions), self.aliases)
            reference = item.get(self.reference_key) if self.reference_key else None
            if isinstance(reference, MetaTensor):
                check_grids({Path(self.reference_key): grid_of(reference), path: read.grid}, case)
            masks = labels_to_regions(torch.from_numpy(read.labels)[None], self.regions)
            item[key] = MetaTensor(masks, affine=torch.as_tensor(read.grid.affine))
        return item


def grid_of(image: MetaTensor) -> Grid:
    """Return the voxel grid of a loaded image (C, D, H, W)."""
    return Grid(tuple(image.shape[1:]), np.asarray(image.affine.cpu(), dtype=np.float64))


class RemoveSmallRegionsd(MapTransform):
    """Empty a predicted region that holds too few voxels, as BraTS entries do with tiny ET.

    Args:
        keys: region masks (R, D, H, W), 1 = inside.
        regions: the region table, in channel order.
        min_voxels: smallest count that stays, by region, e.g. {"ET": 500}; regions not named stay.
    """

    def __init__(
        self, keys: KeysCollection, regions: Regions, min_voxels: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(keys)
        self.min_voxels = dict(min_voxels or {})
        unknown = set(self.min_voxels) - set(regions)
        if unknown:
            raise ValueError(
                f"min_voxels names {sorted(unknown)}, expected some of {list(regions)}"
            )
        self.channels = {name: list(regions).index(name) for name in self.min_voxels}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Apply to every key; the input tensor is left alone."""
        item = dict(data)
        for key in self.key_iterator(item):
            masks = item[key].clone()
            for name, channel in self.channels.items():
                if int((masks[channel] != 0).sum()) < self.min_voxels[name]:
                    masks[channel] = 0
            item[key] = masks
        return item


class RegionsToLabelsd(MapTransform):
    """Paint region masks (R, D, H, W) into one label map (1, D, H, W) uint8.

    Args:
        keys: region masks, 1 = inside.
        regions: the region table, in channel order.
        values: label values to write instead, e.g. {4: 3} from BraTS 2023 on; None = as they are.

    Raises:
        ValueError: two different labels would be written as one.
    """

    def __init__(
        self, keys: KeysCollection, regions: Regions, values: Mapping[int, int] | None = None
    ) -> None:
        super().__init__(keys)
        self.regions = dict(regions)
        self.values = {int(old): int(new) for old, new in (values or {}).items()}
        written = [self.values.get(value, value) for value in known_labels(self.regions)]
        if len(set(written)) < len(written):
            raise ValueError(
                f"written_labels {self.values} would write different labels of the regions "
                f"{self.regions} as one. Give others, or --written_labels '{{}}' for none."
            )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Paint every key; the affine stays."""
        item = dict(data)
        for key in self.key_iterator(item):
            labels = regions_to_labels(item[key], self.regions)
            written = labels.clone()
            for old, new in self.values.items():
                written[labels == old] = new
            if isinstance(item[key], MetaTensor):
                written = MetaTensor(written, meta=item[key].meta)
            item[key] = written
        return item
