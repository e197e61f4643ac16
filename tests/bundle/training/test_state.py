from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from bundle.training.best import BestModel
from bundle.training.engine import EpochSeed
from bundle.training.record import TrainingRecord
from bundle.training.state import TrainingState


def validated(metric: float, epoch: int) -> SimpleNamespace:
    state = SimpleNamespace(metrics={"dice": metric}, key_metric_name="dice", epoch=epoch)
    return SimpleNamespace(state=state)


class Training:
    """A training on noise, with momentum and a falling rate, that keeps its state in a folder."""

    def __init__(
        self, folder: Path, epochs: int, resume: bool = False, stop: int = 0, **options
    ) -> None:
        torch.manual_seed(0)
        self.network = nn.Linear(2, 1)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.PolynomialLR(self.optimizer, total_iters=6)
        self.best = BestModel(self.network, str(folder / "model.pt"))
        self.epochs: list[int] = []
        self.engine = Engine(self.step)
        self.engine.state.device = torch.device("cpu")
        self.engine.data_loader = None
        objects = {
            "method": self.network,
            "optimizer": self.optimizer,
            "lr_scheduler": self.scheduler,
            "best_model": self.best,
        }
        self.last, self.stop = epochs, stop
        EpochSeed(0).attach(self.engine)
        self.engine.add_event_handler(Events.EPOCH_COMPLETED, self.finish_epoch)
        path = str(folder / "state.ckpt")
        TrainingState(path, options.pop("objects", objects), resume=resume, **options).attach(
            self.engine
        )
        self.engine.add_event_handler(Events.EPOCH_COMPLETED, self.break_off)

    def break_off(self, engine: Engine) -> None:
        if engine.state.epoch == self.stop:
            engine.terminate()

    def step(self, engine: Engine, batch: int) -> None:
        self.optimizer.zero_grad()
        self.network(torch.randn(4, 2)).square().mean().backward()
        self.optimizer.step()

    def finish_epoch(self, engine: Engine) -> None:
        self.scheduler.step()
        self.epochs.append(engine.state.epoch)
        self.best(validated(engine.state.epoch / 10, engine.state.epoch))

    def run(self, batches: int = 3) -> Training:
        self.engine.run(range(batches), max_epochs=self.last)
        return self


def test_a_resumed_training_equals_an_uninterrupted_one_to_the_bit(tmp_path):
    whole = Training(tmp_path / "whole", 5).run()
    Training(tmp_path / "parts", 5, stop=2).run()
    resumed = Training(tmp_path / "parts", 5, resume=True).run()
    assert whole.epochs == [1, 2, 3, 4, 5]
    assert resumed.epochs == [3, 4, 5]
    assert torch.equal(resumed.network.weight, whole.network.weight)
    assert resumed.scheduler.state_dict() == whole.scheduler.state_dict()
    assert resumed.best.state_dict() == whole.best.state_dict()
    for mine, theirs in zip(
        resumed.optimizer.state.values(), whole.optimizer.state.values(), strict=True
    ):
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_without_resume_training_starts_anew(tmp_path):
    Training(tmp_path, 2).run()
    assert Training(tmp_path, 3).run().epochs == [1, 2, 3]


def test_resuming_from_nothing_starts_at_epoch_1_and_says_so(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        assert Training(tmp_path, 2, resume=True).run().epochs == [1, 2]
    assert "nothing to resume in" in caplog.text


def test_a_finished_training_does_nothing_when_resumed(tmp_path, caplog):
    done = Training(tmp_path, 2).run()
    before = (tmp_path / "state.ckpt").read_bytes()
    with caplog.at_level(logging.INFO):
        again = Training(tmp_path, 2, resume=True).run()
    assert again.epochs == []
    assert torch.equal(again.network.weight, done.network.weight)
    assert (tmp_path / "state.ckpt").read_bytes() == before
    assert "2 of 2 epochs were done: nothing is left" in caplog.text


def test_the_state_is_saved_every_interval_and_at_the_end(tmp_path):
    training = Training(tmp_path, 5, interval=2)
    on_disk = []

    def note(engine: Engine) -> None:
        path = tmp_path / "state.ckpt"
        saved = torch.load(path, weights_only=True) if path.exists() else {"progress": {"epoch": 0}}
        on_disk.append(saved["progress"]["epoch"])

    training.engine.add_event_handler(Events.EPOCH_COMPLETED, note)
    training.run()
    assert on_disk == [0, 2, 2, 4, 5]


def test_other_parts_than_the_file_holds_are_refused(tmp_path):
    Training(tmp_path, 1).run()
    other = Training(tmp_path, 2, resume=True, objects={"method": nn.Linear(2, 1)})
    with pytest.raises(ValueError, match=r"holds \['best_model', .*expects \['method'\].*without"):
        other.run()


def test_a_file_that_is_no_training_state_is_refused(tmp_path):
    torch.save(nn.Linear(2, 1).state_dict(), tmp_path / "state.ckpt")
    with pytest.raises(
        ValueError, match=r"state\.ckpt holds \['bias', 'weight'\], this config exp"
    ):
        Training(tmp_path, 2, resume=True).run()


def test_another_amount_of_data_is_resumed_with_a_warning(tmp_path, caplog):
    Training(tmp_path, 3, stop=1).run()
    resumed = Training(tmp_path, 3, resume=True).run(batches=5)
    assert resumed.epochs == [2, 3]
    assert resumed.engine.state.epoch_length == 5
    assert "an epoch had 3 iterations, now it has 5" in caplog.text


def record(free=("batch_size",), cases=None, **settings) -> TrainingRecord:
    settings = {"spacing": [1.0, 1.0, 1.0], "batch_size": 2, "filters": 8, **settings}
    return TrainingRecord(settings, frozenset(free), cases or {})


def begin(folder: Path, **settings) -> None:
    Training(folder, 6, stop=2, record=record(**settings)).run()


def test_a_record_changes_nothing_in_a_training_that_goes_on(tmp_path, caplog):
    whole = Training(tmp_path / "whole", 6, record=record()).run()
    begin(tmp_path / "parts")
    with caplog.at_level(logging.INFO):
        same = record(spacing=(1, 1, 1), filters=8.0)
        resumed = Training(tmp_path / "parts", 6, resume=True, record=same).run()
    assert torch.equal(resumed.network.weight, whole.network.weight)
    assert resumed.scheduler.state_dict() == whole.scheduler.state_dict()
    assert ", now " not in caplog.text
    assert "WARNING" not in caplog.text


def test_what_must_stay_the_same_is_listed_and_refused(tmp_path):
    begin(tmp_path)
    before = (tmp_path / "state.ckpt").read_bytes()
    other = record(spacing=2, filters=16, batch_size=4)
    with pytest.raises(ValueError, match=r"state\.ckpt cannot be resumed") as refused:
        Training(tmp_path, 6, resume=True, record=other).run()
    text = str(refused.value)
    assert "changed: spacing: [1.0, 1.0, 1.0], now 2; filters: 8, now 16. Give" in text
    assert "batch_size" not in text
    assert "start anew without --resume" in text
    assert "--accept_changes true" in text
    assert (tmp_path / "state.ckpt").read_bytes() == before


def test_changes_are_accepted_and_written_down(tmp_path, caplog):
    begin(tmp_path)
    for stop, filters in ((3, 16), (4, 32)):
        other = record(filters=filters)
        Training(tmp_path, 6, True, stop, record=other, accept_changes=True).run()
    assert "goes on with a change: filters: 8, now 16, from epoch 3 on" in caplog.text
    saved = torch.load(tmp_path / "state.ckpt", weights_only=True)["record"]
    assert saved["settings"]["filters"] == 32
    assert saved["accepted"] == [
        "after epoch 2: filters: 8, now 16",
        "after epoch 3: filters: 16, now 32",
    ]


def test_a_state_that_does_not_say_what_it_was_made_with_is_refused(tmp_path, caplog):
    Training(tmp_path, 6, stop=2).run()
    with pytest.raises(ValueError, match=r"does not say what it was made .* --accept_changes true"):
        Training(tmp_path, 6, resume=True, record=record()).run()
    Training(tmp_path, 6, True, 3, record=record(), accept_changes=True).run()
    assert "with a change: it does not say what it was made with" in caplog.text
    assert Training(tmp_path, 6, True, 4, record=record()).run().epochs == [4]


def rates(training: Training) -> list[float]:
    """Run, and return each epoch's learning rate."""
    found = []

    def note(engine: Engine) -> None:
        found.append(training.optimizer.param_groups[0]["lr"])

    training.engine.add_event_handler(Events.EPOCH_STARTED, note)
    training.run()
    return found


def test_another_rate_and_length_take_effect_and_are_said(tmp_path, caplog):
    begin(tmp_path)
    longer = Training(tmp_path, 9, resume=True, record=record(batch_size=4))
    longer.optimizer.param_groups[0].update(lr=0.003, initial_lr=0.003)
    longer.scheduler.base_lrs, longer.scheduler.total_iters = [0.003], 9
    with caplog.at_level(logging.INFO):
        found = rates(longer)
    assert found == pytest.approx([0.003 * (1 - epoch / 9) for epoch in range(2, 9)])
    assert longer.epochs == [3, 4, 5, 6, 7, 8, 9]
    for line in ("max_epochs: 6, now 9", "learning_rate: 0.1, now 0.003", "batch_size: 2, now 4"):
        assert f"{line}, from epoch 3 on" in caplog.text


def test_a_shorter_length_that_was_passed_leaves_nothing(tmp_path, caplog):
    begin(tmp_path)
    with caplog.at_level(logging.INFO):
        assert Training(tmp_path, 1, resume=True, record=record()).run().epochs == []
    assert "2 of 1 epochs were done: nothing is left" in caplog.text
    assert "from epoch" not in caplog.text


def test_other_cases_are_said_and_taken(tmp_path, caplog):
    begin(tmp_path, cases={"training": {"a": "t1", "b": "t1+t2"}})
    now = record(cases={"training": {"a": "t1", "b": "t2", "c": "t1"}})
    assert Training(tmp_path, 6, True, 3, record=now).run().epochs == [3]
    assert "the data changed: training cases: 1 came (c), 1 have other scans (b)" in caplog.text
