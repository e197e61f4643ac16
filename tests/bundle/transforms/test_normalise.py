from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import NormalizeIntensity

from bundle.transforms.normalise import ALMOST_ZERO, NormalizeBraind


def normalise(image):
    return NormalizeBraind("image")({"image": image.clone()})["image"]


@pytest.mark.parametrize("values", [(1, 2, 3), (10, 20, 30, 0), (5, 5, 5), (-2, 0, 4, 1)])
def test_a_voxel_that_equals_the_mean_is_never_taken_for_background(values):
    image = torch.tensor([values, values[::-1]], dtype=torch.float32)[:, :, None, None].repeat(
        1, 1, 3, 2
    )
    found = normalise(MetaTensor(image, meta={"case": "a"}))
    assert torch.equal(found != 0, image != 0)
    expected = NormalizeIntensity(nonzero=True, channel_wise=True)(image.clone())
    assert bool(((expected == 0) & (image != 0)).any())
    torch.testing.assert_close(found.as_tensor(), expected, atol=ALMOST_ZERO, rtol=0)
    assert found.meta["case"] == "a"


def test_other_voxels_get_the_usual_score_to_the_last_bit():
    image = torch.rand(3, 4, 5, 6, generator=torch.Generator().manual_seed(0)) * 1000
    image[:, :2] = 0
    image[1] = 0
    found = normalise(image)
    assert torch.equal(found, NormalizeIntensity(nonzero=True, channel_wise=True)(image.clone()))
    assert not found[1].any()
    torch.testing.assert_close(found[0, 2:].mean(), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_almost_zero_is_not_zero_in_half_precision():
    for kind in (torch.float16, torch.bfloat16):
        assert torch.tensor(ALMOST_ZERO).to(kind) > 0
