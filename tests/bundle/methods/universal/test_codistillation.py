from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from torch import Tensor, nn

from bundle.methods.universal.codistillation import CoDistillation
from bundle.modalities import brain_mask, keep_only
from bundle.networks.universal import UniversalNetwork
from bundle.training.engine import MethodHandlers

SIDE = 8
PRESENT = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 0], [1, 0, 0, 1]], dtype=torch.bool)
CRITERIA = ["dice", "cross_entropy"]
COMPLETED = [f"completed_{name}" for name in CRITERIA]


def prompts() -> Tensor:
    return torch.randn(15, 14, generator=torch.Generator().manual_seed(9))


@pytest.fixture
def method(criteria):
    def make(trained: bool = True, hypernetwork: bool = True, **options: Any) -> CoDistillation:
        """One whose hypernetwork and stand-ins say something, and whose teacher lags behind."""
        torch.manual_seed(0)
        network = UniversalNetwork(
            4, 3, filters=4, blocks_down=(1, 1, 1), deep_supervision=2, hypernetwork=hypernetwork
        )
        made = CoDistillation(network, criteria, **({"prompts": prompts()} | options))
        if trained:
            nn.init.normal_(network.autoencoder.stand_in.tile)
            if hypernetwork:
                nn.init.normal_(network.hypernetwork.output.weight, std=0.1)
        return made

    return make


@pytest.fixture
def batch(batch):
    return partial(batch, side=SIDE)


def seeded(made: CoDistillation, given: dict[str, Tensor], seed: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return made.losses(given)


class Spy:
    """Stands before one of a module's functions and notes what it is given."""

    def __init__(self, owner: nn.Module, name: str) -> None:
        self.calls: list[tuple[Tensor, ...]] = []
        self.function = getattr(owner, name)
        setattr(owner, name, self)

    def __call__(self, *given: Tensor) -> Any:
        self.calls.append(given)
        return self.function(*given)


@pytest.mark.parametrize("data_side", [True, False])
@pytest.mark.parametrize("model_side", [True, False])
@pytest.mark.parametrize("rebuilding_weight", [0.1, 0.0])
def test_terms_are_there_as_switched_on(data_side, model_side, rebuilding_weight, method, batch):
    made = method(data_side=data_side, model_side=model_side, rebuilding_weight=rebuilding_weight)
    losses = made.losses(batch())
    assert list(losses) == [
        *CRITERIA,
        *(["rebuilding"] if rebuilding_weight else []),
        *(COMPLETED if data_side else []),
        *(["soft_labels", "features"] if model_side else []),
    ]
    for term in losses.values():
        assert term.shape == ()
        assert term.dtype == torch.float32
        assert bool(term.isfinite())
        assert term > 0
    assert (made.teacher is None) == (not data_side and not model_side)


def test_a_term_of_weight_0_is_not_computed(method, batch):
    assert "soft_labels" not in method(soft_label_weight=0).losses(batch())
    assert "features" not in method(feature_weight=0).losses(batch())


def test_weights_are_factors(method, batch):
    weights = ("soft_label_weight", "feature_weight", "rebuilding_weight")
    plain = seeded(method(**dict.fromkeys(weights, 1.0)), batch())
    weighted = seeded(method(**dict(zip(weights, (2.0, 3.0, 0.5), strict=True))), batch())
    factors = {"soft_labels": 2.0, "features": 3.0, "rebuilding": 0.5}
    for name, term in weighted.items():
        torch.testing.assert_close(term, factors.get(name, 1.0) * plain[name])


def test_without_sides_it_is_modality_dropout_with_the_universal_network(method, batch):
    made = method(data_side=False, model_side=False, rebuilding_weight=0)
    assert made.teacher is None
    engine = Engine(lambda engine, batch: None)
    made.attach(engine)
    engine.run([0])
    spy = Spy(made.network, "encode")
    losses = made.losses(batch())
    (image, keep), label = spy.calls[0], batch()["label"].float()
    for name, criterion in made.criteria.items():
        torch.testing.assert_close(
            losses[name], criterion(made.network.deep_logits(image, keep), label)
        )


def test_pure_background_is_finite_too(method, batch):
    given = {**batch(), "image": torch.zeros(3, 4, SIDE, SIDE, SIDE)}
    made = method()
    losses = made.losses({**given, "label": torch.zeros_like(given["label"])})
    made.backward(losses)
    assert losses["rebuilding"].item() == 0
    assert all(bool(term.isfinite()) for term in losses.values())
    assert all(bool(p.grad.isfinite().all()) for p in made.network.parameters())


@pytest.mark.parametrize("hypernetwork", [True, False])
def test_every_parameter_of_the_network_learns_and_none_of_the_teachers(
    hypernetwork, method, batch
):
    made = method(hypernetwork=hypernetwork)
    made.backward(made.losses(batch()))
    assert [name for name, p in made.network.named_parameters() if p.grad is None] == []
    assert not any(p.requires_grad for p in made.teacher.parameters())
    assert all(p.grad is None for p in made.teacher.parameters())


def test_mixed_precision_stays_finite(method, batch):
    # PyTorch's bfloat16 convolution on a CPU now and then makes NaN of a volume of 2x2x2 voxels.
    made, given = method(), batch(side=16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = seeded(made, given)
    single = seeded(made, given)
    for name, term in mixed.items():
        assert term.item() == pytest.approx(single[name].item(), rel=0.1, abs=0.02), name
    made.backward(mixed)
    assert all(bool(p.grad.isfinite().all()) for p in made.network.parameters())


def test_completing_keeps_what_was_scanned_and_fills_in_the_brain_alone(method, batch):
    made, given = method(), batch()
    image, present = keep_only(given["image"], PRESENT), PRESENT
    brain = brain_mask(image, present)
    completed, throughout = made._complete(image, present)
    assert bool(throughout.all())
    assert torch.equal(completed[present], image[present])
    rebuilt = made.teacher.module.autoencoder(image, present)
    inside = brain.expand_as(image) & ~present[:, :, None, None, None]
    torch.testing.assert_close(completed[inside], rebuilt[inside])
    assert bool(completed[inside].any())
    assert not bool(completed[~brain.expand_as(image)].any())
    assert not completed.requires_grad


def test_the_student_sees_a_random_subset_and_the_teacher_the_completed_case(method, batch):
    made, given = method(second_share=1.0), batch(PRESENT[1:2])
    student, second = Spy(made.network, "encode"), Spy(made.network, "deep_logits")
    teacher = Spy(made.teacher.module, "encode")
    made.losses(given)
    image = keep_only(given["image"], given["present"])
    expected, _ = made._complete(image, given["present"])
    assert torch.equal(student.calls[0][0], image)
    for found, present in (second.calls[0], teacher.calls[0]):
        assert torch.equal(found, expected)
        assert bool(present.all())


def test_without_the_data_side_the_teacher_sees_what_the_case_has(method, batch):
    made, given = method(data_side=False, second_share=1.0), batch(PRESENT[2:])
    teacher = Spy(made.teacher.module, "encode")
    made.losses(given)
    assert torch.equal(teacher.calls[0][0], keep_only(given["image"], given["present"]))
    assert torch.equal(teacher.calls[0][1], given["present"])


def test_the_students_subsets_are_drawn_from_what_each_case_has(method, batch):
    made = method(data_side=False, model_side=False, rebuilding_weight=0)
    spy, given = Spy(made.network, "encode"), batch()
    with torch.no_grad():
        for _ in range(60):
            made.losses(given)
    kept = torch.stack([present for _, present in spy.calls])
    assert not bool((kept & ~PRESENT).any())
    assert [len({tuple(row) for row in kept[:, i].tolist()}) for i in (1, 2)] == [1, 3]
    assert len({tuple(row) for row in kept[:, 0].tolist()}) > 10


@pytest.mark.parametrize(("share", "cases"), [(0.01, 1), (0.34, 1), (0.7, 2), (1.0, 3)])
def test_a_share_of_the_cases_gets_a_second_view_all_in_turn(share, cases, method, batch):
    made = method(second_share=share, model_side=False)
    spy = Spy(made, "_complete")
    with torch.no_grad():
        for _ in range(20):
            made.losses(batch())
    counts = [len(image) for image, *_ in spy.calls]
    assert counts == [cases] * 20
    assert {tuple(row) for _, present in spy.calls for row in present.tolist()} == {
        tuple(row) for row in PRESENT.tolist()
    }


def test_a_completed_case_counts_as_much_as_a_students(method, batch):
    full, half = (seeded(method(second_share=share), batch(PRESENT[2:])) for share in (1.0, 0.5))
    # A batch of one: its case is chosen whatever the share.
    for name in (*COMPLETED, "rebuilding"):
        torch.testing.assert_close(half[name], full[name])
    made = method(second_share=0.5)
    given = batch(torch.cat([PRESENT[2:], PRESENT[2:]]))
    given = {name: value[:1].expand(2, *value.shape[1:]) for name, value in given.items()}
    one = {name: value[:1] for name, value in given.items()}
    for name in COMPLETED:
        alone = seeded(made, one)[name]
        torch.testing.assert_close(seeded(made, given)[name], alone / 2)


def test_resuming_with_other_prompts_is_refused(method):
    prompts = torch.randn(15, 14, generator=torch.Generator().manual_seed(0))
    former = method(trained=False, prompts=prompts)
    method(trained=False, prompts=prompts.clone()).load_state_dict(former.state_dict())
    method(trained=False, prompts=None).load_state_dict(former.state_dict())
    with pytest.raises(ValueError, match="expected the prompts of this config, got those of ano"):
        method(trained=False, prompts=prompts + 1).load_state_dict(former.state_dict())


def test_what_is_compared_belongs_to_the_same_case(method, batch):
    made, given = method(data_side=False), batch()
    student, second = Spy(made.network, "encode"), Spy(made, "_from_teacher")
    with torch.no_grad():
        for _ in range(5):
            made.losses(given)
        for (image, keep), call in zip(student.calls, second.calls, strict=True):
            features, logits, seen, present, label = call
            places = [int((present[i] == PRESENT).all(1).nonzero()) for i in range(len(seen))]
            assert torch.equal(seen, image[places])
            assert torch.equal(label, given["label"][places].float())
            expected = student.function(image[places], keep[places])
            torch.testing.assert_close(features, expected[-1], atol=1e-5, rtol=1e-5)
            answer = made.network.decode(expected, keep[places])[0]
            torch.testing.assert_close(logits, answer, atol=1e-4, rtol=1e-4)


def test_the_junk_of_absent_modalities_changes_no_loss(method, batch):
    made = method()
    expected = seeded(made, batch())
    other = batch()
    other["image"] = other["image"].nan_to_num(1e6)
    for name, term in seeded(made, other).items():
        assert torch.equal(term, expected[name])


def test_a_teacher_that_is_sure_and_wrong_teaches_next_to_nothing(method, batch):
    given = {**batch(), "label": torch.zeros(3, 3, SIDE, SIDE, SIDE)}
    found = {}
    for bias in (-20.0, 20.0):
        made = method()
        for level in made.teacher.module.decoder.levels:
            nn.init.constant_(level["head"].bias, bias)
        found[bias] = seeded(made, given)
    for name in ("soft_labels", "features"):
        assert found[-20.0][name] > 0.01
        assert found[20.0][name] < 1e-4 * found[-20.0][name]


def test_a_teacher_that_agrees_and_sees_the_same_has_nothing_to_say(method, batch):
    made = method(trained=False, data_side=False)
    losses = made.losses(batch(PRESENT[1:2]))
    assert losses["soft_labels"].item() == pytest.approx(0, abs=1e-6)
    assert losses["features"].item() == pytest.approx(0, abs=1e-6)


def test_prompts_reach_the_network_and_its_teacher(method):
    made = method()
    assert torch.equal(made.network.hypernetwork.prompts, prompts())
    assert torch.equal(made.teacher.module.hypernetwork.prompts, prompts())
    assert not bool(method(prompts=None).network.hypernetwork.prompts.any())
    with pytest.raises(ValueError, match=r"expected prompts of shape \(15, 14\)"):
        method(prompts=torch.ones(7, 6))
    assert method(hypernetwork=False).network.hypernetwork is None


def test_the_teacher_starts_where_the_network_starts(method):
    made = method()
    tile = "autoencoder.stand_in.tile"
    teacher = made.teacher.module
    assert not torch.equal(teacher.state_dict()[tile], made.network.state_dict()[tile])
    made.attach(Engine(lambda engine, batch: None))
    for name, value in made.network.state_dict().items():
        assert torch.equal(teacher.state_dict()[name], value)


@pytest.mark.parametrize("memory", [0.99, 0.2])
def test_the_teacher_moves_by_the_average_after_every_step(memory, method):
    made = method(memory=memory)

    def step(engine: Engine, number: int) -> None:
        for parameter in made.network.parameters():
            nn.init.constant_(parameter, number)

    engine = Engine(step)
    engine.network = made
    MethodHandlers().attach(engine)
    engine.run([3.0, 7.0, -2.0])
    expected = 3.0
    for steps, number in ((1, 7.0), (2, -2.0)):
        kept = min(memory, (1 + steps) / (10 + steps))
        expected = kept * expected + (1 - kept) * number
    for parameter in made.teacher.module.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, expected))
    assert made.teacher.n_averaged == 3


def test_a_second_run_of_the_trainer_moves_the_teacher_once_a_step(method):
    made = method()
    engine = Engine(lambda engine, batch: None)
    engine.network = made
    MethodHandlers().attach(engine)
    engine.run([0, 0])
    engine.run([0, 0])
    assert made.teacher.n_averaged == 4


def test_while_gradients_are_accumulated_the_teacher_waits(method):
    made = method()
    engine = Engine(lambda engine, batch: None)
    engine.network, engine.accumulation_steps = made, 2
    MethodHandlers().attach(engine)
    engine.run([0] * 5)
    # After the second and the fourth iteration, and after the fifth, which ends the epoch.
    assert made.teacher.n_averaged == 3


def test_a_resumed_training_has_the_former_teacher(method):
    former, resumed = method(), method(trained=False)
    engine = Engine(lambda engine, batch: None)
    engine.network = former
    former.attach(engine)
    engine.run([0])
    for parameter in former.network.parameters():
        nn.init.constant_(parameter, 5)
    state = {name: value.clone() for name, value in former.state_dict().items()}
    # As in training: the method is attached before the state is loaded, and perhaps after.
    resumed.attach(Engine(lambda engine, batch: None))
    resumed.load_state_dict(state)
    resumed.attach(Engine(lambda engine, batch: None))
    assert resumed.teacher.n_averaged == 1
    for name, value in state.items():
        assert torch.equal(resumed.state_dict()[name], value)


def test_only_the_network_is_deployed(method, batch):
    made = method()
    assert not [name for name in made.network.state_dict() if "teacher" in name]
    assert any(name.startswith("teacher.module.") for name in made.state_dict())
    given = batch()
    expected = made.network(given["image"], PRESENT)
    assert torch.equal(made(given["image"], PRESENT), expected)


def test_steps_down_the_gradient_lower_the_loss(method, batch):
    made, given = method(), batch()
    optimizer = torch.optim.Adam(made.parameters(), lr=0.003)
    before = sum(seeded(made, given).values()).item()
    for _ in range(5):
        optimizer.zero_grad()
        made.backward(seeded(made, given))
        optimizer.step()
    assert sum(seeded(made, given).values()).item() < before


@pytest.mark.parametrize("wrong", [{"second_share": 0}, {"second_share": 1.5}, {"memory": 1.0}])
def test_shares_outside_their_range_are_refused(wrong, method):
    with pytest.raises(ValueError, match="expected second_share above 0 and up to 1 and memory"):
        method(**wrong)
