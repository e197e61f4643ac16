from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from bundle.methods.gmd.gradients import REDUCTIONS, GradientReport, decouple_gradients

LOSSES = 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(dtype: torch.dtype = torch.float64) -> nn.Module:
    """A regressor on feature vectors: nothing here is an image."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 1)).to(dtype)


def losses(network: nn.Module, count: int = LOSSES, factor: float = 1.0) -> list[Tensor]:
    """Losses that pull apart: their targets have nothing to do with each other."""
    weight = next(network.parameters())
    given = torch.randn(count, 8, 6, generator=generator(2)).to(weight.dtype)
    targets = torch.randn(count, 8, 1, generator=generator(3)).to(weight.dtype)
    return [factor * (network(x) - y).square().mean() for x, y in zip(given, targets, strict=True)]


def flat(parameters: Sequence[nn.Parameter]) -> Tensor:
    return torch.cat([p.grad.flatten() for p in parameters])


def originals(network: nn.Module, count: int = LOSSES) -> Tensor:
    """Each loss's gradient by an ordinary pass backward: (S, P)."""
    rows = []
    for place in range(count):
        network.zero_grad()
        losses(network, count)[place].backward()
        rows.append(flat(list(network.parameters())))
    network.zero_grad()
    return torch.stack(rows)


def plain_projection(gradients: Tensor, seed: int) -> Tensor:
    """The method as the paper words it, vector by vector: (S, P) decoupled gradients."""
    order, rows = generator(seed), []
    for own in range(len(gradients)):
        current = gradients[own].clone()
        for other in torch.randperm(len(gradients), generator=order).tolist():
            if other == own:
                continue
            product = current @ gradients[other]
            if product < 0:
                current -= product / gradients[other].square().sum() * gradients[other]
        rows.append(current)
    return torch.stack(rows)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [1, 2, LOSSES, 15])
def test_it_equals_the_plain_projection(seed, count):
    network = model()
    gradients = originals(network, count)
    expected = plain_projection(gradients, seed).mean(0)
    parameters = list(network.parameters())
    report = decouple_gradients(losses(network, count), parameters, generator=generator(seed))
    torch.testing.assert_close(flat(parameters), expected, atol=1e-8, rtol=0)
    torch.testing.assert_close(report.gram, gradients @ gradients.T, atol=1e-10, rtol=1e-10)
    if count > 2:
        assert bool(report.conflicts.any())
        assert not torch.allclose(expected, gradients.mean(0), atol=1e-4)


def test_two_vectors_by_hand():
    point = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    given = torch.tensor([[2.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    report = decouple_gradients([point @ row for row in given], [point])
    # (2, 0) without its part along (-1, 1) is (1, 1), and the other way round (0, 1) remains.
    assert point.grad.tolist() == [0.5, 1.0]
    assert report.gram.tolist() == [[4.0, -2.0], [-2.0, 2.0]]
    assert report.norms.tolist() == pytest.approx([2.0, 2**0.5])
    assert report.conflicts.tolist() == [[False, True], [True, False]]
    assert report.weights.tolist() == [1.5, 2.0]


def test_nothing_is_left_of_two_that_are_opposite():
    point = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    row = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    decouple_gradients([point @ row, -2 * (point @ row)], [point])
    assert point.grad.abs().max() < 1e-15


def test_the_order_is_shuffled_and_comes_from_the_generator():
    def gradient(seed: int) -> Tensor:
        network = model()
        decouple_gradients(
            losses(network, 15), list(network.parameters()), generator=generator(seed)
        )
        return flat(list(network.parameters()))

    assert torch.equal(gradient(0), gradient(0))
    assert len({tuple(gradient(seed).tolist()) for seed in range(4)}) == 4
    torch.manual_seed(7)
    network = model()
    torch.manual_seed(0)
    decouple_gradients(losses(network, 15), list(network.parameters()))
    assert torch.equal(flat(list(network.parameters())), gradient(0))


def test_without_conflict_it_is_the_ordinary_mean_gradient():
    network = model()
    parameters = list(network.parameters())
    same = [factor * losses(network)[0] for factor in (1.0, 2.0, 3.0)]
    report = decouple_gradients(same, parameters)
    found = flat(parameters)
    assert not bool(report.conflicts.any())
    assert report.weights.tolist() == [1.0, 1.0, 1.0]
    network.zero_grad()
    (2 * losses(network)[0]).backward()
    torch.testing.assert_close(found, flat(parameters), atol=1e-12, rtol=1e-12)


def test_the_sum_is_the_mean_times_the_number_of_losses():
    found = {}
    for reduction in REDUCTIONS:
        network = model()
        parameters = list(network.parameters())
        decouple_gradients(losses(network), parameters, reduction=reduction, generator=generator(4))
        found[reduction] = flat(parameters)
    torch.testing.assert_close(found["sum"], LOSSES * found["mean"])
    assert not torch.allclose(found["sum"], found["mean"])
    # Every loss reaches every parameter of this network.
    assert torch.equal(found["mean_where_shared"], found["mean"])


def two_heads() -> tuple[nn.Parameter, nn.Parameter, nn.Parameter, list[Tensor]]:
    shared, first, second = (nn.Parameter(torch.ones(2).double()) for _ in range(3))
    row = torch.tensor([1.0, 3.0]).double()
    return shared, first, second, [shared @ row + first @ row, 2 * (shared @ row + second @ row)]


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("mean", [[1.5, 4.5], [0.5, 1.5], [1.0, 3.0]]),
        ("sum", [[3.0, 9.0], [1.0, 3.0], [2.0, 6.0]]),
        ("mean_where_shared", [[1.5, 4.5], [1.0, 3.0], [2.0, 6.0]]),
    ],
)
def test_what_one_loss_alone_reaches(reduction, expected):
    *parameters, terms = two_heads()
    decouple_gradients(terms, parameters, reduction=reduction)
    assert [p.grad.tolist() for p in parameters] == expected


def test_gradients_accumulate():
    network = model()
    parameters = list(network.parameters())
    decouple_gradients(losses(network), parameters, generator=generator(4))
    once = flat(parameters)
    decouple_gradients(losses(network, factor=0.5), parameters, generator=generator(4))
    torch.testing.assert_close(flat(parameters), 1.5 * once)


def test_what_no_loss_reaches_and_what_does_not_learn_is_left_alone():
    network, idle = model(), nn.Parameter(torch.ones(3))
    parameters = [*network.parameters(), idle]
    parameters[0].requires_grad_(False)
    kept = parameters[1].grad = torch.ones_like(parameters[1])
    decouple_gradients(losses(network), parameters)
    assert idle.grad is None
    assert parameters[0].grad is None
    assert parameters[1].grad is kept
    assert not torch.equal(kept, torch.ones_like(kept))
    assert parameters[2].grad is not None


def test_a_loss_without_a_graph_has_no_gradient():
    network = model()
    parameters = list(network.parameters())
    nothing = torch.zeros(())
    report = decouple_gradients([nothing, losses(network)[0], nothing], parameters)
    assert report.norms.tolist() == [0.0, pytest.approx(report.norms[1].item()), 0.0]
    assert report.weights.tolist() == [1.0, 1.0, 1.0]
    found = flat(parameters)
    network.zero_grad()
    (losses(network)[0] / 3).backward()
    torch.testing.assert_close(found, flat(parameters))
    network.zero_grad()
    report = decouple_gradients([nothing, nothing], parameters)
    assert not bool(report.gram.any())
    assert all(p.grad is None for p in parameters)


def test_the_graphs_are_freed_after_the_last_loss_only():
    point = nn.Parameter(torch.ones(2))
    shared = point.square().square()
    terms = [shared[0], shared[1], shared.sum()]
    decouple_gradients(terms, [point])
    with pytest.raises(RuntimeError, match="second time"):
        terms[0].backward()


@pytest.mark.parametrize("factor", [2.0**16, 2.0**-16])
def test_a_scaled_loss_changes_the_scale_and_nothing_else(factor):
    found = []
    for scale in (1.0, factor):
        network = model(torch.float32)
        parameters = list(network.parameters())
        decouple_gradients(losses(network, factor=scale), parameters, generator=generator(4))
        found.append(flat(parameters) / scale)
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-6), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)],
)
def test_lower_precision_is_near(dtype, tolerance):
    exact, network = model(), model(dtype)
    decouple_gradients(losses(exact), list(exact.parameters()), generator=generator(4))
    parameters = list(network.parameters())
    decouple_gradients(losses(network), parameters, generator=generator(4))
    assert {p.grad.dtype for p in parameters} == {dtype}
    expected = flat(list(exact.parameters()))
    assert (flat(parameters).double() - expected).norm() < tolerance * expected.norm()


def test_products_of_half_precision_gradients_do_not_overflow():
    point = nn.Parameter(torch.zeros(2, dtype=torch.float16))
    given = torch.tensor([[30000.0, 0.0], [-15000.0, 15000.0]], dtype=torch.float16)
    report = decouple_gradients([(point * row).sum() for row in given], [point])
    assert report.gram[0, 0].item() == 9e8
    assert point.grad.tolist() == [7500.0, 15000.0]


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_scaler_sees_gradients_that_are_not_finite_and_skips_the_step(bad):
    network = model(torch.float32)
    parameters = list(network.parameters())
    before = [p.clone() for p in parameters]
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    terms = losses(network)
    terms[2] = terms[2] * bad
    report = decouple_gradients([scaler.scale(term) for term in terms], parameters)
    assert not bool(report.gram.isfinite().all())
    assert report.weights.tolist() == [1.0] * LOSSES
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(p, was) for p, was in zip(parameters, before, strict=True))
    assert scaler.get_scale() == 2.0


def test_a_scaled_step_is_the_plain_step():
    stepped = []
    for scale in (None, 1024.0):
        network = model(torch.float32)
        parameters = list(network.parameters())
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        terms = [scaler.scale(term) for term in losses(network)]
        decouple_gradients(terms, parameters, generator=generator(4))
        scaler.step(optimizer)
        stepped.append(torch.cat([p.detach().flatten() for p in parameters]))
    assert torch.equal(*stepped)


def test_the_report_is_on_the_cpu_in_double_precision():
    network = model(torch.float32)
    report = decouple_gradients(losses(network), list(network.parameters()))
    assert isinstance(report, GradientReport)
    for values, shape in ((report.gram, (LOSSES, LOSSES)), (report.weights, (LOSSES,))):
        assert values.shape == shape
        assert values.dtype == torch.float64
        assert not values.requires_grad


def test_bad_input_is_refused():
    network = model()
    with pytest.raises(ValueError, match="at least one loss"):
        decouple_gradients([], list(network.parameters()))
    with pytest.raises(ValueError, match=r"reduction among \['mean', 'sum', .*got 'max'"):
        decouple_gradients(losses(network), list(network.parameters()), reduction="max")
