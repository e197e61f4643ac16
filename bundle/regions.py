"""Regions: named sets of label values, nested (BraTS) or exclusive, and their two forms.

Label maps are (1, D, H, W) integers in the data set's convention; region masks are (R, D, H, W),
1 = inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Regions = Mapping[str, Sequence[int]]

BRATS_REGIONS: Regions = {"TC": (1, 4), "WT": (1, 2, 4), "ET": (4,)}


def check_regions(regions: Regions) -> None:
    """Say what is wrong with a region table.

    Raises:
        ValueError: no region, a region without labels, with the background 0 or with a value
            above 255 (labels are written as uint8), or two regions with
            the same labels.
    """
    if not regions:
        raise ValueError("expected at least one region, such as {'WT': [1, 2, 4]}, got none")
    for name, labels in regions.items():
        if not labels or any(not 0 < int(value) < 256 for value in labels):
            raise ValueError(
                f"region {name!r}: expected label values from 1 to 255, got {list(labels)}"
            )
    tables = [frozenset(labels) for labels in regions.values()]
    if len(set(tables)) != len(tables):
        raise ValueError(
            f"two regions hold the same labels: { {k: list(v) for k, v in regions.items()} }. "
            "Remove one of them."
        )


def known_labels(regions: Regions) -> list[int]:
    """List the label values that the regions mention, ascending, without the background."""
    return sorted({int(value) for labels in regions.values() for value in labels})


def labels_to_regions(labels: Tensor, regions: Regions) -> Tensor:
    """Turn a label map (1, D, H, W) into region masks (R, D, H, W) uint8, 1 = inside."""
    masks = [
        torch.isin(labels[0], torch.tensor(list(values), device=labels.device))
        for values in regions.values()
    ]
    return torch.stack(masks).to(torch.uint8)


def painting_order(regions: Regions) -> list[tuple[str, int]]:
    """Say which label value each region paints, largest region first.

    A region's own value is one that no region nested in it claims: with BraTS regions WT paints 2
    (oedema), TC then 1 (necrotic core), ET last 4. A region whose values are all claimed by nested
    ones paints its first value.
    """
    order = sorted(regions, key=lambda name: -len(regions[name]))
    painted = []
    for name in order:
        values = set(regions[name])
        nested = {v for other in regions if set(regions[other]) < values for v in regions[other]}
        own = [value for value in regions[name] if value not in nested] or list(regions[name])
        painted.append((name, int(own[0])))
    return painted


def regions_to_labels(masks: Tensor, regions: Regions) -> Tensor:
    """Paint region masks into one exclusive label map, larger regions first.

    Args:
        masks: (R, D, H, W), non-zero = inside, in config order.
        regions: the region table.

    Returns:
        (1, D, H, W) uint8 label values in the convention of `regions`.
    """
    if masks.shape[0] != len(regions):
        raise ValueError(
            f"expected {len(regions)} region channels {list(regions)}, "
            f"got shape {tuple(masks.shape)}"
        )
    labels = torch.zeros(masks.shape[1:], dtype=torch.uint8, device=masks.device)
    names = list(regions)
    for name, value in painting_order(regions):
        labels[masks[names.index(name)] != 0] = value
    return labels[None]
