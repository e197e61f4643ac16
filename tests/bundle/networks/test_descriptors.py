from __future__ import annotations

import numpy as np
import pytest
import torch

from bundle.networks.descriptors import DESCRIPTORS, patch_descriptors


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def whole_brain(image: torch.Tensor) -> torch.Tensor:
    return torch.ones(image.shape[0], 1, *image.shape[2:], dtype=torch.bool)


def half_brain(image: torch.Tensor) -> torch.Tensor:
    """Brain in the first half of D."""
    brain = whole_brain(image)
    brain[:, :, image.shape[2] // 2 :] = False
    return brain


def test_shapes_have_one_descriptor_a_patch():
    image = noise(2, 3, 4, 8, 12)
    values, valid = patch_descriptors(image, whole_brain(image), 4)
    assert values.shape == (2, 3, 1 * 2 * 3, len(DESCRIPTORS))
    assert valid.shape == (2, 6)
    assert bool(valid.all())


def test_a_chequered_patch_has_exact_descriptors():
    index = torch.arange(4)
    parity = (index[:, None, None] + index[:, None] + index) % 2
    image = (3.0 + 2 * parity)[None, None]
    values, _ = patch_descriptors(image, whole_brain(image), 4)
    assert values.flatten().tolist() == pytest.approx([4, 1, 2], abs=1e-5)


def test_a_ramp_has_its_slope_for_texture():
    image = torch.arange(4.0).expand(1, 1, 4, 4, 4)
    values, _ = patch_descriptors(image, whole_brain(image), 4)
    assert values.flatten().tolist() == pytest.approx([1.5, 1.25**0.5, 1 / 3], abs=1e-5)


def test_patches_agree_with_numpy_inside_the_brain():
    image = noise(1, 2, 6, 6, 6)
    brain = noise(1, 1, 6, 6, 6) > -0.5
    values, valid = patch_descriptors(image, brain, 3)
    voxels = image[0, 1, 3:, :3, 3:].numpy()
    inside = brain[0, 0, 3:, :3, 3:].numpy()
    steps = []
    for axis in range(3):
        both = np.delete(inside, 0, axis) & np.delete(inside, -1, axis)
        steps.extend(np.abs(np.diff(voxels, axis=axis))[both])
    expected = [voxels[inside].mean(), voxels[inside].std(), np.mean(steps)]
    # Patches in C order: the fifth of 2 x 2 x 2 starts at (3, 0, 3).
    assert values[0, 1, 5].tolist() == pytest.approx(expected, rel=1e-5)
    assert valid[0, 5].item() == (inside.mean() >= 0.5)


@pytest.mark.parametrize(("voxels", "expected"), [(32, True), (31, False), (0, False)])
def test_a_patch_is_valid_from_half_its_voxels_on(voxels, expected):
    brain = (torch.arange(64) < voxels).reshape(1, 1, 4, 4, 4)
    assert patch_descriptors(noise(1, 1, 4, 4, 4), brain, 4).valid.item() is expected


def test_what_lies_outside_the_brain_changes_nothing():
    image = noise(1, 2, 4, 4, 4)
    brain = half_brain(image)
    other = image.masked_fill(~brain, float("nan"))
    expected = patch_descriptors(image, brain, 4).values
    assert torch.equal(patch_descriptors(other, brain, 4).values, expected)


def test_what_remains_beyond_the_last_whole_patch_is_ignored():
    image = noise(1, 1, 9, 8, 11)
    cropped = image[:, :, :8, :, :8]
    expected = patch_descriptors(cropped, whole_brain(cropped), 4)
    values, valid = patch_descriptors(image, whole_brain(image), 4)
    assert torch.equal(values, expected.values)
    assert torch.equal(valid, expected.valid)


def test_the_gradient_is_the_numerical_one():
    image = noise(1, 2, 4, 4, 4, dtype=torch.float64).requires_grad_()
    brain = noise(1, 1, 4, 4, 4) > -1
    assert torch.autograd.gradcheck(lambda x: patch_descriptors(x, brain, 2).values, image)


def test_constant_and_empty_patches_have_finite_gradients():
    image = torch.ones(1, 1, 4, 4, 8)
    image[..., 4:] = float("nan")
    image.requires_grad_()
    brain = whole_brain(image)
    brain[..., 4:] = False
    values = patch_descriptors(image, brain, 4).values
    assert values.flatten().tolist() == pytest.approx([1, 1e-3, 0, 0, 1e-3, 0], abs=1e-6)
    values.sum().backward()
    assert bool(image.grad.isfinite().all())
    assert bool((image.grad[..., 4:] == 0).all())


def test_mixed_precision_computes_in_single():
    image = noise(1, 1, 4, 4, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values, _ = patch_descriptors(image, whole_brain(image), 4)
    assert values.dtype == torch.float32
    assert torch.equal(values, patch_descriptors(image.float(), whole_brain(image), 4).values)


@pytest.mark.parametrize("patch", [1, 5])
def test_a_patch_that_does_not_fit_is_refused(patch):
    image = noise(1, 1, 4, 8, 8)
    with pytest.raises(ValueError, match=f"shortest side of 4 voxels, got {patch}. Set a smaller"):
        patch_descriptors(image, whole_brain(image), patch)


def test_a_brain_of_another_shape_or_type_is_refused():
    image = noise(1, 2, 4, 4, 4)
    with pytest.raises(ValueError, match=r"expected brain of shape \(1, 1, 4, 4, 4\).*\(1, 2, 4"):
        patch_descriptors(image, image > 0, 2)
    with pytest.raises(ValueError, match=r"type bool, got .* torch\.float32"):
        patch_descriptors(image, whole_brain(image).float(), 2)
    with pytest.raises(ValueError, match=r"image of shape \(B, M, D, H, W\), got \(2, 4, 4, 4\)"):
        patch_descriptors(image[0], whole_brain(image), 2)
