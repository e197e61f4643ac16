from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer, SlidingWindowInferer
from torch import Tensor

from bundle.inference.inferers import PresenceInferer
from bundle.modalities import BRATS_MODALITIES, OUTSIDE_LOGIT, all_subsets, presence
from bundle.networks.unet import UNet
from bundle.networks.universal import UniversalNetwork

SIZE = (12, 14, 16)
BRAIN = (slice(3, 8), slice(4, 11), slice(5, 13))


def head(*present: bool) -> Tensor:
    """A case (1, M, D, H, W) with noise in the brain of each present modality."""
    image = torch.zeros(1, len(present), *SIZE)
    noise = torch.rand(image[(..., *BRAIN)].shape, generator=torch.Generator().manual_seed(0)) + 1
    image[(..., *BRAIN)] = noise * torch.tensor(present)[:, None, None, None]
    return image


class Recorder:
    """A network that returns its window and notes what it was given."""

    def __init__(self) -> None:
        self.windows: list[Tensor] = []
        self.present: list[Tensor] = []

    def __call__(self, window: Tensor, present: Tensor) -> Tensor:
        self.windows.append(window)
        self.present.append(present)
        return window


def windows_of(*size: int, batch: int = 4) -> SlidingWindowInferer:
    return SlidingWindowInferer(size, sw_batch_size=batch, overlap=0.5, mode="constant")


@pytest.mark.parametrize("inferer", [SimpleInferer(), windows_of(4, 4, 4), windows_of(8, 16, 8)])
@pytest.mark.parametrize("margin", [0, 2, 100])
def test_windows_come_back_to_the_place_they_were_cut_from(inferer, margin):
    image = head(True, True)
    image[:, 1] = image[:, 1] * 3
    box = tuple(
        slice(max(0, s.start - margin), min(n, s.stop + margin))
        for s, n in zip(BRAIN, SIZE, strict=True)
    )
    expected = torch.full_like(image, OUTSIDE_LOGIT)
    expected[(..., *BRAIN)] = image[(..., *BRAIN)]
    network = Recorder()
    logits = PresenceInferer(inferer, margin=margin)(image, network)
    torch.testing.assert_close(logits, expected)
    if isinstance(inferer, SimpleInferer):
        assert torch.equal(network.windows[0], image[(..., *box)])


def test_the_margin_is_counted_in_voxels_wherever_the_volume_has_room():
    image = torch.zeros(1, 2, *SIZE)
    image[0, 0, 0, 6, 15] = 1
    network = Recorder()
    PresenceInferer(SimpleInferer(), margin=3)(image, network)
    assert torch.equal(network.windows[0], image[:, :, :7, 3:10, 9:])


def test_the_box_grows_to_a_multiple_where_the_volume_allows():
    network = Recorder()
    logits = PresenceInferer(SimpleInferer(), margin=0, divisible=8)(head(True, True), network)
    assert tuple(network.windows[0].shape[2:]) == (8, 8, 8)
    assert torch.equal(logits[(..., *BRAIN)], head(True, True)[(..., *BRAIN)])
    PresenceInferer(SimpleInferer(), margin=0, divisible=32)(head(True, True), network)
    assert tuple(network.windows[1].shape[2:]) == SIZE


def test_presence_is_the_cases_in_every_window_even_one_of_zeros():
    image = head(True, True, False)
    image[0, 1, :, :, :9] = 0
    network = Recorder()
    PresenceInferer(windows_of(4, 4, 4), margin=0)(image, network)
    assert any(not window[0, 1].any() for window in network.windows)
    for present in network.present:
        assert bool((present == torch.tensor([True, True, False])).all())


def test_each_case_of_a_batch_has_its_own_presence_and_box():
    first, second = head(True, False, True), head(False, True, True).flip(4)
    inferer = PresenceInferer(windows_of(4, 4, 4), margin=0)
    network = Recorder()
    together = inferer(torch.cat([first, second]), network)
    apart = torch.cat([inferer(first, Recorder()), inferer(second, Recorder())])
    assert torch.equal(together, apart)
    seen = {tuple(row.tolist()) for present in network.present for row in present}
    assert seen == {(True, False, True), (False, True, True)}


def test_what_is_not_present_is_emptied_whatever_it_holds():
    image, other = head(True, True), head(True, True)
    other[:, 1] = float("nan")
    present = torch.tensor([[True, False]])
    inferer = PresenceInferer(windows_of(4, 4, 4))
    given = inferer(image, Recorder(), present=present)
    assert torch.equal(inferer(other, Recorder(), present=present), given)


def test_a_modality_said_to_be_present_but_empty_counts_as_absent():
    network = Recorder()
    inferer = PresenceInferer(SimpleInferer())
    inferer(head(True, False), network, present=torch.tensor([[True, True]]))
    assert network.present[0].tolist() == [[True, False]]


@pytest.mark.parametrize("present", [None, torch.tensor([[True, True], [False, True]])])
def test_a_case_with_nothing_present_is_refused(present):
    second = torch.zeros(1, 2, *SIZE) if present is None else head(True, False)
    with pytest.raises(
        ValueError, match=r"at least one modality .* none in item \[1\] of the batch"
    ):
        PresenceInferer(SimpleInferer())(
            torch.cat([head(True, True), second]), Recorder(), present=present
        )


def test_a_brain_that_fills_the_volume_makes_no_difference():
    torch.manual_seed(0)
    network = UNet(2, 3, filters=4, blocks_down=(1, 1), deep_supervision=1).eval()
    image = torch.randn(1, 2, 16, 16, 24)
    present = torch.ones(1, 2, dtype=torch.bool)
    plain = SlidingWindowInferer((16, 16, 16), sw_batch_size=1, overlap=0.5, mode="gaussian")
    with torch.no_grad():
        expected = plain(image, network)
        assert torch.equal(PresenceInferer(plain)(image, network, present=present), expected)
        assert torch.equal(PresenceInferer(plain)(image, network), expected)


def test_the_network_never_sees_a_meta_tensor():
    network = Recorder()
    logits = PresenceInferer(SimpleInferer())(MetaTensor(head(True, True)), network)
    assert type(network.windows[0]) is type(logits) is Tensor


@pytest.mark.parametrize(("amp", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_mixed_precision_is_the_networks_alone(amp, expected):
    layer, found = torch.nn.Conv3d(2, 3, 1), []

    def network(window: Tensor, present: Tensor) -> Tensor:
        found.append(layer(window))
        return found[-1]

    inferer = PresenceInferer(windows_of(8, 8, 8), margin=0, amp=amp)
    with torch.no_grad():
        logits = inferer(head(True, True), network)
        exact = PresenceInferer(windows_of(8, 8, 8), margin=0)(head(True, True), network)
    assert {logits.dtype for logits in found[: len(found) // 2]} == {expected}
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, exact, atol=0.03, rtol=0.03)
    assert torch.equal(logits, exact) != amp


class Personal(Recorder):
    """A network that is to be asked for the one of a subset."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[bool]] = []

    def personalise(self, present: Tensor) -> Recorder:
        self.asked.append(present.tolist())
        made = Recorder()
        made.windows, made.present = self.windows, self.present
        return made

    def __call__(self, window: Tensor, present: Tensor) -> Tensor:
        raise AssertionError("expected the personalised network to be called")


def test_a_network_that_can_is_personalised_once_a_case():
    batch = torch.cat([head(True, False, True), head(False, True, True)])
    network = Personal()
    inferer = PresenceInferer(windows_of(4, 4, 4), margin=0)
    logits = inferer(batch, network, present=torch.tensor([[True, True, False]] * 2))
    assert network.asked == [[True, False, False], [False, True, False]]
    assert len(network.windows) > 4
    expected = inferer(batch, Recorder(), present=torch.tensor([[True, True, False]] * 2))
    assert torch.equal(logits, expected)


@pytest.fixture
def universal() -> UniversalNetwork:
    torch.manual_seed(0)
    network = UniversalNetwork(2, 3, filters=4, blocks_down=(1, 1), deep_supervision=1).eval()
    for parameter in network.hypernetwork.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.normal_(network.hypernetwork.prompts)
    torch.nn.init.normal_(network.autoencoder.stand_in.tile)
    return network


def test_personalised_windows_are_those_of_the_whole_network(universal):
    batch = torch.cat([head(True, False), head(True, True)])
    inferer = PresenceInferer(windows_of(4, 4, 4), margin=0)
    with torch.no_grad():
        found = inferer(batch, universal)
        plain = inferer(batch, lambda window, present: universal(window, present))
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)


def test_a_scripted_network_is_called_as_it_is(universal):
    inferer, case = PresenceInferer(windows_of(4, 4, 4), margin=0), head(True, False)
    with torch.no_grad():
        expected = inferer(case, universal)
        found = inferer(case, torch.jit.script(universal))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_scripted_network_that_was_saved_is_called_as_it_is(universal, tmp_path):
    torch.jit.script(universal).save(tmp_path / "model.ts")
    loaded = torch.jit.load(tmp_path / "model.ts")
    inferer, case = PresenceInferer(windows_of(4, 4, 4), margin=0), head(True, False)
    with torch.no_grad():
        found, expected = inferer(case, loaded), inferer(case, universal)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [UNet, UniversalNetwork])
def test_channels_side_by_side_change_no_value(kind):
    torch.manual_seed(0)
    network = kind(4, 3, filters=4, blocks_down=(1, 1), deep_supervision=1).eval()
    image = head(True, False, True, True)
    with torch.no_grad():
        expected = PresenceInferer(windows_of(4, 4, 4))(image, network)
        turned = PresenceInferer(windows_of(4, 4, 4), channels_last=True)(image, network)
    torch.testing.assert_close(turned, expected)
    weights = [m.weight for m in network.modules() if isinstance(m, torch.nn.Conv3d)]
    wide = [w for w in weights if w.shape[1] > 1 and w.shape[2] > 1]
    # A personalised network is a copy, so that the original stays as it was.
    plain = all(w.is_contiguous() for w in wide)
    assert plain is (kind is UniversalNetwork)


def gappy(count: int = 4) -> Tensor:
    """A case whose modalities each have their own outline, and single zeros inside."""
    made = torch.randn(1, count, *SIZE, generator=torch.Generator().manual_seed(5))
    made[:, :, :2] = 0
    for channel in range(count):
        made[:, channel, :, : 1 + channel] = 0
        made[:, channel, 5 + channel, 8, 3 * channel] = 0
    made[:, :, 6, 7, 8] = 0
    return made


@pytest.fixture(scope="module", params=[UNet, UniversalNetwork, "constant"])
def eager(request):
    """A network that sees tumour everywhere it is not stopped."""
    if request.param == "constant":
        return lambda window, present: torch.full((len(window), 3, *window.shape[2:]), 9.0)
    torch.manual_seed(2)
    return request.param(4, 3, filters=4, blocks_down=(1, 1), deep_supervision=1).eval()


@pytest.mark.parametrize("subset", all_subsets(BRATS_MODALITIES), ids="+".join)
@torch.no_grad()
def test_nothing_is_tumour_where_all_that_is_given_is_zero(subset, eager):
    present = presence(subset, BRATS_MODALITIES)[None]
    image = gappy()
    logits = PresenceInferer(windows_of(8, 8, 8), margin=2)(image, eager, present=present)
    given = image[0, present[0]]
    outside = (given == 0).all(0)
    assert bool(outside[6, 7, 8])
    assert bool((logits[0][:, outside] == OUTSIDE_LOGIT).all())
    assert bool((logits[0][:, ~outside] != OUTSIDE_LOGIT).all())


def test_the_rule_holds_for_each_case_of_a_batch_and_for_a_personalised_network():
    class Eager(Recorder):
        def __call__(self, window, present):
            return window.new_full(window.shape, 9.0)

        def personalise(self, present):
            return Eager()

    batch = torch.cat([gappy(3), gappy(3).flip(2)])
    present = torch.tensor([[True, False, False], [False, True, True]])
    logits = PresenceInferer(SimpleInferer(), margin=1)(batch, Eager(), present=present)
    for case, row, found in zip(batch, present, logits, strict=True):
        inside = (case[row] != 0).any(0)
        assert torch.equal(found, torch.where(inside, 9.0, OUTSIDE_LOGIT).expand(3, -1, -1, -1))
