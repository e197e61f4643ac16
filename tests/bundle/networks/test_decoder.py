from __future__ import annotations

import pytest
import torch
from monai.networks.nets import SegResNetDS
from torch import Tensor

from bundle.networks.decoder import Decoder

FILTERS, REGIONS = 4, 3
# Levels of the encoder and how many of the decoder's are supervised.
SHAPES = [(2, 1), (3, 1), (3, 2), (4, 3)]


def decoder(levels: int = 3, deep_supervision: int = 2) -> Decoder:
    torch.manual_seed(0)
    body = SegResNetDS(
        init_filters=FILTERS,
        in_channels=4,
        out_channels=REGIONS,
        norm="instance",
        blocks_down=(1,) * levels,
        dsdepth=deep_supervision,
    )
    made = Decoder(body, deep_supervision)
    # Fresh norms have scale 1 and shift 0, with which many a mistake would go unseen.
    for parameter in made.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=1)
    return made


def skips(levels: int = 3, batch: int = 1, side: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(batch, FILTERS * 2**i, *[side // 2**i] * 3, generator=generator)
        for i in range(levels)
    ]


def rows(batch: int, count: int, seed: int = 2) -> Tensor:
    return 0.5 * torch.randn(batch, count, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("levels", "deep_supervision"), SHAPES)
def test_there_is_a_change_for_every_number_of_norms_and_heads(levels, deep_supervision):
    channels = [FILTERS * 2**i for i in range(levels - 1)]
    norms = sum(2 * 2 * width for width in channels)
    heads = sum(REGIONS * width + REGIONS for width in channels[:deep_supervision])
    made = decoder(levels, deep_supervision)
    assert made.changes == norms + heads
    rewritable = [n for n, _ in made.named_parameters() if "norm" in n or "head" in n]
    assert made.changes == sum(made.get_parameter(name).numel() for name in rewritable)


@pytest.mark.parametrize(("levels", "deep_supervision"), SHAPES)
def test_no_change_is_the_same_as_changes_of_zero(levels, deep_supervision):
    made, features = decoder(levels, deep_supervision), skips(levels, batch=2)
    plain = made(features)
    sides = [(2, REGIONS, *[16 // 2**i] * 3) for i in range(deep_supervision)]
    assert [tuple(logits.shape) for logits in plain] == sides
    for ours, theirs in zip(made(features, torch.zeros(2, made.changes)), plain, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("levels", "deep_supervision"), SHAPES)
def test_changes_written_into_the_parameters_give_the_same_logits(levels, deep_supervision):
    made, features = decoder(levels, deep_supervision), skips(levels, batch=2)
    changes = rows(1, made.changes)
    dynamic = made(features, changes.expand(2, -1))
    for ours, theirs in zip(made.rewritten(changes[0])(features), dynamic, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(dynamic[0], made(features)[0], atol=0.1)


def test_changes_come_level_by_level_coarsest_first_and_the_head_after_the_norms():
    made = decoder()
    changes = rows(1, made.changes)[0]
    old, new = made.state_dict(), made.rewritten(changes).state_dict()
    # Channels of the level and where its changes start: 59 of 8 channels, then 31 of 4.
    for level, (width, start) in enumerate([(8, 0), (4, 59)]):
        for norm in (1, 2):
            weight, bias = (f"levels.{level}.blocks.0.norm{norm}.{n}" for n in ("weight", "bias"))
            scale, shift = changes[start : start + 2 * width].split(width)
            torch.testing.assert_close(new[weight], old[weight] * (1 + scale))
            torch.testing.assert_close(new[bias], old[bias] * (1 + scale) + shift)
            start += 2 * width
        weight, bias = (f"levels.{level}.head.{n}" for n in ("weight", "bias"))
        turned, moved = changes[start : start + 3 * width + 3].split([3 * width, 3])
        torch.testing.assert_close(new[weight], old[weight] + turned.view_as(old[weight]))
        torch.testing.assert_close(new[bias], old[bias] + moved)


def test_rewriting_leaves_the_decoder_itself_alone():
    made = decoder()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    new = made.rewritten(rows(1, made.changes)[0])
    assert all(torch.equal(made.state_dict()[name], value) for name, value in before.items())
    kept = {name for name in before if torch.equal(new.state_dict()[name], before[name])}
    assert kept == {name for name in before if "conv" in name or "upsample" in name}


def test_each_case_of_a_batch_has_its_own_changes():
    made, features = decoder(), skips(batch=3)
    changes = rows(3, made.changes)
    together = made(features, changes)
    for case in range(3):
        row = slice(case, case + 1)
        alone = made([level[row] for level in features], changes[row])
        for ours, theirs in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[row], theirs, atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_change_of_the_own_case_alone():
    made = decoder()
    changes = rows(2, made.changes).requires_grad_()
    logits = made(skips(batch=2), changes)
    sum(level[0].square().sum() for level in logits).backward()
    assert bool((changes.grad[0] != 0).all())
    assert bool((changes.grad[1] == 0).all())


def test_changes_work_in_double_and_in_mixed_precision():
    made, features = decoder(), skips()
    changes = rows(1, made.changes)
    single = made(features, changes)[0]
    double = made.double()([level.double() for level in features], changes.double())[0]
    torch.testing.assert_close(double.float(), single, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = made.float()(features, changes)[0]
    error = (mixed.float() - single).abs().mean() / single.abs().mean()
    assert error < 0.03
