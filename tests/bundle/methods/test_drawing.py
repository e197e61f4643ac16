"""What cases show in training: uniformly drawn, or as evenly as the cases allow."""

from itertools import product
from types import SimpleNamespace

import pytest
import torch

from bundle.methods.baselines.modality_dropout import ModalityDropout
from bundle.methods.drawing import Drawing, balanced_weights, shown_shares
from bundle.methods.gmd.method import draw_subsets
from bundle.modalities import draw_subset, subset_code
from bundle.networks.unet import UNet
from bundle.training.census import TrainingCensus
from bundle.training.datasets import patterns_of

ALL = torch.tensor(list(product((False, True), repeat=4)))[1:]


def balanced(patterns):
    drawing = Drawing("balanced")
    drawing.learn(patterns)
    return drawing


def absent_at_random(*rates, cases=20_000):
    """Return patterns as often as independent absence makes them, never all absent."""
    chances = torch.ones(len(ALL))
    for column, rate in enumerate(rates):
        chances *= torch.where(ALL[:, column], 1 - rate, rate)
    counts = (cases * chances / chances.sum()).round().long()
    return ALL.repeat_interleave(counts, 0)


def shown_by(weights, patterns):
    codes, counts = subset_code(patterns).unique(return_counts=True)
    subsets = torch.arange(len(weights))
    within = (subsets[None] & ~codes[:, None] == 0) & (subsets > 0)
    return shown_shares(weights, within, counts / counts.sum())[1:]


def divergence(shown):
    """Kullback-Leibler divergence of an even share of 15 subsets from what is shown."""
    return float((1 / 15 * torch.log(1 / 15 / shown)).sum())


@pytest.mark.parametrize(
    ("rates", "uniform", "balanced"),
    [
        ((0.0,) * 4, 0.0, 0.0),
        ((0.3,) * 4, 0.17, 0.0),
        ((0.5,) * 4, 0.50, 0.0),
        ((0.8,) * 4, 1.58, 0.62),
        ((0.2, 0.4, 0.6, 0.8), 0.83, 0.29),
    ],
)
def test_balanced_weights_come_as_near_to_even_as_can_be(rates, uniform, balanced):
    patterns = absent_at_random(*rates)
    assert divergence(shown_by(torch.zeros(16), patterns)) == pytest.approx(uniform, abs=0.01)
    assert divergence(shown_by(balanced_weights(patterns), patterns)) == pytest.approx(
        balanced, abs=0.01
    )


def test_what_no_case_can_show_has_no_weight():
    weights = balanced_weights(torch.tensor([[True, False, True], [True, False, False]]))
    assert weights.isfinite().nonzero().flatten().tolist() == [1, 4, 5]


def test_draws_have_the_chances_of_their_weights():
    """Of whole cases and a lone T1, each subset of two comes a third of the time."""
    patterns = torch.tensor([[True, True]] * 2 + [[True, False]])
    drawing = balanced(patterns)
    shown = drawing(patterns.repeat(3000, 1), torch.Generator().manual_seed(0))
    assert not bool((shown & ~patterns.repeat(3000, 1)).any())
    shares = torch.bincount(subset_code(shown), minlength=4) / len(shown)
    assert shares.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3], abs=0.02)


def test_uniform_draws_are_the_former_ones():
    present = torch.tensor([[True, True, False, True]] * 50)
    seeded = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    assert torch.equal(Drawing()(present, seeded[0]), draw_subset(present, seeded[1]))


def test_a_pattern_that_no_training_case_has_is_drawn_from_all_the_same():
    drawing = balanced(torch.tensor([[True, False]] * 3))
    shown = drawing(torch.tensor([[False, True]] * 4))
    assert shown.tolist() == [[False, True]] * 4


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match=r"drawing: expected one of \['uniform', 'balanced'\]"):
        Drawing("even")
    with pytest.raises(ValueError, match=r"expected training cases .* got none"):
        balanced(ALL[:0])
    with pytest.raises(RuntimeError, match="before it has learnt what training cases have"):
        Drawing("balanced")(ALL)
    with pytest.raises(ValueError, match="a case has no modality present"):
        balanced(ALL)(torch.zeros(1, 4, dtype=torch.bool))


def test_patterns_are_read_from_the_datalist():
    cases = [{"image": {"t1": "a", "t2": None}}, {"image": {"t2": "b"}}]
    assert patterns_of(cases, ("t1", "t2")).tolist() == [[True, False], [False, True]]
    assert patterns_of([], ("t1", "t2")).shape == (0, 2)


def test_the_census_of_the_trainers_cases_reaches_the_method():
    method = ModalityDropout(torch.nn.Identity(), {}, drawing=Drawing("balanced"))
    data = SimpleNamespace(data=[{"image": {"t1": "a"}}, {"image": {"t1": "b", "t2": "c"}}])
    TrainingCensus(method, ("t1", "t2")).take(data)
    # Half of the cases show T1 alone, so that the others show T2 and both.
    shown = method.drawing(torch.ones(4000, 2, dtype=torch.bool), torch.Generator().manual_seed(0))
    shares = torch.bincount(subset_code(shown), minlength=4) / 4000
    assert shares.tolist() == pytest.approx([0, 0, 0.5, 0.5], abs=0.05)
    uniform = ModalityDropout(torch.nn.Identity(), {})
    TrainingCensus(uniform, ("t1", "t2")).take(data)
    assert uniform.drawing.weights is None


def test_gmd_prefers_the_subsets_of_larger_weight():
    present = torch.ones(2, 4, dtype=torch.bool)
    weights = torch.full((16,), -torch.inf)
    weights[[1, 6]] = 0.0
    drawn = draw_subsets(present, 2, weights=weights)
    assert sorted(subset_code(drawn).tolist()) == [1, 6]
    assert len(draw_subsets(present, None, weights=weights)) == 15


class Counting(UNet):
    """A network that notes what it was shown."""

    def deep_logits(self, image, present):
        self.shown = [*getattr(self, "shown", []), present]
        return super().deep_logits(image, present)


def test_a_share_of_the_batch_is_shown_whole_once_more():
    torch.manual_seed(0)
    network = Counting(2, 1, filters=4, blocks_down=[1, 1], deep_supervision=1)
    criteria = {"size": _MeanOfFinest()}
    present = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    batch = {
        "image": torch.randn(4, 2, 8, 8, 8),
        "present": present,
        "label": torch.zeros(4, 1, 8, 8, 8),
    }
    losses = ModalityDropout(network, criteria, whole_share=0.5).losses(batch)
    assert list(losses) == ["size", "whole_size"]
    first, second = network.shown
    assert torch.equal(second, present[:2])
    assert not bool((first & ~present).any())
    whole = network.deep_logits(batch["image"][:2], present[:2])
    assert losses["whole_size"].item() == pytest.approx(0.5 * whole[0].mean().item(), abs=1e-6)
    with pytest.raises(ValueError, match="whole_share from 0 to 1, got 2"):
        ModalityDropout(network, criteria, whole_share=2)


class _MeanOfFinest(torch.nn.Module):
    def forward(self, logits, label):
        return logits[0].mean()
