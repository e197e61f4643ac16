from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bundle.modalities import BRATS_MODALITIES, all_subsets, presence
from bundle.networks.modality_encoders import ModalityEncoders

SIZE = (8, 8, 8)
SUBSETS = [presence(subset, BRATS_MODALITIES) for subset in all_subsets(BRATS_MODALITIES)]


@pytest.fixture
def encoders() -> ModalityEncoders:
    torch.manual_seed(0)
    made = ModalityEncoders(4, filters=4, blocks_down=(1, 1)).eval()
    for branch in made.branches:
        torch.nn.init.normal_(branch.stand_in.tile)
    return made


def image(batch: int = 1) -> Tensor:
    return torch.randn(batch, 4, *SIZE, generator=torch.Generator().manual_seed(1))


def whole(present: Tensor) -> Tensor:
    return present[..., None, None, None]


def test_it_is_the_mean_of_what_the_present_modalities_encoders_say(encoders):
    present = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 0]], dtype=torch.bool)
    found = encoders(image(2), whole(present))
    for case in range(2):
        places = present[case].nonzero().flatten().tolist()
        alone = [encoders.branches[p].encoder(image(2)[case, p][None, None]) for p in places]
        for level, features in enumerate(found):
            expected = torch.stack([parts[level][0] for parts in alone]).mean(0)
            torch.testing.assert_close(features[case], expected)


def test_an_absent_modality_is_not_computed_forward_or_backward(encoders):
    calls = []
    for place, branch in enumerate(encoders.branches):
        branch.encoder.register_forward_hook(
            lambda layer, given, out, place=place: calls.append((place, len(given[0])))
        )
    present = torch.tensor([[1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.bool)
    found = encoders(image(3), whole(present))
    assert calls == [(0, 2), (3, 2)]
    sum(level.square().sum() for level in found).backward()
    for place, branch in enumerate(encoders.branches):
        gradients = [parameter.grad is not None for parameter in branch.encoder.parameters()]
        assert all(gradients) if place in (0, 3) else not any(gradients)


def test_of_a_masked_patch_the_modalitys_own_stand_in_is_seen(encoders):
    visible = torch.ones(1, 4, *SIZE, dtype=torch.bool)
    visible[:, 1:] = False
    visible[:, 0, :4] = False
    branch = encoders.branches[0]
    filled = branch.stand_in(image()[:, :1], visible[:, :1])
    for features, expected in zip(encoders(image(), visible), branch.encoder(filled), strict=True):
        torch.testing.assert_close(features, expected)


@pytest.mark.parametrize("junk", [1e6, float("nan")])
def test_what_is_hidden_changes_nothing(encoders, junk):
    for present in SUBSETS[:-1]:
        other = image().masked_fill(~whole(present)[None], junk)
        pairs = zip(
            encoders(image(), whole(present)[None]),
            encoders(other, whole(present)[None]),
            strict=True,
        )
        assert all(torch.equal(one, two) for one, two in pairs)


def test_nothing_at_all_is_finite_and_does_not_depend_on_the_image(encoders):
    nothing = torch.zeros(2, 4, 1, 1, 1, dtype=torch.bool)
    one, two = (encoders(x, nothing) for x in (image(2), torch.full((2, 4, *SIZE), float("nan"))))
    assert all(
        torch.equal(a, b) and bool(a.isfinite().all()) for a, b in zip(one, two, strict=True)
    )


def test_the_personalised_encoders_say_the_same(encoders):
    for present in SUBSETS:
        own = encoders.personalise(present)
        assert len(own.encoders) == int(present.sum())
        for a, b in zip(own(image(2)), encoders(image(2), whole(present)[None]), strict=True):
            torch.testing.assert_close(a, b)


def test_one_mask_may_serve_all_cases(encoders):
    present = SUBSETS[6]
    one = encoders(image(2), whole(present)[None])
    two = encoders(image(2), whole(present.expand(2, 4)))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_an_exported_graph_takes_other_subsets_than_the_one_that_it_was_made_with(encoders):
    present = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    given = (image(2), whole(torch.ones_like(present)))
    exported = torch.export.export(encoders, given).module()
    hidden = image(2).masked_fill(~whole(present), float("nan"))
    for one, two in zip(
        exported(hidden, whole(present)), encoders(image(2), whole(present)), strict=True
    ):
        torch.testing.assert_close(one, two)
