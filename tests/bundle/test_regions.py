from __future__ import annotations

import pytest
import torch

from bundle.regions import (
    BRATS_REGIONS,
    check_regions,
    known_labels,
    labels_to_regions,
    painting_order,
    regions_to_labels,
)

EXCLUSIVE = {"necrosis": (1,), "oedema": (2,), "enhancing": (3,)}
COARSE = {"WT": (1, 2, 4), "ET": (4,)}
COVERED = {"both": (1, 2), "left": (1,), "right": (2,)}


def random_labels(*values: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.tensor([0, *values])[
        torch.randint(len(values) + 1, (1, 6, 7, 8), generator=generator)
    ]


@pytest.mark.parametrize("regions", [BRATS_REGIONS, EXCLUSIVE, COARSE, COVERED])
def test_sound_tables_pass(regions):
    check_regions(regions)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ({}, "at least one region"),
        ({"WT": ()}, r"region 'WT': expected label values from 1 to 255, got \[\]"),
        ({"WT": (0, 1)}, r"region 'WT': expected label values from 1 to 255, got \[0, 1\]"),
        ({"A": (1, 2), "B": (2, 1)}, "two regions hold the same labels"),
    ],
)
def test_unsound_tables_are_refused(regions, message):
    with pytest.raises(ValueError, match=message):
        check_regions(regions)


def test_label_values_that_no_label_map_can_hold_are_refused():
    # Label maps are uint8: 257 would come back as 1.
    with pytest.raises(ValueError, match="257"):
        check_regions({"WT": (257,)})


def test_known_labels_are_listed_once_ascending():
    assert known_labels(BRATS_REGIONS) == [1, 2, 4]


def test_brats_labels_make_nested_masks():
    labels = torch.tensor([0, 1, 2, 4]).reshape(1, 1, 1, 4)
    masks = labels_to_regions(labels, BRATS_REGIONS)
    assert masks.dtype == torch.uint8
    assert masks.shape == (3, 1, 1, 4)
    assert masks.flatten(1).tolist() == [[0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 1]]


def test_larger_regions_paint_first_and_each_its_own_value():
    assert painting_order(BRATS_REGIONS) == [("WT", 2), ("TC", 1), ("ET", 4)]
    assert painting_order(EXCLUSIVE) == [("necrosis", 1), ("oedema", 2), ("enhancing", 3)]
    assert painting_order(COVERED)[0] == ("both", 1)


@pytest.mark.parametrize("regions", [BRATS_REGIONS, EXCLUSIVE])
def test_labels_survive_the_way_to_regions_and_back(regions):
    labels = random_labels(*known_labels(regions))
    painted = regions_to_labels(labels_to_regions(labels, regions), regions)
    assert painted.dtype == torch.uint8
    assert torch.equal(painted.long(), labels)


@pytest.mark.parametrize("regions", [BRATS_REGIONS, EXCLUSIVE, COARSE, COVERED])
def test_regions_survive_the_way_to_labels_and_back(regions):
    masks = labels_to_regions(random_labels(*known_labels(regions)), regions)
    assert torch.equal(labels_to_regions(regions_to_labels(masks, regions), regions), masks)


def test_the_innermost_region_wins_where_masks_contradict_each_other():
    only_enhancing = torch.tensor([0.0, 0.0, 1.0]).reshape(3, 1, 1, 1)
    assert regions_to_labels(only_enhancing, BRATS_REGIONS).item() == 4


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"3 region channels .*'ET'.* got shape \(2, 1, 1, 1\)"):
        regions_to_labels(torch.zeros(2, 1, 1, 1), BRATS_REGIONS)
