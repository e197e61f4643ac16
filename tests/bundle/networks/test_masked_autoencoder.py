from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from bundle.modalities import keep_only
from bundle.networks.masked_autoencoder import MaskedAutoencoder, rescaling
from bundle.networks.stand_in import StandIn
from bundle.networks.universal import UniversalNetwork

SIZE = (5, 8, 6)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def autoencoder(**options) -> MaskedAutoencoder:
    """One whose tile is no longer zero."""
    torch.manual_seed(0)
    made = MaskedAutoencoder(4, filters=4, blocks_down=(1, 1, 1), **options)
    torch.nn.init.normal_(made.stand_in.tile)
    return made


@pytest.fixture
def stand_in() -> StandIn:
    made = StandIn(2, size=3)
    torch.nn.init.normal_(made.tile)
    return made


def test_the_stand_in_starts_at_the_mean_of_a_z_scored_brain():
    image = StandIn(2)(torch.full((1, 2, *SIZE), float("nan")), torch.tensor(False))
    assert torch.equal(image, torch.zeros(1, 2, *SIZE))


def test_the_tile_repeats_over_what_is_hidden_whatever_its_size(stand_in):
    filled = stand_in(torch.full((2, 2, *SIZE), float("nan")), torch.tensor(False))
    for i, j, k in product(*map(range, SIZE)):
        expected = stand_in.tile[:, i % 3, j % 3, k % 3]
        assert torch.equal(filled[:, :, i, j, k], expected.expand(2, 2))


def test_visible_voxels_are_bit_for_bit_the_same(stand_in):
    image, visible = noise(2, 2, *SIZE), noise(2, 2, *SIZE, seed=1) > 0
    junk = image.masked_fill(~visible, float("nan"))
    filled = stand_in(junk, visible)
    assert torch.equal(filled[visible], image[visible])
    hidden = stand_in(image, torch.tensor(False))
    assert torch.equal(filled[~visible], hidden[~visible])


def test_visibility_may_be_given_by_modality(stand_in):
    image = noise(2, 2, *SIZE)
    present = torch.tensor([[True, False], [True, True]])
    filled = stand_in(image, present[:, :, None, None, None])
    assert torch.equal(filled[present], image[present])
    assert not bool((filled[0, 1] == image[0, 1]).any())


def test_each_tile_voxel_learns_from_the_hidden_places_it_stands_for(stand_in):
    visible = torch.ones(1, 2, 6, 6, 6, dtype=torch.bool)
    visible[0, 1, 4, 5, 3] = False
    stand_in(noise(1, 2, 6, 6, 6), visible).sum().backward()
    assert stand_in.tile.grad.nonzero().tolist() == [[1, 1, 2, 0]]


def test_features_come_finest_first_and_every_modality_is_rebuilt():
    made = autoencoder()
    features = made.encode(noise(2, 4, 8, 12, 16), torch.ones(1, 4, 1, 1, 1, dtype=torch.bool))
    sides = [(8, 12, 16), (4, 6, 8), (2, 3, 4)]
    assert [tuple(f.shape) for f in features] == [(2, 4 * 2**i, *s) for i, s in enumerate(sides)]
    assert made.rebuild(features).shape == (2, 4, 8, 12, 16)


def test_rescaling_goes_by_the_modalities_of_which_anything_is_visible():
    visible = torch.zeros(4, 4, 2, 2, 2, dtype=torch.bool)
    visible[0], visible[1, 2, 0, 1, 0], visible[2, :3, 1] = True, True, True
    assert rescaling(visible).tolist() == pytest.approx([1, 4, 4 / 3, 4])


def test_what_is_encoded_is_scaled_up_by_what_is_hidden():
    made, image = autoencoder(), noise(2, 4, 8, 8, 8)
    present = torch.tensor([[True, False, True, False], [True, True, True, True]])
    plain = autoencoder(rescale=False)
    doubled = image * torch.tensor([2.0, 1.0])[:, None, None, None, None]
    plain.stand_in.tile.data = 2 * made.stand_in.tile.data
    visible = present[:, :, None, None, None]
    for ours, theirs in zip(
        made.encode(image, visible), plain.encode(doubled, visible), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("junk", [1e6, float("nan"), float("inf")])
def test_what_hidden_voxels_hold_changes_nothing(junk):
    made, image = autoencoder().eval(), noise(2, 4, 8, 8, 8)
    visible = noise(2, 4, 8, 8, 8, seed=1) > 0
    rebuilt = made.rebuild(made.encode(image, visible))
    other = made.rebuild(made.encode(image.masked_fill(~visible, junk), visible))
    assert torch.equal(other, rebuilt)
    present = torch.tensor([[True, False, False, True], [False, True, False, False]])
    other = image.clone()
    other[~present] = junk
    assert torch.equal(made(other, present), made(image, present))


def test_calling_it_encodes_the_present_modalities_and_rebuilds_all():
    made, image = autoencoder().eval(), noise(2, 4, 8, 8, 8)
    present = torch.tensor([[True, False, True, True], [False, True, False, False]])
    features = made.encode(image, present[:, :, None, None, None])
    assert torch.equal(made(image, present), made.rebuild(features))
    alone = [made(image[i : i + 1], present[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(made(image, present), torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_without_presence_an_empty_channel_of_a_whole_case_is_absent():
    made, image = autoencoder().eval(), noise(2, 4, 8, 8, 8)
    present = torch.tensor([[True, False, True, True], [False, True, False, False]])
    assert torch.equal(made(keep_only(image, present)), made(image, present))


def test_without_presence_the_background_of_a_scan_stays_background():
    made, image = autoencoder().eval(), noise(1, 4, 8, 8, 8)
    image[:, :, :, :, 5:] = 0
    image[:, 2] = 0
    present = torch.tensor([[True, True, False, True]])
    torch.testing.assert_close(made(image), made(image, present))


def test_every_parameter_is_used():
    made = autoencoder()
    visible = noise(1, 4, 16, 16, 16, seed=1) > 0
    made.rebuild(made.encode(noise(1, 4, 16, 16, 16), visible)).square().mean().backward()
    assert [name for name, p in made.named_parameters() if p.grad is None] == []
    assert [name for name, p in made.named_parameters() if not bool(p.grad.any())] == []


def test_it_is_the_universal_networks_autoencoder_name_by_name():
    made = autoencoder(stand_in_size=2)
    universal = UniversalNetwork(
        4, 3, filters=4, blocks_down=(1, 1, 1), deep_supervision=2, stand_in_size=2
    )
    universal.autoencoder.load_state_dict(made.state_dict())
    image, visible = noise(1, 4, 8, 8, 8), torch.ones(1, 4, 1, 1, 1, dtype=torch.bool)
    features = universal.encode(image, visible.flatten(1))
    for ours, theirs in zip(features, made.encode(image, visible), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_the_scripted_stand_in_gives_the_same_numbers(stand_in):
    image, visible = noise(1, 2, *SIZE), noise(1, 2, *SIZE, seed=1) > 0
    assert torch.equal(torch.jit.script(stand_in)(image, visible), stand_in(image, visible))
