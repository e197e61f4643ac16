from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bundle.losses.rebuilding import rebuilding_error
from bundle.modalities import brain_mask

NAN = float("nan")


def by_hand() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two cases of two modalities of three voxels; the errors that count are 1, 2, 3 and 0."""
    rebuilt = torch.tensor([[[1.0, 5.0, 7.0], [9.0, 9.0, 9.0]], [[4.0, 0.0, 0.5], [1.0, 2.0, 8.0]]])
    image = torch.tensor([[[0.0, 3.0, 0.0], [NAN, NAN, NAN]], [[1.0, 7.0, 0.5], [NAN, 0.0, NAN]]])
    present = torch.tensor([[True, False], [True, False]])
    brain = torch.tensor([[[True, True, False]], [[True, False, True]]])
    return rebuilt[..., None, None], image[..., None, None], present, brain[..., None, None]


def test_the_mean_is_over_the_brain_voxels_of_what_was_scanned():
    error = rebuilding_error(*by_hand())
    assert error.shape == ()
    assert error.item() == (1 + 4 + 9 + 0) / 4


def test_every_scanned_modality_of_every_case_counts():
    rebuilt, image = torch.zeros(2, 3, 4, 5, 6), torch.ones(2, 3, 4, 5, 6)
    image[1, 2] = 2
    every = torch.ones(2, 3, dtype=torch.bool)
    brain = torch.ones(2, 1, 4, 5, 6, dtype=torch.bool)
    assert rebuilding_error(rebuilt, image, every, brain).item() == (5 * 1 + 4) / 6
    assert rebuilding_error(image, image, every, brain).item() == 0


@pytest.mark.parametrize("junk", [NAN, float("inf"), 1e6])
def test_absent_and_background_voxels_may_hold_anything(junk):
    rebuilt, image, present, brain = by_hand()
    counts = brain & present[..., None, None, None]
    for other in (image.masked_fill(~counts, junk), image.masked_fill(~counts, 0)):
        assert rebuilding_error(rebuilt, other, present, brain).item() == 14 / 4


def test_gradients_flow_only_where_it_counts():
    rebuilt, image, present, brain = by_hand()
    rebuilt.requires_grad_()
    rebuilding_error(rebuilt, image, present, brain).backward()
    # Twice the error over the count of 4; the last one that counts is rebuilt without error.
    expected = [[[0.5, 1.0, 0.0], [0.0, 0.0, 0.0]], [[1.5, 0.0, 0.0], [0.0, 0.0, 0.0]]]
    assert rebuilt.grad.flatten(2).tolist() == expected


@pytest.mark.parametrize("what", ["no brain", "nothing present"])
def test_nothing_that_counts_is_0_with_a_gradient_of_0(what):
    rebuilt, image, present, brain = by_hand()
    rebuilt.requires_grad_()
    if what == "no brain":
        brain = torch.zeros_like(brain)
    else:
        present = torch.zeros_like(present)
    error = rebuilding_error(rebuilt, image, present, brain)
    error.backward()
    assert error.item() == 0
    assert not bool(rebuilt.grad.any())


def test_half_precision_is_averaged_in_single():
    shape = (1, 1, 32, 32, 32)
    present, brain = torch.ones(1, 1, dtype=torch.bool), torch.ones(shape, dtype=torch.bool)
    error = rebuilding_error(torch.full(shape, 3.0).half(), torch.zeros(shape), present, brain)
    assert error.dtype == torch.float32
    assert error.item() == 9


def test_the_brain_is_where_any_present_modality_is_not_0():
    image = torch.zeros(2, 2, 2, 1, 2)
    image[0, 0, 0, 0, 0], image[0, 1, 1, 0, 1] = 1, -1e-6
    image[1, 0] = NAN
    image[1, 1, 0, 0, 1] = 3
    present = torch.tensor([[True, True], [False, True]])
    brain = brain_mask(image, present)
    assert brain.dtype == torch.bool
    assert brain.shape == (2, 1, 2, 1, 2)
    assert brain[:, 0, :, 0].tolist() == [
        [[True, False], [False, True]],
        [[False, True], [False, False]],
    ]
