from __future__ import annotations

import warnings

import pytest
import torch
from monai.optimizers import WarmupCosineSchedule
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from bundle.training.schedule import continue_optimizer


def polynomial(optimizer, epochs):
    return PolynomialLR(optimizer, total_iters=epochs, power=0.9)


def cosine(optimizer, epochs):
    return CosineAnnealingLR(optimizer, T_max=epochs, eta_min=1e-6)


def warmup(optimizer, epochs):
    return WarmupCosineSchedule(optimizer, warmup_steps=2, t_total=epochs)


def parts(optimizer, epochs):
    rising, falling = (
        LinearLR(optimizer, total_iters=2),
        PolynomialLR(optimizer, total_iters=epochs),
    )
    return SequentialLR(optimizer, [rising, falling], milestones=[2])


class Course:
    """An optimiser and its schedule over a few epochs of one step."""

    def __init__(self, schedule=polynomial, epochs=6, groups=1, **options):
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(2, 1) for _ in range(groups))
        params = [{"params": layer.parameters()} for layer in self.layers]
        self.optimizer = AdamW(params, **{"lr": 0.1, "weight_decay": 0.01} | options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.scheduler = schedule and schedule(self.optimizer, epochs)

    def run(self, epochs):
        """Train, and return the rate of each epoch."""
        rates = []
        for _ in range(epochs):
            rates.append(self.optimizer.param_groups[0]["lr"])
            self.optimizer.zero_grad()
            sum(layer(torch.ones(1, 2)).sum() for layer in self.layers).backward()
            self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step()
        return rates

    def resume(self, other):
        """Go on from where another course stands, and return what is said."""
        states = other.optimizer.state_dict(), other.scheduler and other.scheduler.state_dict()
        return continue_optimizer(self.optimizer, self.scheduler, *states)


def stopped(*args, after=2, **options):
    course = Course(*args, **options)
    course.run(after)
    return course


@pytest.mark.parametrize("schedule", [polynomial, cosine, warmup, parts])
def test_without_a_change_every_number_is_as_it_was(schedule):
    resumed = Course(schedule)
    assert resumed.resume(stopped(schedule)) == []
    assert resumed.run(4) == Course(schedule).run(6)[2:]
    whole = Course(schedule)
    whole.run(6)
    assert resumed.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("schedule", [polynomial, cosine, warmup, parts])
def test_a_new_rate_takes_effect_on_its_own_curve(schedule):
    resumed = Course(schedule, lr=0.003)
    assert resumed.resume(stopped(schedule)) == ["learning_rate: 0.1, now 0.003"]
    assert resumed.run(4) == Course(schedule, lr=0.003).run(6)[2:]


@pytest.mark.parametrize("schedule", [polynomial, cosine, warmup])
@pytest.mark.parametrize("epochs", [4, 20])
def test_another_length_bends_the_curve_from_here_on(schedule, epochs):
    resumed = Course(schedule, epochs=epochs)
    (line,) = resumed.resume(stopped(schedule))
    assert line.startswith("lr_scheduler's ")
    assert line.endswith(f": 6, now {epochs}")
    assert resumed.run(2) == Course(schedule, epochs=epochs).run(4)[2:]


def test_a_finished_training_that_is_made_longer_has_a_rate_again():
    resumed = Course(epochs=12)
    resumed.resume(stopped(after=6))
    assert resumed.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**0.9)


def test_the_optimisers_numbers_take_effect_and_its_moments_stay():
    before, resumed = stopped(), Course(weight_decay=0.5, betas=(0.8, 0.999))
    said = resumed.resume(before)
    assert sorted(said) == [
        "optimizer's betas: (0.9, 0.999), now (0.8, 0.999)",
        "optimizer's weight_decay: 0.01, now 0.5",
    ]
    assert resumed.optimizer.param_groups[0]["weight_decay"] == 0.5
    mine, theirs = resumed.optimizer.state_dict()["state"], before.optimizer.state_dict()["state"]
    assert all(torch.equal(mine[0][name], theirs[0][name]) for name in theirs[0])


def test_the_same_numbers_written_otherwise_are_no_change():
    resumed = Course(lr=1, weight_decay=0, betas=[0.9, 0.999])
    assert resumed.resume(stopped(lr=1.0, weight_decay=0.0)) == []


def test_a_rate_without_a_schedule_takes_effect():
    resumed = Course(None, lr=0.02)
    assert resumed.resume(stopped(None)) == ["learning_rate: 0.1, now 0.02"]
    assert resumed.run(1) == [0.02]


def test_groups_that_share_a_rate_are_said_once():
    resumed = Course(lr=0.003, groups=2)
    assert resumed.resume(stopped(groups=2)) == ["learning_rate: 0.1, now 0.003"]
    assert [group["lr"] for group in resumed.optimizer.param_groups] == resumed.run(1) * 2


def test_a_rate_that_follows_a_metric_goes_on_and_says_so(caplog):
    def plateau(optimizer, epochs):
        return ReduceLROnPlateau(optimizer, patience=0)

    before = Course(plateau)
    for loss in (1.0, 2.0, 3.0):
        before.scheduler.step(loss)
    resumed = Course(plateau, lr=0.5)
    assert resumed.resume(before) == []
    assert resumed.optimizer.param_groups[0]["lr"] == pytest.approx(0.001)
    assert "follows a metric: it goes on at 0.001" in caplog.text
    assert "has no effect" in caplog.text
