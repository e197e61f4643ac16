from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bundle.methods.gmd.dominance import Dominance
from bundle.methods.gmd.gradients import GradientReport

MODALITIES = ("a", "b", "c")
A, B, AB, C = ([1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1])


def step(*rows: list[float]) -> GradientReport:
    """The report on these gradients."""
    gradients = torch.tensor(rows, dtype=torch.float64)
    return GradientReport(gradients @ gradients.T, torch.ones(len(rows), dtype=torch.float64))


def subsets(*rows: list[int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.bool)


def test_before_the_first_step_there_is_nothing_to_show():
    made = Dominance(MODALITIES)
    assert made.scalars() == {}
    assert made.describe() == ""
    assert made.shares().tolist() == [0.0, 0.0, 0.0]
    assert bool(made.mean_norms().isnan().all())


def test_norms_are_relative_to_their_step_and_shares_sum_to_1():
    made = Dominance(MODALITIES)
    made.update(step([3.0, 0.0], [0.0, 1.0]), subsets(A, AB))
    made.update(step([0.0, 500.0], [500.0, 0.0]), subsets(A, B))
    # Codes: a 1, b 2, a+b 3.
    norms = made.mean_norms().tolist()
    assert norms[:3] == [1.25, 1.0, 0.5]
    assert all(map(math.isnan, norms[3:]))
    # Half of a+b's 0.5 goes to each.
    assert made.shares().tolist() == pytest.approx([1.5 / 2.75, 1.25 / 2.75, 0.0])
    assert sum(made.shares().tolist()) == pytest.approx(1.0)


def test_conflicts_are_counted_by_pair_of_subsets():
    made = Dominance(MODALITIES)
    made.update(step([1.0, 0.0], [-1.0, 0.1]), subsets(A, B))
    made.update(step([1.0, 0.0], [1.0, 0.0], [0.0, 1.0]), subsets(B, A, AB))
    # Codes: a 1, b 2, a+b 3.
    assert made.conflicts[:3, :3].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert made.together[:3, :3].tolist() == [[0, 2, 1], [2, 0, 1], [1, 1, 0]]
    assert not made.together[3:].any()
    assert made.scalars()["conflict_rate"] == pytest.approx(1 / 4)


def test_what_is_logged_has_the_modalities_names():
    made = Dominance(MODALITIES)
    made.update(step([2.0, 0.0]), subsets(C))
    assert made.scalars() == {"dominance_a": 0.0, "dominance_b": 0.0, "dominance_c": 1.0}


def test_the_line_for_the_log_has_the_numbers_in_per_cent():
    made = Dominance(MODALITIES)
    made.update(step([3.0, 0.0]), subsets(A))
    assert made.describe() == (
        "shares of the modalities in the gradients' norms: a 100.0 %, b 0.0 %, c 0.0 %"
    )
    made.update(step([3.0, 0.0], [-1.0, 0.0]), subsets(A, AB))
    made.update(step([1.0, 0.0], [0.0, 1.0]), subsets(A, B))
    # Mean norms: a (1 + 1.5 + 1) / 3, b 1, a+b 0.5, half of which goes to each of the two.
    assert made.describe() == (
        "shares of the modalities in the gradients' norms: a 53.1 %, b 46.9 %, c 0.0 %; "
        "pairs of subsets whose gradients were in conflict: 50.0 %"
    )


@pytest.mark.parametrize("row", [[0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_a_step_that_tells_nothing_is_left_out(row):
    made = Dominance(MODALITIES)
    made.update(step(row, row), subsets(A, B))
    assert made.scalars() == {}


def test_a_loss_without_gradient_counts_as_one_of_norm_0():
    made = Dominance(MODALITIES)
    made.update(step([0.0, 0.0], [4.0, 0.0]), subsets(A, B))
    assert made.mean_norms()[:2].tolist() == [0.0, 2.0]


def test_a_state_is_taken_up_again():
    made, other = Dominance(MODALITIES), Dominance(MODALITIES)
    made.update(step([1.0, 0.0], [-1.0, 0.1]), subsets(A, B))
    other.load_state_dict(made.state_dict())
    assert other.scalars() == made.scalars()
    for statistics in (made, other):
        statistics.update(step([5.0, 0.0], [1.0, 0.1]), subsets(AB, B))
    assert other.scalars() == made.scalars()
    for name, value in made.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
