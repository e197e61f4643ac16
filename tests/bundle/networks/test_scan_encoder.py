from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bundle.modalities import BRATS_MODALITIES, all_subsets, presence
from bundle.networks.scan_encoder import Fusion, ScanEncoderNetwork
from bundle.networks.unet import UNet

TWO = torch.tensor([[True, False, True, False], [False, True, True, True]])


def network(skips: str = "mean") -> ScanEncoderNetwork:
    torch.manual_seed(0)
    made = ScanEncoderNetwork(
        4, 3, filters=4, blocks_down=(1, 1, 1), deep_supervision=2, skips=skips
    )
    # Fresh norms have scale 1 and shift 0, with which many a mistake would go unseen.
    for parameter in made.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=1)
    return made.eval()


def image(cases: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(cases, 4, 8, 12, 16, generator=torch.Generator().manual_seed(seed))


def filled(features: Tensor, keep: Tensor, mean: bool) -> Tensor:
    """Write (B, M, C, ...) out, the absent ones filled in: what Fusion never does."""
    rows = []
    for maps, here in zip(features, keep, strict=True):
        stand_in = maps[here].mean(0) if mean else torch.zeros_like(maps[0])
        rows.append(torch.stack([m if h else stand_in for m, h in zip(maps, here, strict=True)]))
    return torch.stack(rows)


@pytest.mark.parametrize("fill", [True, False])
@pytest.mark.parametrize("subset", all_subsets(BRATS_MODALITIES), ids="+".join)
def test_fusion_is_a_convolution_of_the_maps_side_by_side(fill, subset):
    torch.manual_seed(0)
    fuse = Fusion(4, 5, fill)
    keep = torch.stack(
        [presence(subset, BRATS_MODALITIES), torch.tensor([True, False, True, True])]
    )
    features = torch.randn(2, 4, 5, 3, 2, 4)
    case, modality = keep.nonzero(as_tuple=True)
    expected = fuse.mix(filled(features, keep, fill).flatten(1, 2))
    torch.testing.assert_close(fuse(features[keep], keep, case, modality), expected)


@pytest.mark.parametrize("skips", ["mean", "zeros"])
def test_the_network_is_encoder_fusion_and_decoder_in_a_row(skips):
    made, given = network(skips), image()
    levels = [made.encoder(given[:, m : m + 1]) for m in range(4)]
    fused = []
    for level, fuse in enumerate(made.fusion):
        maps = torch.stack([levels[m][level] for m in range(4)], 1)
        mean = skips == "mean" or level == 2
        fused.append(F.conv3d(filled(maps, TWO, mean).flatten(1, 2), fuse.mix.weight))
    expected = made.decoder(fused)
    for ours, theirs in zip(made.deep_logits(given, TWO), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_two_kinds_of_skips_differ_where_something_is_absent_and_only_there():
    mean, zeros, given = network("mean"), network("zeros"), image()
    zeros.load_state_dict(mean.state_dict())
    everything = torch.ones_like(TWO)
    assert torch.equal(mean(given, everything), zeros(given, everything))
    assert not torch.allclose(mean(given, TWO), zeros(given, TWO), atol=1e-2)


@pytest.mark.parametrize("skips", ["mean", "zeros"])
def test_a_lone_scan_does_not_tell_of_which_modality_it_is_where_its_mean_stands_for_the_rest(
    skips,
):
    """A limit of the method, not a wish: what is said of it in docs/lckd.md."""
    made, scan = network(skips), image()[:1, :1]
    alone = [
        made(torch.zeros(1, 4, *scan.shape[2:]).index_copy(1, torch.tensor([m]), scan), row[None])
        for m, row in enumerate(torch.eye(4, dtype=torch.bool))
    ]
    for other in alone[1:]:
        difference = (other - alone[0]).abs().max()
        assert (difference < 1e-5) if skips == "mean" else (difference > 1e-2)


@pytest.mark.parametrize("junk", [1e6, float("nan"), float("inf")])
def test_the_voxels_of_an_absent_modality_change_nothing(junk):
    made, given = network(), image(1)
    for subset in all_subsets(BRATS_MODALITIES)[:-1]:
        present = presence(subset, BRATS_MODALITIES)[None]
        other = given.clone()
        other[~present] = junk
        assert torch.equal(made(other, present), made(given, present))


def test_only_present_scans_are_encoded_one_by_one():
    made, given = network(), image()
    seen = []
    made.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    made(given, TWO)
    assert [tuple(scans.shape) for scans in seen] == [(5, 1, 8, 12, 16)]
    places = [(0, 0), (0, 2), (1, 1), (1, 2), (1, 3)]
    for scan, (case, modality) in zip(seen[0], places, strict=True):
        assert torch.equal(scan[0], given[case, modality])


def test_presence_is_each_cases_own():
    made, given = network(), image()
    alone = [made(given[i : i + 1], TWO[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(made(given, TWO), torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_without_presence_channels_of_zeros_are_absent():
    made, given = network(), image()
    given = given.masked_fill(~TWO[:, :, None, None, None], 0)
    assert torch.equal(made(given), made(given, TWO))


def test_deep_logits_come_finest_first_and_the_output_is_the_first():
    made, given = network(), image()
    logits = made.deep_logits(given, TWO)
    assert [tuple(level.shape) for level in logits] == [(2, 3, 8, 12, 16), (2, 3, 4, 6, 8)]
    assert torch.equal(made(given, TWO), logits[0])


def test_beside_a_unet_of_one_channel_there_is_only_the_fusion():
    own = {k: v.shape for k, v in network().state_dict().items()}
    plain = UNet(1, 3, filters=4, blocks_down=(1, 1, 1), deep_supervision=2).state_dict()
    assert {k: v.shape for k, v in plain.items()}.items() <= own.items()
    added = {k: tuple(v) for k, v in own.items() if k not in plain}
    assert added == {f"fusion.{i}.mix.weight": (4 * 2**i, 16 * 2**i, 1, 1, 1) for i in range(3)}


@pytest.mark.parametrize("subset", ["t2", "t1+flair", "t1+t1ce+t2+flair"])
def test_every_parameter_learns_whatever_is_present(subset):
    torch.manual_seed(0)
    made = ScanEncoderNetwork(4, 3, filters=4, blocks_down=(1, 1), deep_supervision=1)
    made(image(1), presence(subset.split("+"), BRATS_MODALITIES)[None]).square().mean().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name
        assert bool(parameter.grad.isfinite().all()), name


def test_a_batch_without_any_scan_is_refused():
    made = network()
    with pytest.raises(ValueError, match="expected at least one present modality in the batch"):
        made(image(), torch.zeros(2, 4, dtype=torch.bool))


def test_a_case_without_scans_beside_another_is_finite_and_changes_nothing_of_it():
    made, given = network(), image()
    present = TWO & torch.tensor([[True], [False]])
    logits = made(given, present)
    assert bool(logits.isfinite().all())
    torch.testing.assert_close(logits[:1], made(given[:1], TWO[:1]), atol=1e-5, rtol=1e-5)


# MONAI's ckpt_export still scripts.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_the_scripted_network_gives_the_same_numbers():
    made, given = network(), image()
    scripted = torch.jit.script(made)
    torch.testing.assert_close(scripted(given, TWO), made(given, TWO))
    torch.testing.assert_close(scripted(given[:1]), made(given[:1]))


# PyTorch's own instance normalisation compares sizes, which warns in any network's trace.
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_takes_other_subsets_and_sizes_than_those_that_it_was_made_with():
    made = network()
    traced = torch.jit.trace(made, (image(1), torch.ones(1, 4, dtype=torch.bool)))
    other = torch.randn(2, 4, 12, 8, 8, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(traced(other, TWO), made(other, TWO))


def test_an_exported_graph_takes_other_subsets_than_the_one_that_it_was_made_with():
    made, given = network(), image()
    exported = torch.export.export(made, (given, torch.ones_like(TWO))).module()
    torch.testing.assert_close(exported(given, TWO), made(given, TWO), atol=1e-4, rtol=1e-4)
    junk = given.masked_fill(~TWO[:, :, None, None, None], float("nan"))
    torch.testing.assert_close(exported(junk, TWO), made(given, TWO), atol=1e-4, rtol=1e-4)


def test_it_works_in_double_and_in_mixed_precision():
    made, given = network(), image()
    single = made(given, TWO)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = made(given, TWO)
    assert (mixed.float() - single).abs().mean() < 0.05 * single.abs().mean()
    double = made.double()(given.double(), TWO)
    torch.testing.assert_close(double.float(), single, atol=1e-4, rtol=1e-4)


def test_other_words_for_the_skips_are_refused():
    with pytest.raises(ValueError, match="expected skips 'mean' or 'zeros', got 'none'"):
        network("none")
