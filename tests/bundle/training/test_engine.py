from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedTrainer
from monai.transforms import Compose, RandGaussianNoised
from torch import nn

from bundle.methods.base import Method
from bundle.training.engine import (
    EpochSeed,
    MethodHandlers,
    MethodIteration,
    Progress,
    epoch_seed,
    to_device,
)

CPU = torch.device("cpu")


class Fit(Method):
    """Fit one 1x1x1 convolution, with a weight penalty as a second term."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Conv3d(2, 1, 1))
        self.attached_to: list = []

    def losses(self, batch):
        error = self.network(batch["image"]) - batch["label"]
        return {"fit": error.square().mean(), "penalty": 0.1 * self.network.weight.square().sum()}

    def attach(self, engine):
        self.attached_to.append(engine)


def make_batch(seed: int, cases: int = 2, scale: float = 1.0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": scale * torch.randn(cases, 2, 3, 3, 3, generator=generator),
        "label": torch.randn(cases, 1, 3, 3, 3, generator=generator),
        "case": [f"case_{seed}_{place}" for place in range(cases)],
    }


def join(*batches: dict) -> dict:
    return {key: torch.cat([batch[key] for batch in batches]) for key in ("image", "label")}


def make_trainer(
    method: Method,
    data,
    clip_norm: float | None = None,
    lr: float = 0.1,
    epochs: int = 1,
    **options,
) -> SupervisedTrainer:
    return SupervisedTrainer(
        device=CPU,
        max_epochs=epochs,
        train_data_loader=data,
        network=method,
        optimizer=torch.optim.SGD(method.parameters(), lr=lr),
        loss_function=method.losses,
        decollate=False,
        **({"iteration_update": MethodIteration(clip_norm)} | options),
    )


def weights(method: Method) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in method.parameters()])


def trained(data: Sequence[dict], **options) -> torch.Tensor:
    method = Fit()
    make_trainer(method, data, **options).run()
    return weights(method)


def test_an_iteration_is_one_plain_gradient_step():
    by_hand = Fit()
    sum(by_hand.losses(make_batch(1)).values()).backward()
    expected = torch.cat([(p - 0.1 * p.grad).detach().flatten() for p in by_hand.parameters()])
    torch.testing.assert_close(trained([make_batch(1)]), expected)


def test_the_output_holds_every_term_and_their_sum():
    method = Fit()
    expected = {name: term.item() for name, term in method.losses(make_batch(1)).items()}
    trainer = make_trainer(method, [make_batch(1)])
    trainer.run()
    assert trainer.state.output == pytest.approx({**expected, "loss": sum(expected.values())})
    assert all(isinstance(value, float) for value in trainer.state.output.values())


def test_accumulating_two_batches_equals_one_step_on_both_together():
    first, second = make_batch(1), make_batch(2)
    accumulated = trained([first, second], accumulation_steps=2)
    torch.testing.assert_close(accumulated, trained([join(first, second)]))
    assert not torch.allclose(accumulated, trained([first, second]))


def test_a_window_that_the_epoch_cuts_short_is_stepped_all_the_same():
    method = Fit()
    trainer = make_trainer(
        method, [make_batch(i) for i in range(3)], epochs=2, accumulation_steps=2
    )
    at = []
    trainer.optimizer.register_step_post_hook(lambda *_: at.append(trainer.state.iteration))
    trainer.run()
    assert at == [2, 3, 5, 6]


@pytest.mark.parametrize("steps", [1, 2])
def test_clipping_bounds_the_whole_gradient(steps):
    data = [make_batch(i, scale=50.0) for i in range(steps)]
    start = weights(Fit())

    def moved(clip_norm: float | None) -> torch.Tensor:
        return trained(data, clip_norm=clip_norm, lr=1.0, accumulation_steps=steps) - start

    assert moved(None).norm() > 100
    assert moved(0.5).norm().item() == pytest.approx(0.5, rel=1e-4)
    direction = moved(None) / moved(None).norm()
    torch.testing.assert_close(moved(0.5), 0.5 * direction, atol=1e-4, rtol=1e-4)


def test_a_small_gradient_is_not_clipped():
    assert torch.equal(trained([make_batch(1)], clip_norm=1e6), trained([make_batch(1)]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_cases_and_steps_nothing(bad):
    broken = make_batch(2)
    broken["image"][0, 0, 0, 0, 0] = bad
    method = Fit()
    trainer = make_trainer(method, [make_batch(1), broken])
    after_first = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: after_first.append(weights(method))
    )
    with pytest.raises(FloatingPointError, match=r"epoch 1, iteration 2 \(fit .*penalty") as caught:
        trainer.run()
    assert "['case_2_0', 'case_2_1']" in str(caught.value)
    assert "--resume true" in str(caught.value)
    assert len(after_first) == 1
    assert torch.equal(weights(method), after_first[0])
    assert all(p.grad is None for p in method.parameters())


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_steps_nothing_either(clip_norm):
    class Root(Fit):
        """The square root of 0 is 0, its slope is not finite."""

        def losses(self, batch):
            return {"root": (0 * self.network(batch["image"])).sum().abs().sqrt()}

    method = Root()
    before = weights(method)
    with pytest.raises(FloatingPointError, match="gradient is not finite in epoch 1, iteration 1"):
        make_trainer(method, [make_batch(1)], clip_norm).run()
    assert torch.equal(weights(method), before)


class Mixed(Fit):
    """Notes in which precision it is asked for its losses, and in which it is to go back."""

    def __init__(self) -> None:
        super().__init__()
        self.forward_types: list = []
        self.backward_amp: list = []

    def losses(self, batch):
        self.forward_types.append(self.network(batch["image"]).dtype)
        return super().losses(batch)

    def backward(self, losses):
        self.backward_amp.append(torch.is_autocast_enabled("cpu"))
        super().backward(losses)


@pytest.mark.parametrize(("amp", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_mixed_precision_on_a_cpu_is_bfloat16_without_a_scaler(amp, expected):
    method = Mixed()
    trainer = make_trainer(method, [make_batch(1)], iteration_update=MethodIteration(None, amp=amp))
    before = weights(method)
    trainer.run()
    assert trainer.scaler is None
    assert method.forward_types == [expected]
    assert method.backward_amp == [False]
    assert weights(method).dtype == torch.float32
    torch.testing.assert_close(weights(method), trained([make_batch(1)]), atol=0.02, rtol=0.02)
    assert not torch.equal(weights(method), before)


def test_the_trainers_own_settings_of_mixed_precision_count():
    method = Mixed()
    options = {"iteration_update": MethodIteration(amp=True)}
    trainer = make_trainer(method, [make_batch(1)], amp_kwargs={"dtype": torch.float16}, **options)
    trainer.run()
    assert method.forward_types == [torch.float16]


def test_a_batch_reaches_the_method_as_plain_tensors():
    moved = to_device({"image": MetaTensor(torch.ones(1)), "case": ["A"]}, CPU)
    assert type(moved["image"]) is torch.Tensor
    assert moved["case"] == ["A"]


def test_the_method_is_attached_once_training_starts():
    method = Fit()
    trainer = make_trainer(method, [make_batch(1)], train_handlers=[MethodHandlers()])
    assert method.attached_to == []
    trainer.run()
    assert method.attached_to == [trainer]


def test_neighbouring_seeds_and_epochs_share_nothing():
    seeds = {epoch_seed(seed, epoch) for seed in range(40) for epoch in range(40)}
    assert len(seeds) == 1600
    assert all(0 <= seed < 2**32 for seed in seeds)


def noisy_loader() -> DataLoader:
    cases = [
        {"image": torch.full((2, 3, 3, 3), float(i)), "label": torch.zeros(1, 3, 3, 3)}
        for i in range(6)
    ]
    noise = Compose([RandGaussianNoised("image", prob=0.7)])
    return DataLoader(Dataset(cases, noise), batch_size=2, shuffle=True, num_workers=0)


def draws_of_epoch(number: int, start: int, seed: int = 0, disturb: bool = False) -> list:
    """Everything random in one epoch of a training that starts after epoch `start`."""
    drawn: list = []
    trainer = make_trainer(Fit(), noisy_loader(), epochs=number, train_handlers=[EpochSeed(seed)])

    def note(engine):
        if engine.state.epoch == number:
            image = engine.state.batch["image"].flatten().tolist()
            drawn.append([image, torch.rand(()).item(), np.random.rand(), random.random()])
        elif disturb:
            torch.rand(5), np.random.rand(5), random.random()

    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    length = len(noisy_loader())
    trainer.add_event_handler(
        Events.STARTED,
        lambda engine: engine.load_state_dict(
            {"epoch": start, "max_epochs": number, "epoch_length": length}
        ),
    )
    trainer.run()
    return drawn


def test_an_epoch_draws_the_same_whatever_came_before():
    expected = draws_of_epoch(3, start=2)
    assert len(expected) == 3
    assert draws_of_epoch(3, start=0) == expected
    assert draws_of_epoch(3, start=1, disturb=True) == expected


def test_another_epoch_and_another_seed_draw_otherwise():
    expected = draws_of_epoch(3, start=2)
    assert draws_of_epoch(2, start=1) != expected
    assert draws_of_epoch(3, start=2, seed=1) != expected


def test_progress_is_silent_where_there_is_no_terminal(capfd):
    progress = Progress("training")
    make_trainer(Fit(), [make_batch(1)], train_handlers=[progress]).run()
    assert capfd.readouterr().err == ""
    assert progress.bar is None


def test_progress_counts_all_iterations_of_the_run(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress, seen = Progress("training"), []
    trainer = make_trainer(Fit(), [make_batch(1), make_batch(2)], epochs=3)
    progress.attach(trainer)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: seen.append((progress.bar.n, progress.bar.total))
    )
    trainer.run()
    assert seen == [(n, 6) for n in range(1, 7)]
