from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.data.volumes import CaseError
from bundle.regions import BRATS_REGIONS, labels_to_regions
from bundle.transforms.regions import LoadRegionsd, RegionsToLabelsd, RemoveSmallRegionsd, grid_of

SHAPE = (10, 20, 30)
EXCLUSIVE = {"necrosis": (1,), "oedema": (2,), "enhancing": (3,)}


def brats_labels(enhancing: int = 4) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:8, 4:16, 6:24], labels[3:7, 6:14, 8:20] = 2, 1
    labels[4:6, 8:12, 10:16] = enhancing
    return labels


def image_of(shape: tuple[int, ...] = SHAPE) -> MetaTensor:
    return MetaTensor(torch.zeros(4, *shape), affine=torch.eye(4))


def test_label_values_become_nested_masks_on_the_files_grid(write_volume):
    path = write_volume("A_seg.nii.gz", brats_labels(), np.diag([1.0, 2.0, 3.0, 1.0]))
    label = LoadRegionsd("label", BRATS_REGIONS)({"label": path, "case": "A"})["label"]
    assert label.dtype == torch.uint8
    assert label.shape == (3, *SHAPE)
    # TC 4*8*12, WT 6*12*18, ET 2*4*6 voxels.
    assert label.flatten(1).sum(1).tolist() == [384, 1296, 48]
    core, whole, enhancing = label
    assert bool((enhancing <= core).all() and (core <= whole).all())
    assert grid_of(label).spacing_mm == (1, 2, 3)


def test_an_alias_reads_3_as_4(write_volume):
    new = write_volume("new_seg.nii.gz", brats_labels(3))
    old = write_volume("old_seg.nii.gz", brats_labels(4))
    for aliases in ({3: 4}, {"3": 4}):
        load = LoadRegionsd("label", BRATS_REGIONS, aliases)
        assert torch.equal(load({"label": new})["label"], load({"label": old})["label"])


def test_without_alias_3_is_unknown(write_volume):
    path = write_volume("A_seg.nii.gz", brats_labels(3))
    with pytest.raises(CaseError, match=r"case A: A_seg.* unknown label values: 3 \(48 voxels\)"):
        LoadRegionsd("label", BRATS_REGIONS)({"label": path, "case": "A"})


def test_a_label_on_another_grid_than_the_image_is_refused(write_volume):
    load = LoadRegionsd("label", BRATS_REGIONS)
    path = write_volume("A_seg.nii.gz", brats_labels())
    item = {"label": path, "case": "A", "image": image_of()}
    assert load(item)["label"].shape == (3, *SHAPE)
    with pytest.raises(CaseError, match=r"(?s)case A: .*\(10, 20, 31\).*A_seg\.nii\.gz"):
        load({**item, "image": image_of((10, 20, 31))})
    shifted = write_volume("A_shifted.nii.gz", brats_labels(), np.diag([2.0, 1.0, 1.0, 1.0]))
    with pytest.raises(CaseError, match=r"case A: .*A_shifted\.nii\.gz"):
        load({**item, "label": shifted})


def test_no_reference_key_no_comparison(write_volume):
    path = write_volume("A_seg.nii.gz", brats_labels())
    load = LoadRegionsd("label", BRATS_REGIONS, reference_key=None)
    assert load({"label": path, "image": image_of((1, 2, 3))})["label"].shape == (3, *SHAPE)


def test_a_missing_label_file_names_the_case(tmp_path):
    with pytest.raises(CaseError, match=r"case A: file .*A_seg\.nii\.gz does not exist"):
        LoadRegionsd("label", BRATS_REGIONS)({"label": tmp_path / "A_seg.nii.gz", "case": "A"})


@pytest.mark.parametrize(("voxels", "left"), [(4, 0), (5, 5), (6, 6)])
def test_a_region_of_exactly_the_threshold_stays(voxels, left):
    masks = torch.zeros(3, 2, 2, 2)
    masks[:, 0, 0, 0] = 1
    masks[2].view(-1)[:voxels] = 1
    before = masks.clone()
    removed = RemoveSmallRegionsd("pred", BRATS_REGIONS, {"ET": 5})({"pred": masks})["pred"]
    assert removed[2].sum() == left
    assert torch.equal(removed[:2], masks[:2])
    assert torch.equal(masks, before)


def test_a_threshold_for_an_unknown_region_is_refused():
    with pytest.raises(ValueError, match=r"min_voxels names \['XX'\], expected .*'ET'"):
        RemoveSmallRegionsd("pred", BRATS_REGIONS, {"XX": 5})


@pytest.mark.parametrize(
    ("regions", "values"), [(BRATS_REGIONS, [0, 1, 2, 4]), (EXCLUSIVE, [0, 1, 2, 3])]
)
def test_labels_survive_the_way_to_regions_and_back(regions, values):
    choice = torch.randint(4, (1, *SHAPE), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor(values)[choice]
    masks = MetaTensor(labels_to_regions(labels, regions), affine=torch.diag(torch.arange(1.0, 5)))
    painted = RegionsToLabelsd("pred", regions)({"pred": masks})["pred"]
    assert painted.dtype == torch.uint8
    assert torch.equal(painted.as_tensor().long(), labels)
    assert torch.equal(painted.affine, masks.affine)


def test_values_are_rewritten_all_at_once():
    labels = torch.tensor([0, 1, 2, 4]).reshape(1, 1, 1, 4)
    masks = labels_to_regions(labels, BRATS_REGIONS)

    def paint(values: dict) -> list[int]:
        return RegionsToLabelsd("pred", BRATS_REGIONS, values)({"pred": masks})["pred"].tolist()

    assert paint({4: 3}) == [[[[0, 1, 2, 3]]]]
    assert paint({"4": "3"}) == [[[[0, 1, 2, 3]]]]
    assert paint({1: 2, 2: 1}) == [[[[0, 2, 1, 4]]]]


def test_two_labels_are_never_written_as_one():
    with pytest.raises(ValueError, match=r"written_labels \{4: 2\} would write different labels"):
        RegionsToLabelsd("pred", BRATS_REGIONS, {4: 2})
    RegionsToLabelsd("pred", {"lesion": [2]}, {4: 2})
