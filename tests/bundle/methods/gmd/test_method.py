from __future__ import annotations

import logging
from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from bundle.methods.gmd.gradients import REDUCTIONS, decouple_gradients
from bundle.methods.gmd.method import GMD, can_form, draw_subsets
from bundle.modalities import BRATS_MODALITIES, parse_subset, presence
from bundle.networks.dynamic_sharing import DynamicSharing
from bundle.networks.unet import UNet
from bundle.training.engine import MethodHandlers, MethodIteration

SIDE = 8
PRESENT = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 0], [1, 0, 0, 1]], dtype=torch.bool)
COMPLETE = torch.ones(2, 4, dtype=torch.bool)


@pytest.fixture
def method(criteria):
    """Give method(network, dtype, **options): GMD with the same weights every time."""

    def make(network: type[nn.Module] = DynamicSharing, dtype=torch.float32, **options: Any) -> GMD:
        torch.manual_seed(0)
        made = network(4, 3, filters=4, blocks_down=(1, 1, 1), deep_supervision=2).to(dtype)
        return GMD(made, criteria, BRATS_MODALITIES, **options)

    return make


@pytest.fixture
def batch(batch):
    return partial(batch, side=SIDE)


@pytest.fixture
def opposed(batch) -> dict[str, Tensor]:
    """Two cases without a common modality, what is tumour in one being healthy in the other."""
    given = batch(torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.bool))
    given["label"][1] = 1 - given["label"][0]
    return given


def seeded(made: GMD, given: dict[str, Tensor], seed: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return made.losses(given)


def gradients(made: GMD) -> dict[str, Tensor | None]:
    found = {name: p.grad for name, p in made.network.named_parameters()}
    made.zero_grad(set_to_none=True)
    return found


def assert_same_gradients(left: dict[str, Tensor | None], right: dict[str, Tensor | None]) -> None:
    for name, value in left.items():
        if value is None:
            assert right[name] is None, name
        else:
            torch.testing.assert_close(value, right[name], atol=1e-6, rtol=1e-4)


def rows(*names: str) -> Tensor:
    return torch.stack([presence(name.split("+"), BRATS_MODALITIES) for name in names])


@pytest.mark.parametrize("network", [DynamicSharing, UNet])
def test_each_subset_has_the_loss_of_the_cases_that_can_form_it(network, method, batch):
    made, given = method(network), batch()
    losses = seeded(made, given)
    assert len(losses) == 4
    for name, term in losses.items():
        subset = rows(name)
        cases = can_form(PRESENT, subset)[0]
        logits = made.network.deep_logits(
            given["image"][cases], subset.expand(int(cases.sum()), -1)
        )
        label = given["label"][cases].float()
        expected = sum(criterion(logits, label) for criterion in made.criteria.values()) / 4
        torch.testing.assert_close(term, expected, atol=1e-5, rtol=1e-5)
        assert term.shape == ()


def test_a_case_has_no_say_in_subsets_that_it_cannot_form(method, batch):
    made, given = method(subsets_per_step=None), batch()
    label = given["label"].clone()
    label[1] = 1 - label[1]
    expected, found = seeded(made, given), seeded(made, {**given, "label": label})
    changed = {name for name in expected if not torch.equal(expected[name], found[name])}
    assert changed == {"t2"}


def test_no_subset_twice_and_none_that_no_case_can_form():
    present = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1]], dtype=torch.bool)
    formed = {"t1", "t1ce", "t1+t1ce", "flair", "t1ce+flair"}
    names = {tuple(row.tolist()): name for name in formed for row in rows(name)}
    seen: Counter[str] = Counter()
    for _ in range(600):
        drawn = [names[tuple(row)] for row in draw_subsets(present, 2).tolist()]
        assert len(set(drawn)) == 2
        seen.update(drawn)
    # Each in 2 of 5 draws: 240 of 600, with a standard deviation of 12.
    assert set(seen) == formed
    assert all(190 < count < 290 for count in seen.values())
    for count in (5, 9, None):
        assert len(draw_subsets(present, count)) == 5


def test_what_is_drawn_comes_from_the_generator():
    draws = [
        draw_subsets(COMPLETE, 4, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5)
    ]
    assert torch.equal(*draws)
    torch.manual_seed(5)
    assert torch.equal(draw_subsets(COMPLETE, 4), draws[0])


def test_who_can_form_what():
    subsets = rows("t1", "t2", "t1+flair", "t1+t1ce+t2+flair")
    assert can_form(PRESENT, subsets).tolist() == [
        [True, False, True],
        [True, True, False],
        [True, False, True],
        [True, False, False],
    ]


def test_a_case_with_nothing_is_passed_over_and_a_batch_with_nothing_is_refused(method, batch):
    made = method(subsets_per_step=None)
    present = torch.tensor([[False] * 4, [False, True, False, False]])
    losses = made.losses(batch(present))
    assert list(losses) == ["t1ce"]
    torch.testing.assert_close(losses["t1ce"], made.losses(tail(batch(present)))["t1ce"])
    made.backward(losses)
    assert all(g is None or bool(g.isfinite().all()) for g in gradients(made).values())
    with pytest.raises(ValueError, match="no case of the batch has any modality"):
        made.losses(batch(torch.zeros(2, 4, dtype=torch.bool)))


def tail(given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[1:] for name, value in given.items()}


def test_each_modality_is_encoded_once_whatever_the_number_of_subsets(method, batch):
    made, volumes = method(subsets_per_step=None), []
    made.network.encoder.register_forward_hook(
        lambda module, given, out: volumes.append((given[1], len(given[0])))
    )
    losses = made.losses(batch())
    assert len(losses) == 15
    assert volumes == [(0, 2), (1, 1), (2, 2), (3, 2)]


def test_what_no_drawn_subset_asks_for_is_not_encoded(method, batch):
    made, volumes = method(subsets_per_step=1), []
    made.network.encoder.register_forward_hook(
        lambda module, given, out: volumes.append((given[1], len(given[0])))
    )
    for seed in range(8):
        volumes.clear()
        (name,) = seeded(made, batch(), seed)
        subset = rows(name)
        cases = int(can_form(PRESENT, subset).sum())
        assert volumes == [(m, cases) for m in subset[0].nonzero().flatten().tolist()]


class Walks:
    """Counts multiply-adds of convolutions, forward, and twice as many for each walk backward."""

    def __init__(self, network: nn.Module) -> None:
        self.total, self.encoder_walks = 0, 0
        for name, layer in network.named_modules():
            if isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d)):
                layer.register_forward_hook(lambda *call, name=name: self.forward(name, *call))

    def forward(self, name: str, layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        voxels = given[0] if isinstance(layer, nn.ConvTranspose3d) else out
        work = voxels[:, 0].numel() * layer.weight.numel()
        self.total += work

        def walked(slope: Tensor) -> None:
            self.total += 2 * work
            self.encoder_walks += name == "encoder.conv_init"

        out.register_hook(walked)


def walks(made: GMD, given: dict[str, Tensor], seed: int) -> tuple[Walks, list[str]]:
    counted = Walks(made.network)
    losses = seeded(made, given, seed)
    made.backward(losses)
    return counted, list(losses)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("present", [COMPLETE, PRESENT])
def test_only_a_subsets_own_branches_are_walked_back_and_a_step_costs_less_than_twice(
    seed, present, method, batch
):
    decoupled, names = walks(method(), batch(present), seed)
    assert decoupled.encoder_walks == sum(len(name.split("+")) for name in names)
    plain, _ = walks(method(decouple=False), batch(present), seed)
    assert plain.encoder_walks == len({m for name in names for m in name.split("+")})
    assert plain.total < decoupled.total < 2.0 * plain.total


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_step_is_the_decoupled_gradient_of_the_subsets_losses(reduction, method, opposed):
    made = method(dtype=torch.float64, reduction=reduction)
    given = {**opposed, "image": opposed["image"].double()}
    losses = seeded(made, given)
    order = torch.get_rng_state()
    made.backward(losses)
    found = gradients(made)
    assert made.dominance.scalars()["conflict_rate"] > 0
    # One by one, each through a graph of its own.
    terms = [len(losses) * seeded(made, given)[name] for name in losses]
    torch.set_rng_state(order)
    decouple_gradients(terms, list(made.network.parameters()), reduction=reduction)
    assert_same_gradients(found, gradients(made))


def test_without_decoupling_it_is_the_plain_mean(method, opposed):
    plain = method(decouple=False)
    plain.backward(seeded(plain, opposed))
    found = gradients(plain)
    losses = seeded(plain, opposed)
    torch.stack([len(losses) * term for term in losses.values()]).mean().backward()
    assert_same_gradients(found, gradients(plain))
    assert plain.dominance.scalars() == {}
    made = method()
    made.backward(seeded(made, opposed))
    other = gradients(made)
    assert made.dominance.scalars()["conflict_rate"] > 0
    name = "decoder.levels.1.head.weight"
    assert not torch.allclose(other[name], found[name], atol=1e-3)


def test_norms_that_no_drawn_subset_reaches_are_left_alone(method, batch):
    made = method(subsets_per_step=1)
    losses = seeded(made, batch())
    made.backward(losses)
    (names,) = (parse_subset(name, BRATS_MODALITIES) for name in losses)
    for name, slope in gradients(made).items():
        at = name.split(".norms.")[1][0] if ".norms." in name else None
        reached = at is None or BRATS_MODALITIES[int(at)] in names
        assert (slope is not None) == reached, name


def test_norms_of_one_modality_get_a_sum_where_the_public_code_has_one(method, batch):
    found = {}
    for reduction in ("mean", "mean_where_shared"):
        made = method(reduction=reduction)
        made.backward(seeded(made, batch(COMPLETE)))
        found[reduction] = gradients(made)
    # The draw of this seed leaves no modality that all four subsets have.
    for name, slope in found["mean"].items():
        factor = 4 if ".norms." in name else 1
        torch.testing.assert_close(found["mean_where_shared"][name], factor * slope)


def test_mixed_precision_stays_finite_and_near(method, batch):
    # PyTorch's bfloat16 convolution on a CPU now and then makes NaN of a volume of 2x2x2 voxels.
    made, given = method(), batch(side=16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = seeded(made, given)
    single = seeded(made, given)
    for name, term in mixed.items():
        assert term.item() == pytest.approx(single[name].item(), rel=0.05), name
    made.backward(mixed)
    assert all(g is None or bool(g.isfinite().all()) for g in gradients(made).values())


@pytest.fixture
def trainer(batch):
    """Give trainer(method, steps): an engine of two batches, which steps after that many."""

    def make(made: GMD, steps: int = 1) -> SupervisedTrainer:
        return SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=1,
            train_data_loader=[batch(COMPLETE), batch(PRESENT)],
            network=made,
            optimizer=torch.optim.SGD(made.parameters(), lr=0.05),
            loss_function=made.losses,
            iteration_update=MethodIteration(clip_norm=None),
            accumulation_steps=steps,
            train_handlers=[MethodHandlers()],
            decollate=False,
        )

    return make


def test_the_engine_accumulates_and_logs(method, batch, trainer):
    made, other = method(), method()
    torch.manual_seed(8)
    engine = trainer(made, steps=2)
    outputs = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: outputs.append(e.state.output))
    engine.run()
    torch.manual_seed(8)
    for given in (batch(COMPLETE), batch(PRESENT)):
        other.backward({name: term / 2 for name, term in other.losses(given).items()})
    torch.optim.SGD(other.parameters(), lr=0.05).step()
    for name, value in other.network.state_dict().items():
        torch.testing.assert_close(made.network.state_dict()[name], value)
    for output in outputs:
        assert len(output) == 5
        assert output["loss"] == pytest.approx(sum(v for k, v in output.items() if k != "loss"))
    shares = [engine.state.metrics[f"dominance_{name}"] for name in BRATS_MODALITIES]
    assert sum(shares) == pytest.approx(1.0)
    assert 0 <= engine.state.metrics["conflict_rate"] <= 1
    assert engine.state.metrics == {**engine.state.metrics, **made.dominance.scalars()}


def test_a_trainer_that_runs_again_shows_once_a_step_and_logs_at_the_end(method, trainer, caplog):
    made, calls = method(), []
    engine = trainer(made)
    plain = made.dominance.scalars
    made.dominance.scalars = lambda: calls.append(0) or plain()
    with caplog.at_level(logging.INFO, logger="bundle.methods.gmd.method"):
        engine.run()
        first = made.dominance.describe()
        engine.run()
    # After each of four steps and at each of two ends, and once here.
    assert len(calls) == 4 + 2 + 1
    assert caplog.messages == [first, made.dominance.describe()]
    assert first != made.dominance.describe()


def test_without_decoupling_nothing_is_logged_at_the_end(method, trainer, caplog):
    with caplog.at_level(logging.INFO, logger="bundle.methods.gmd.method"):
        trainer(method(decouple=False)).run()
    assert caplog.messages == []


def test_the_dominance_is_part_of_the_state_and_not_of_the_network(method, trainer):
    made = method()
    trainer(made).run()
    other = method()
    other.load_state_dict(made.state_dict())
    assert other.dominance.scalars() == made.dominance.scalars() != {}
    assert not [name for name in made.network.state_dict() if "dominance" in name]


def test_it_learns(method, batch):
    made, given = method(), batch(COMPLETE)
    given["image"] = given["image"][:, :1].expand(-1, 4, -1, -1, -1)
    given["label"] = (given["image"][:, :3] > 0.5).to(torch.uint8)
    before = sum(term.item() for term in seeded(made, given, 0).values())
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.01)
    for step in range(12):
        optimizer.zero_grad()
        made.backward(seeded(made, given, step))
        optimizer.step()
    assert sum(term.item() for term in seeded(made, given, 0).values()) < 0.8 * before


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"subsets_per_step": 0}, "subsets_per_step of at least 1, got 0"),
        ({"reduction": "median"}, "expected a reduction among .*got 'median'"),
    ],
)
def test_settings_out_of_range_are_refused(options, text, method):
    with pytest.raises(ValueError, match=text):
        method(**options)
