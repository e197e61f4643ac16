from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from torch import Tensor
from torch.nn import functional as F

import bundle.methods.lckd.method
from bundle.methods.lckd.method import LCKD
from bundle.modalities import BRATS_MODALITIES
from bundle.networks.scan_encoder import ScanEncoderNetwork
from bundle.training.engine import MethodHandlers

SIDE = 16
REGIONS = ("TC", "WT", "ET")
PRESENT = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0], [1, 0, 0, 1]], dtype=torch.bool)
T1, T1CE, T2, FLAIR, NOBODY = 0, 1, 2, 3, -1


@pytest.fixture
def method(criteria):
    def make(teachers: tuple[int, ...] = (), **options: Any) -> LCKD:
        torch.manual_seed(0)
        network = ScanEncoderNetwork(4, 3, filters=4, blocks_down=(1, 1, 1), deep_supervision=2)
        made = LCKD(network, criteria, BRATS_MODALITIES, REGIONS, **options)
        if teachers:
            scores = torch.zeros(4, 3)
            for region, teacher in enumerate(teachers):
                if teacher != NOBODY:
                    scores[:, region] = 0.25
                    scores[teacher, region] = 0.75
            made.elect(scores, torch.ones(4, 3))
            assert made.teachers().tolist() == list(teachers)
        return made

    return make


@pytest.fixture
def batch(batch):
    """Give batch(present): its regions are boxes of three sizes, apart at the bottleneck too."""

    def make(present: Tensor = PRESENT) -> dict[str, Tensor]:
        given = batch(present, SIDE)
        given["label"][:, :, 8:] = 0
        given["label"][:, 1:, :, 8:] = 0
        given["label"][:, 2:, :, :, 8:] = 0
        return given

    return make


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch):
    """Give show(keep): from now on these scans are drawn."""

    def fix(keep: Tensor) -> None:
        monkeypatch.setattr(bundle.methods.drawing, "draw_subset", lambda present, generator: keep)

    return fix


def distillation(made: LCKD, given: dict[str, Tensor]) -> Tensor:
    return made.losses(given)["distillation"]


@torch.no_grad()
def bottleneck(made: LCKD, scan: Tensor) -> Tensor:
    """Features (C, d, h, w) of one scan (D, H, W), of mean 0 and deviation 1 in each channel."""
    features = made.network.encoder(scan[None, None])[-1][0]
    mean = features.mean((1, 2, 3), keepdim=True)
    variance = (features - mean).square().mean((1, 2, 3), keepdim=True)
    return (features - mean) / (variance + 1e-5).sqrt()


@torch.no_grad()
def by_hand(made: LCKD, given: dict[str, Tensor], speaking: Tensor, keep: Tensor) -> float:
    """The formula of "regions", written out pair by pair and one scan at a time."""
    shares = F.adaptive_avg_pool3d(given["label"].float(), 4)
    total = 0.0
    for region, teacher in enumerate(made.teachers().tolist()):
        for student in range(4):
            found = []
            for case, image in enumerate(given["image"]):
                share = shares[case, region]
                pair = keep[case, student] and speaking[case, teacher] and student != teacher
                if teacher == NOBODY or not pair or not share.any():
                    continue
                one, other = (bottleneck(made, image[m]) for m in (teacher, student))
                found.append(((one - other).abs().mean(0) * share).sum() / share.sum())
            total += float(sum(found)) / len(found) if found else 0.0
    lessons = sum(teacher != NOBODY for teacher in made.teachers().tolist())
    return made.distillation_weight * total / lessons


def test_terms_are_finite_scalars_and_there_before_anybody_is_elected(method, batch):
    losses = method().losses(batch())
    assert list(losses) == ["dice", "cross_entropy", "distillation"]
    for term in losses.values():
        assert term.shape == ()
        assert term.dtype == torch.float32
        assert bool(term.isfinite())
    assert losses["distillation"].item() == 0
    assert list(method(distillation_weight=0).losses(batch())) == ["dice", "cross_entropy"]


@pytest.mark.parametrize("teachers", [(T1CE, FLAIR, T1CE), (T2, NOBODY, FLAIR), (T1, T1CE, T2)])
def test_each_region_is_taught_by_its_teacher_to_every_scan_that_is_shown(
    teachers, show, method, batch
):
    made, given = method(teachers), batch()
    for keep in (
        PRESENT,
        PRESENT & torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1]]).bool(),
    ):
        show(keep)
        found = distillation(made, given).item()
        assert found > 0
        assert found == pytest.approx(by_hand(made, given, PRESENT, keep), rel=1e-4)


def test_the_union_of_winners_teaches_everywhere_and_only_where_it_is_shown(show, method, batch):
    made, given = method((T1CE, FLAIR, T1CE), teaching="union"), batch()
    keep = PRESENT & torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0]]).bool()
    show(keep)
    features = torch.zeros(3, 4, 16, 4, 4, 4)
    for case, modality in keep.nonzero().tolist():
        features[case, modality] = bottleneck(made, given["image"][case, modality])

    def apart(case: int, one: int, other: int) -> Tensor:
        return (features[case, one] - features[case, other]).abs().mean()

    # T1ce teaches T2 in two cases and FLAIR in one, FLAIR teaches T1ce and T2 in one.
    expected = (apart(0, 1, 2) + apart(1, 1, 2)) / 2 + apart(0, 1, 3)
    expected = expected + apart(0, 3, 1) + apart(0, 3, 2)
    torch.testing.assert_close(distillation(made, given), 0.1 * expected, rtol=1e-4, atol=1e-6)


def test_the_weight_is_a_factor(show, method, batch):
    show(PRESENT)
    teachers = (T1CE, FLAIR, T1CE)
    once, twice = (distillation(method(teachers, distillation_weight=w), batch()) for w in (1, 2))
    torch.testing.assert_close(twice, 2 * once)


def test_a_teacher_that_the_case_has_but_does_not_show_teaches_without_a_gradient(
    show, method, batch
):
    made, given = method((T1CE,) * 3), batch(PRESENT[:1])
    show(torch.tensor([[True, False, False, False]]))
    calls = []
    made.network.encoder.register_forward_hook(
        lambda module, inputs, output: calls.append((len(inputs[0]), output[-1].requires_grad))
    )
    assert distillation(made, given) > 0
    assert calls == [(1, True), (1, False)]
    made.teaching = "union"
    assert distillation(made, given) == 0
    assert calls[2:] == [(1, True)]


def test_nothing_is_encoded_aside_that_would_teach_nobody(show, method, batch):
    made, given = method((T1CE, FLAIR, T1CE)), batch()
    given["label"][:, 1] = 0  # FLAIR's region lies outside all crops
    show(PRESENT & torch.tensor([[True, False, True, False]]))
    scans = []
    made.network.encoder.register_forward_hook(
        lambda module, inputs, output: scans.append(len(inputs[0]))
    )
    distillation(made, given)
    assert scans == [4, 2]


@pytest.mark.parametrize("teaching", ["regions", "union"])
def test_an_absent_modality_never_teaches(teaching, method, batch):
    made = method((T2,) * 3, teaching=teaching)
    for absent in (PRESENT[2:], PRESENT[2:].expand(3, -1)):
        for seed in range(5):
            torch.manual_seed(seed)
            assert distillation(made, batch(absent)).item() == 0


@pytest.mark.parametrize("teaching", ["regions", "union"])
@pytest.mark.parametrize("modality", range(4))
def test_a_case_with_one_modality_trains_and_is_taught_nothing(modality, teaching, method, batch):
    made = method((T1CE, FLAIR, T1CE), teaching=teaching)
    given = batch(torch.eye(4, dtype=torch.bool)[modality : modality + 1])
    losses = made.losses(given)
    assert losses["distillation"].item() == 0
    made.backward(losses)
    for name, parameter in made.network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def test_a_region_outside_the_crop_is_not_taught(show, method, batch):
    show(PRESENT)
    made, given = method((NOBODY, FLAIR, NOBODY)), batch()
    assert distillation(made, given) > 0
    given["label"][:, 1] = 0
    assert distillation(made, given).item() == 0


def test_only_those_who_are_taught_learn_from_it(show, method, batch):
    show(PRESENT[:1])
    made, given = method((NOBODY, NOBODY, T1CE)), batch(PRESENT[:1])
    known = []
    made.network.encoder.register_forward_hook(lambda module, inputs, out: known.append(out[-1]))
    (slope,) = torch.autograd.grad(distillation(made, given), known[0])
    assert slope.flatten(1).any(1).tolist() == [True, False, True, True]


@pytest.mark.parametrize("factor", [3.0, 1e3])
def test_the_size_of_features_plays_no_part(factor, show, method, batch):
    show(PRESENT)
    made, given = method((T1CE, FLAIR, T1CE)), batch()
    expected = distillation(made, given).item()
    made.network.encoder.register_forward_hook(
        lambda module, inputs, out: [*out[:-1], factor * out[-1]]
    )
    assert distillation(made, given).item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("teaching", ["regions", "union"])
def test_a_crop_of_pure_background_is_finite_with_teachers_too(teaching, method, batch):
    made, given = method((T1CE, FLAIR, T1CE), teaching=teaching), batch(PRESENT[:1])
    given = {**given, "image": torch.zeros(1, 4, SIDE, SIDE, SIDE)}
    given["label"] = torch.zeros_like(given["label"])
    losses = made.losses(given)
    assert losses["distillation"].item() == 0
    made.backward(losses)
    assert all(bool(p.grad.isfinite().all()) for p in made.network.parameters())


def test_the_junk_of_absent_modalities_changes_no_loss(method, batch):
    found = []
    for junk in (float("nan"), 1e6):
        made, given = method((T1CE, FLAIR, T2)), batch()
        given["image"] = given["image"].nan_to_num(junk)
        torch.manual_seed(3)
        found.append(made.losses(given))
    for name, term in found[0].items():
        assert torch.equal(term, found[1][name])


def test_the_best_by_mean_dice_teaches_and_among_equals_the_first(method):
    made = method()
    assert made.teachers().tolist() == [NOBODY] * 3
    # Four cases of T1 add up to more than two of T1ce, which did better in each.
    sums = torch.tensor([[1.6, 0.5, 0.0], [1.5, 0.5, 0.0], [0.0, 0.5, 0.0], [0.0, 0.2, 0.0]])
    counts = torch.tensor([[4.0, 1, 1], [2.0, 1, 1], [2.0, 1, 1], [2.0, 1, 1]])
    assert made.elect(sums, counts).tolist() == [True] * 3
    # Nobody finds anything of ET, so nobody teaches it.
    assert made.teachers().tolist() == [T1CE, T1, NOBODY]
    torch.testing.assert_close(made.scores[:, 0], torch.tensor([0.4, 0.75, 0.0, 0.0]))


def test_a_region_that_was_not_scored_keeps_its_teacher_or_none(method):
    made = method((T1CE, FLAIR, NOBODY))
    sums, counts = torch.zeros(4, 3), torch.zeros(4, 3)
    sums[T2, 0], counts[T2, 0] = 0.1, 1
    assert made.elect(sums, counts).tolist() == [True, False, False]
    # T2 is the only one that was scored for TC: what T1ce once had is forgotten.
    assert made.teachers().tolist() == [T2, FLAIR, NOBODY]
    assert made.elect(torch.zeros(4, 3), torch.zeros(4, 3)).tolist() == [False] * 3
    assert made.teachers().tolist() == [T2, FLAIR, NOBODY]


@pytest.mark.parametrize("average", [False, True])
def test_sites_that_add_up_or_average_what_they_counted_elect_together(average, method):
    generator = torch.Generator().manual_seed(0)
    # Three sites of at most two cases: averages are fractions of a case, some counts are 0.
    counts = torch.randint(0, 3, (3, 4, 3), generator=generator).float()
    sums = counts * torch.rand(3, 4, 3, generator=generator)
    sites = [method() for _ in range(3)]
    for site, *own in zip(sites, sums, counts, strict=True):
        site.elect(*own)
    pooled, together = method(), method()
    pooled.elect(sums.sum(0), counts.sum(0))
    for name in LCKD.additive_statistics:
        added = torch.stack([site.get_buffer(name) for site in sites]).sum(0)
        together.get_buffer(name).copy_(added / 3 if average else added)
    torch.testing.assert_close(together.scores, pooled.scores)
    assert together.teachers().tolist() == pooled.teachers().tolist()
    assert {site.teachers().tolist()[0] for site in sites} != {pooled.teachers().tolist()[0]}


def test_scores_are_float_buffers_outside_the_deployed_network(method):
    made = method((T1CE, FLAIR, T1CE))
    state = made.state_dict()
    assert {name: tuple(state[name].shape) for name in LCKD.additive_statistics} == {
        "dice_sums": (4, 3),
        "case_counts": (4, 3),
    }
    assert all(state[name].dtype == torch.float32 for name in LCKD.additive_statistics)
    assert set(made.network.state_dict()) == {
        name.removeprefix("network.") for name in state if name.startswith("network.")
    }
    resumed = method()
    resumed.load_state_dict(state)
    assert resumed.teachers().tolist() == [T1CE, FLAIR, T1CE]


def test_the_warm_up_shows_all_that_is_present_and_then_subsets_are_drawn(method, batch):
    made, given = method(warm_up_epochs=2), batch()
    shown: dict[int, list[Tensor]] = {1: [], 2: [], 3: [], 4: []}
    encode = made.network.encode

    def step(engine: Engine, number: int) -> None:
        made.losses(given)

    def note(image: Tensor, keep: Tensor) -> Any:
        shown[engine.state.epoch].append(keep)
        return encode(image, keep)

    made.network.encode = note
    engine = Engine(step)
    engine.network = made
    MethodHandlers().attach(engine)
    engine.run([0] * 8, max_epochs=4)
    for epoch, keeps in shown.items():
        assert len(keeps) == 8
        assert not any(bool((keep & ~PRESENT).any()) for keep in keeps)
        assert all(torch.equal(keep, PRESENT) for keep in keeps) == (epoch <= 2)


def test_a_trainer_that_starts_twice_follows_the_epochs_once(method):
    made = method(warm_up_epochs=1)
    engine = Engine(lambda engine, batch: None)
    engine.network = made
    MethodHandlers().attach(engine)
    engine.run([0])
    assert made.warming_up
    engine.run([0], max_epochs=2)
    assert not made.warming_up
    assert len(engine._event_handlers[Events.EPOCH_STARTED]) == 1


def test_mixed_precision_gives_about_the_same_term(show, method, batch):
    show(PRESENT & torch.tensor([[1, 0, 1, 0], [0, 1, 1, 1], [1, 1, 1, 1]]).bool())
    made, given = method((T1CE, FLAIR, T1CE)), batch()
    expected = distillation(made, given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = made.losses(given)
    assert losses["distillation"].dtype == torch.float32
    torch.testing.assert_close(losses["distillation"], expected, rtol=0.05, atol=0)
    made.backward(losses)
    assert all(bool(p.grad.isfinite().all()) for p in made.network.parameters())


def test_being_taught_brings_features_nearer_to_the_teachers(show, method, batch):
    show(PRESENT)
    made, given = method((T1CE, FLAIR, T1CE), distillation_weight=1.0), batch()
    optimizer = torch.optim.SGD(made.parameters(), lr=0.01)
    before = distillation(made, given)
    for _ in range(5):
        optimizer.zero_grad()
        distillation(made, given).backward()
        optimizer.step()
    assert distillation(made, given) < before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teaching": "all"}, r"expected teaching as one of \['regions', 'union'\], got 'all'"),
        ({"warm_up_epochs": -1}, "of at least 0, got -1 and 0.1"),
        ({"distillation_weight": -0.5}, "of at least 0, got 0 and -0.5"),
    ],
)
def test_options_outside_their_range_are_refused(options, message, method):
    with pytest.raises(ValueError, match=message):
        method(**options)


def test_results_of_another_shape_or_not_finite_are_refused(method):
    made = method((T1CE, FLAIR, T1CE))
    with pytest.raises(ValueError, match=r"of shape \(4, 3\), .* got \(3, 4\) and \(3, 4\)"):
        made.elect(torch.zeros(3, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="expected finite Dice sums"):
        made.elect(torch.full((4, 3), float("nan")), torch.ones(4, 3))
    assert made.teachers().tolist() == [T1CE, FLAIR, T1CE]
