"""Batches from memory do what MONAI's transforms do to one case."""

from collections import Counter

import pytest
import torch
from monai.transforms import (
    Flip,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandScaleIntensityd,
    ScaleIntensity,
    SelectItemsd,
    SpatialPadd,
)

from bundle.training.preloaded import PreloadedCrops, changes_of, flip, scale

ROI = (4, 4, 4)


def transforms(pos=2, neg=1):
    keys = ["image", "label"]
    return [
        RandCropByPosNegLabeld(
            keys, label_key="tumour", spatial_size=ROI, pos=pos, neg=neg, allow_smaller=True
        ),
        SpatialPadd(keys, spatial_size=ROI),
        *(RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)),
        RandScaleIntensityd("image", factors=0.1, prob=0.5, channel_wise=True),
        SelectItemsd(["case", "image", "present", "label"]),
    ]


def item(shape=(6, 7, 5), name="a", at=(1, 5, 2)):
    """Return a case whose first scan numbers its voxels, with a tumour of one voxel."""
    count = torch.arange(shape[0] * shape[1] * shape[2]).reshape(1, *shape).float() + 1
    tumour = torch.zeros(1, *shape)
    if at is not None:
        tumour[(0, *at)] = 1
    return {
        "case": name,
        "image": torch.cat([count, count + 1000]),
        "label": tumour.repeat(3, 1, 1, 1),
        "tumour": tumour,
        "present": torch.tensor([True, False]),
    }


def test_changes_are_read_from_the_transforms():
    changes = changes_of(transforms())
    assert changes.roi_size == ROI
    assert changes.tumour_share == pytest.approx(2 / 3)
    assert changes.flips == {0: 0.5, 1: 0.5, 2: 0.5}
    assert (changes.scale_chance, changes.scale_range) == (0.5, (-0.1, 0.1))


def test_a_transform_without_a_counterpart_is_refused():
    noise = RandGaussianNoised("image", prob=0.5)
    with pytest.raises(ValueError, match="RandGaussianNoised has no counterpart for batches"):
        changes_of([*transforms(), noise])
    with pytest.raises(ValueError, match="expected RandCropByPosNegLabeld"):
        changes_of(transforms()[1:])
    with pytest.raises(ValueError, match="expected cases to train on, got none"):
        PreloadedCrops([], transforms(), 2, 1)


def test_flips_are_monais():
    volume = torch.randn(3, 2, 4, 5, 6)
    chosen = {axis: torch.tensor([True, False, axis == 1]) for axis in range(3)}
    flipped = flip(volume.clone(), chosen)
    assert torch.equal(flipped[0], Flip([0, 1, 2])(volume[0]))
    assert torch.equal(flipped[1], volume[1])
    assert torch.equal(flipped[2], Flip(1)(volume[2]))


def test_scaled_intensities_are_monais():
    image = torch.randn(2, 2, 3, 3, 3)
    factors = torch.tensor([[1.1, 1.0], [0.95, 0.9]])
    scaled = scale(image, factors)
    for case in range(2):
        for scan in range(2):
            twin = ScaleIntensity(minv=None, maxv=None, factor=float(factors[case, scan]) - 1)
            assert torch.allclose(scaled[case, scan], twin(image[case, scan]), atol=1e-6)


def test_a_batch_is_made_of_crops_of_the_cases():
    torch.manual_seed(0)
    loader = PreloadedCrops([item(), item(name="b")], transforms(), batch_size=8, steps=3)
    batches = list(loader)
    assert len(batches) == len(loader) == 3
    for batch in batches:
        assert batch["image"].shape == (8, 2, *ROI)
        assert batch["label"].shape == (8, 3, *ROI)
        assert batch["present"].tolist() == [[True, False]] * 8
        assert set(batch["case"]) <= {"a", "b"}
        # Unscaled scans keep whole numbers, which say where a voxel came from.
        kept = batch["image"][:, 0] == batch["image"][:, 0].round()
        whole = kept.flatten(1).all(1)
        for crop in batch["image"][whole, 0]:
            assert len(crop.unique()) == 64
            corner = sorted(set(crop[[0, -1]][:, [0, -1]][:, :, [0, -1]].flatten().tolist()))
            assert corner[-1] - corner[0] == 3 * 35 + 3 * 5 + 3


def test_the_same_seed_gives_the_same_batches():
    loader = PreloadedCrops([item(), item(name="b")], transforms(), batch_size=4, steps=1)
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(loader.batch())
    assert torch.equal(drawn[0]["image"], drawn[1]["image"])
    assert not torch.equal(drawn[0]["image"], drawn[2]["image"])


@pytest.mark.parametrize(("pos", "neg"), [(2, 1), (1, 0), (0, 1)])
def test_crops_lie_where_monais_lie(pos, neg):
    """The corners of many crops have the frequencies of as many of MONAI's."""
    case, count = item((7, 4, 4), at=(1, 1, 1)), 400
    crop = transforms(pos, neg)[0].set_random_state(0)
    theirs = Counter(int(crop(case)[0]["image"][0, 0, 0, 0]) for _ in range(count))
    torch.manual_seed(0)
    loader = PreloadedCrops([case], transforms(pos, neg), batch_size=1, steps=1)
    ours = Counter(int(loader.images[0][loader._box(0)][0, 0, 0, 0]) for _ in range(count))
    assert set(ours) == set(theirs)
    # Five standard deviations of a share of one half.
    for corner, times in theirs.items():
        assert abs(times - ours[corner]) < 5 * (2 * count / 4) ** 0.5


def test_a_case_smaller_than_a_crop_is_padded_as_monai_pads():
    case = item((3, 7, 5), at=(1, 5, 2))
    loader = PreloadedCrops([case], transforms(), batch_size=1, steps=1)
    padded = SpatialPadd("image", spatial_size=ROI)(case)["image"]
    assert torch.equal(loader.images[0], padded)
    # Not the margin: a crop is centred on a real voxel.
    assert len(loader.inside[0]) + len(loader.outside[0]) == 3 * 7 * 5


def test_a_case_without_tumour_is_cropped_elsewhere():
    loader = PreloadedCrops([item(at=None)], transforms(), batch_size=4, steps=1)
    assert loader.batch()["label"].sum() == 0
