from __future__ import annotations

import logging
import random
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.inferers import SimpleInferer
from monai.transforms import Activationsd, AsDiscreted, Compose
from torch import Tensor, nn

from bundle.inference.inferers import PresenceInferer
from bundle.methods.lckd.election import Election, single_modality_dice
from bundle.methods.lckd.method import LCKD
from bundle.methods.lckd.teacher_record import TeacherRecord
from bundle.modalities import keep_only
from bundle.training.engine import MethodHandlers

MODALITIES, REGIONS = ("t1", "t1ce", "flair"), ("TC", "WT")
SIDE = 16
INFERER = PresenceInferer(SimpleInferer())
POSTPROCESSING = Compose(
    [Activationsd(keys="pred", sigmoid=True), AsDiscreted(keys="pred", threshold=0.5)]
)


class Threshold(nn.Module):
    """A network that knows that T1ce shows TC as values above 5, and FLAIR shows WT so."""

    def __init__(self) -> None:
        super().__init__()
        self.train()
        self.modes: list[bool] = []

    def forward(self, image: Tensor, present: Tensor) -> Tensor:
        self.modes.append(self.training)
        return torch.stack([image[:, 1], image[:, 2]], 1) - 5


class Linear(nn.Module):
    """A network of one 1x1x1 convolution, which has to learn what `Threshold` knows."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv3d(3, 2, 1)

    def encode(self, image: Tensor, keep: Tensor) -> list[Tensor]:
        return [keep_only(image, keep)]

    def decode(self, features: list[Tensor], keep: Tensor) -> list[Tensor]:
        return [self.mix(features[0])]

    def forward(self, image: Tensor, present: Tensor) -> Tensor:
        return self.decode(self.encode(image, present), present)[0]


class Memory:
    """Keeps elections as a `TeacherRecord` does, without a table and a picture of it."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def forget_from(self, epoch: int) -> None:
        self.epochs = [held for held in self.epochs if held < epoch]

    def add(self, epoch: int, scores: Tensor, case_counts: Tensor, teachers: Tensor) -> None:
        self.epochs.append(epoch)


def item(seed: int, present: str = "111", empty: tuple[int, ...] = ()) -> dict[str, Any]:
    """A case whose T1ce carries TC, whose FLAIR carries WT, and whose T1 carries nothing."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.zeros(2, SIDE, SIDE, SIDE, dtype=torch.uint8)
    label[0, 4:8, 4:8, 4 : 8 + seed] = 1
    label[1, 3:9, 3:9, 3:9] = 1
    # Somewhere else in every case, so that a scan that shows nothing does not tell it.
    label = label.roll((5 * seed, 7 * seed, 0), (1, 2, 3))
    label[list(empty)] = 0
    image = torch.randn(3, SIDE, SIDE, SIDE, generator=generator).clamp(-3, 3)
    image[1] += 10 * label[0]
    image[2] += 10 * label[1]
    here = torch.tensor([bit == "1" for bit in present])
    image[~here] = 0
    return {"case": f"case_{seed}", "image": MetaTensor(image), "present": here, "label": label}


def dice(*cases: dict[str, Any], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
    return single_modality_dice(network or Threshold(), cases, INFERER, POSTPROCESSING, "cpu")


@pytest.fixture
def method(criteria):
    """Give method(network, **options)."""

    def make(network: nn.Module | None = None, **options: Any) -> LCKD:
        torch.manual_seed(0)
        return LCKD(network or Linear(), criteria, MODALITIES, REGIONS, **options)

    return make


def election(*cases: dict[str, Any], **options: Any) -> Election:
    """One of cases that are as good as prepared; the datalist only names them."""
    listed = [{"case": case["case"], "label": "seg.nii.gz"} for case in cases]
    given = {"prepare": lambda listed: cases, "inferer": INFERER, "postprocessing": POSTPROCESSING}
    return Election(listed, **(given | {"interval": 2} | options))


def run(made: LCKD, epochs: int) -> Engine:
    engine = Engine(lambda engine, batch: None)
    engine.network = made
    engine.state.device = torch.device("cpu")
    MethodHandlers().attach(engine)
    engine.run([0], max_epochs=epochs)
    return engine


def test_a_modality_that_carries_a_region_scores_in_it_and_the_others_do_not():
    sums, counts = dice(item(1), item(2))
    assert counts.tolist() == [[2, 2]] * 3
    assert sums.tolist() == [[0, 0], [2, 0], [0, 2]]


def test_what_follows_the_network_is_told_the_one_modality_that_it_was_given():
    told = []

    def finish(data):
        told.append(data["present"].tolist())
        return POSTPROCESSING(data)

    single_modality_dice(Threshold(), [item(1, "101")], INFERER, finish, "cpu")
    assert told == [[True, False, False], [False, False, True]]


def test_only_modalities_that_a_case_has_are_scored():
    sums, counts = dice(item(1, "110"), item(2, "011"), item(3, "010"))
    assert counts.tolist() == [[1, 1], [3, 3], [1, 1]]
    assert sums.tolist() == [[0, 0], [3, 0], [0, 1]]


def test_a_region_that_a_case_does_not_have_is_not_scored_in_it():
    sums, counts = dice(item(1, empty=(0,)), item(2))
    assert counts.tolist() == [[1, 2]] * 3
    assert sums.tolist() == [[0, 0], [1, 0], [0, 2]]
    assert dice(item(1, empty=(0, 1)))[1].tolist() == [[0, 0]] * 3


def test_dice_are_those_of_each_case_added_up():
    half = item(1)
    # As many voxels again as T1ce shows, beside them.
    half["label"][0] |= half["label"][0].roll(5, -1)
    assert int(half["label"][0].sum()) == 160
    sums, _ = dice(half, item(2))
    assert sums[1, 0].item() == pytest.approx(2 * 80 / (80 + 160) + 1)


def test_the_network_is_asked_in_evaluation_mode_and_left_as_it_was():
    network = Threshold()
    dice(item(1), network=network)
    assert network.modes == [False] * 3
    assert network.training
    dice(item(1), network=network.eval())
    assert not network.training


def test_a_network_that_fails_is_left_as_it_was():
    class Failing(Threshold):
        def forward(self, image: Tensor, present: Tensor) -> Tensor:
            raise RuntimeError("out of memory")

    network = Failing()
    with pytest.raises(RuntimeError, match="out of memory"):
        dice(item(1), network=network)
    assert network.training


def test_no_random_number_is_drawn_and_no_gradient_is_kept(method):
    made = method()
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    dice(item(1), item(2), network=made.network)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]
    assert all(p.grad is None for p in made.parameters())


def test_no_case_is_refused():
    with pytest.raises(ValueError, match="expected at least one case to elect teachers by"):
        dice()


def test_an_oracle_is_elected_for_its_region_and_the_log_says_so(caplog, method):
    made = method(Threshold(), election=election(item(1), item(2)))
    with caplog.at_level(logging.INFO, logger="bundle.methods.lckd.election"):
        run(made, 3)
    assert made.teachers().tolist() == [1, 2]
    assert caplog.messages == [
        "epoch 3: TC: t1ce teaches (Dice of each modality by itself: "
        "t1 0.0 %, t1ce 100.0 %, flair 0.0 %)",
        "epoch 3: WT: flair teaches (Dice of each modality by itself: "
        "t1 0.0 %, t1ce 0.0 %, flair 100.0 %)",
    ]


def test_what_was_not_scored_is_said_and_keeps_its_teacher(caplog, method):
    made = method(Threshold(), election=election(item(1, "110", empty=(1,))))
    former = torch.zeros(3, 2), torch.zeros(3, 2)
    former[0][2, 1] = former[1][2, 1] = 1
    made.elect(*former)
    with caplog.at_level(logging.INFO, logger="bundle.methods.lckd.election"):
        run(made, 3)
    assert made.teachers().tolist() == [1, 2]
    assert caplog.messages == [
        "epoch 3: TC: t1ce teaches (Dice of each modality by itself: "
        "t1 0.0 %, t1ce 100.0 %, flair not scored)",
        "epoch 3: WT: in none of the held-out cases that were scored; flair goes on teaching",
    ]
    nobody = method(Threshold(), election=election(item(1, empty=(0, 1))))
    with caplog.at_level(logging.INFO, logger="bundle.methods.lckd.election"):
        run(nobody, 3)
    assert nobody.teachers().tolist() == [-1, -1]
    assert caplog.messages[-1].endswith("that were scored; it has no teacher")


@pytest.mark.parametrize("interval", [1, 2, 3])
def test_elections_are_held_every_so_many_epochs_but_not_before_the_first(interval, method):
    record = Memory()
    run(method(Threshold(), election=election(item(1), interval=interval, record=record)), 7)
    assert record.epochs == [epoch for epoch in range(2, 8) if (epoch - 1) % interval == 0]


def test_the_record_holds_what_was_scored_and_who_teaches(tmp_path, method):
    record = TeacherRecord(str(tmp_path), MODALITIES, REGIONS)
    run(method(Threshold(), election=election(item(1, "110"), item(2), record=record)), 3)
    found = {(row.region, row.modality): row for row in record.rows()}
    assert {place for place, row in found.items() if row.teacher} == {
        ("TC", "t1ce"),
        ("WT", "flair"),
    }
    assert found["TC", "t1ce"].dice == 1
    assert [found["WT", m].cases for m in MODALITIES] == [2, 2, 1]


def test_a_new_training_forgets_what_another_one_recorded(method):
    record = Memory()
    made = method(Threshold(), election=election(item(1), interval=1, record=record))
    run(made, 5)
    assert record.epochs == [2, 3, 4, 5]
    run(made, 2)
    assert record.epochs == [2]
    run(made, 1)
    assert record.epochs == []


def test_a_trainer_that_starts_twice_elects_once_an_epoch(method):
    made = method(Threshold(), election=election(item(1), interval=1))
    prepared = []
    prepare = made.election.prepare
    made.election.prepare = lambda listed: prepared.append(listed) or prepare(listed)
    engine = run(made, 2)
    asked = len(made.network.modes)
    engine.run([0], max_epochs=3)
    assert len(made.network.modes) == 2 * asked
    assert len(prepared) == 1


def test_nobody_is_elected_without_distillation(method):
    made = method(Threshold(), election=election(item(1)), distillation_weight=0)
    run(made, 5)
    assert made.network.modes == []


def test_cases_without_a_label_do_not_vote():
    listed = [{"case": "a"}, {"case": "b", "label": "seg.nii.gz"}, {"case": "c", "label": None}]
    made = Election(listed, prepare=list, inferer=INFERER, postprocessing=POSTPROCESSING)
    assert made.cases == listed[1:2]


def test_an_empty_list_is_refused_before_training_unless_cases_are_not_required(caplog, method):
    with pytest.raises(ValueError, match="expected labelled cases to elect teachers by, got none"):
        run(method(Threshold(), election=election()), 1)
    run(method(Threshold(), election=election(), distillation_weight=0), 1)
    made = method(Threshold(), election=election(required=False))
    made.elect(torch.full((3, 2), 0.5), torch.ones(3, 2))
    run(made, 5)
    assert "they must come from elsewhere" in caplog.text
    assert made.teachers().tolist() == [0, 0]


@pytest.mark.parametrize("interval", [0, -1])
def test_an_interval_below_one_epoch_is_refused(interval):
    with pytest.raises(ValueError, match=f"every 1 epoch or more, got {interval}"):
        election(item(1), interval=interval)


def test_a_trained_network_elects_the_modalities_that_carry_the_regions(method):
    made = method(Linear(), distillation_weight=0)
    cases = [item(seed) for seed in range(1, 5)]
    given = {
        "image": torch.stack([case["image"].as_tensor() for case in cases]),
        "present": torch.stack([case["present"] for case in cases]),
        "label": torch.stack([case["label"] for case in cases]),
    }
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.1)
    torch.manual_seed(0)
    for _ in range(100):
        optimizer.zero_grad()
        made.backward(made.losses(given))
        optimizer.step()
    made.elect(*dice(item(6), item(7), network=made.network))
    assert made.teachers().tolist() == [1, 2]
    assert made.scores[1, 0] > made.scores[[0, 2], 0].max() + 0.2
    assert made.scores[2, 1] > made.scores[[0, 1], 1].max() + 0.2
