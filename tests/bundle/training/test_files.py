from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from bundle.networks.masked_autoencoder import MaskedAutoencoder
from bundle.networks.universal import UniversalNetwork
from bundle.training.best import BestModel
from bundle.training.engine import EpochSeed
from bundle.training.files import check_writable, save_atomically
from bundle.training.state import TrainingState
from bundle.training.weights import (
    PretrainedLoader,
    WeightsLoader,
    check_made_for,
    load_pretrained,
    load_weights,
)


@contextmanager
def files_no_larger_than(size_bytes: int) -> Iterator[None]:
    """Let every write beyond this size fail, as on a full disk."""
    resource = pytest.importorskip("resource", reason="limits on file sizes are POSIX")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_check_writable_makes_the_folder_and_leaves_nothing_in_it(tmp_path):
    folder = tmp_path / "a" / "b"
    assert check_writable(str(folder)) == str(folder)
    assert list(folder.iterdir()) == []


def test_a_folder_below_a_file_is_not_writable(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match=r"can be written, got .*file/eval \(Not a dir.*--output_dir"):
        check_writable(str(tmp_path / "file" / "eval"))


def test_a_checkpoint_comes_back_as_it_was_and_alone(tmp_path):
    path = tmp_path / "models" / "model.pt"
    content = {"weight": torch.randn(3)}
    save_atomically(content, path)
    assert torch.equal(torch.load(path, weights_only=True)["weight"], content["weight"])
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("numbers", [300, 100_000])
def test_a_write_that_fails_leaves_the_previous_file_and_no_other(tmp_path, numbers):
    path = tmp_path / "state.ckpt"
    save_atomically({"epoch": 1}, path)
    before = path.read_bytes()
    with (
        files_no_larger_than(2000),
        pytest.raises(OSError, match=r"could not write .*state\.ckpt .*previous one is intact"),
    ):
        save_atomically({"weight": torch.randn(numbers)}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_first_write_that_fails_says_that_there_was_none_before(tmp_path):
    path = tmp_path / "state.ckpt"
    with (
        files_no_larger_than(2000),
        pytest.raises(OSError, match=r"there was none before; .* MiB are free.*--resume true"),
    ):
        save_atomically({"weight": torch.randn(100_000)}, path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_of_the_same_kind(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match=r"could not write the checkpoint .*file/state\.ckpt"):
        save_atomically({}, tmp_path / "file" / "state.ckpt")


def test_every_tensor_is_loaded_and_counted(tmp_path, caplog):
    trained, network = nn.Linear(2, 3), nn.Linear(2, 3)
    save_atomically(trained.state_dict(), tmp_path / "model.pt")
    with caplog.at_level(logging.INFO):
        load_weights(network, str(tmp_path / "model.pt"))
    assert torch.equal(network.weight, trained.weight)
    assert "loaded 2 of 2 tensors" in caplog.text


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (nn.Linear(2, 4).state_dict(), "0 of the network's 2 tensors fit; for instance 'bias'"),
        ({"weight": torch.zeros(3, 2)}, "1 of the network's 2 tensors fit; for instance 'bias'"),
        (
            {"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "more": torch.zeros(1)},
            "2 of the network's 2 tensors fit; for instance 'more'",
        ),
        ({"model": nn.Linear(2, 3).state_dict()}, "0 of the network's 2 tensors fit"),
    ],
)
def test_weights_that_do_not_fit_are_refused_as_a_whole(tmp_path, state, message):
    network = nn.Linear(2, 3)
    before = network.weight.clone()
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=message):
        load_weights(network, str(tmp_path / "model.pt"))
    assert torch.equal(network.weight, before)


def test_missing_weights_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"trained weights in .*model\.pt.*--ckpt_dir"):
        load_weights(nn.Linear(2, 3), str(tmp_path / "model.pt"))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_a_file_that_holds_no_weights_is_named(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.pt"):
        load_weights(nn.Linear(2, 3), str(tmp_path / "model.pt"))


def test_the_weights_loader_loads_when_the_engine_starts(tmp_path):
    trained, network = nn.Linear(2, 3), nn.Linear(2, 3)
    save_atomically(trained.state_dict(), tmp_path / "model.pt")
    engine = Engine(lambda engine, batch: None)
    engine.state.device = torch.device("cpu")
    WeightsLoader(str(tmp_path / "model.pt"), network).attach(engine)
    assert not torch.equal(network.weight, trained.weight)
    engine.run([0])
    assert torch.equal(network.weight, trained.weight)


def validated(metric: float, epoch: int) -> SimpleNamespace:
    state = SimpleNamespace(metrics={"dice": metric}, key_metric_name="dice", epoch=epoch)
    return SimpleNamespace(state=state)


def saved_by(metrics: list[float], folder: Path) -> tuple[BestModel, float]:
    """Validate once per metric; return the handler and the weight that is on disk."""
    network = nn.Linear(1, 1)
    best = BestModel(network, str(folder / "model.pt"))
    for epoch, metric in enumerate(metrics, 1):
        nn.init.constant_(network.weight, epoch)
        best(validated(metric, epoch))
    return best, torch.load(folder / "model.pt", weights_only=True)["weight"].item()


@pytest.mark.parametrize(
    ("metrics", "epoch"),
    [([0.2, 0.5, 0.4], 2), ([0.5, 0.5], 1), ([0.0], 1), ([0.1, 0.2, 0.3], 3)],
)
def test_only_a_better_network_replaces_the_best(tmp_path, metrics, epoch):
    best, weight = saved_by(metrics, tmp_path)
    assert best.state_dict() == {"metric": max(metrics), "epoch": epoch}
    assert weight == epoch


def test_a_metric_that_is_no_number_is_never_the_best(tmp_path):
    best, weight = saved_by([0.5, float("nan"), 0.4], tmp_path)
    assert best.state_dict() == {"metric": 0.5, "epoch": 1}
    assert weight == 1


def test_the_best_network_is_a_flat_state_dict(tmp_path):
    saved_by([0.5], tmp_path)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert list(state) == ["weight", "bias"]
    load_weights(nn.Linear(1, 1), str(tmp_path / "model.pt"))


def test_the_former_best_holds_after_resuming(tmp_path):
    best = BestModel(nn.Linear(1, 1), str(tmp_path / "model.pt"))
    (tmp_path / "model.pt").write_bytes(b"epoch 7")
    best.load_state_dict({"metric": 0.5, "epoch": 7})
    best(validated(0.4, 8))
    assert (tmp_path / "model.pt").read_bytes() == b"epoch 7"
    best(validated(0.6, 9))
    assert best.state_dict() == {"metric": 0.6, "epoch": 9}
    assert not (tmp_path / "model.pt.previous").exists()


def test_a_best_network_that_is_gone_is_not_waited_for(tmp_path, caplog):
    best = BestModel(nn.Linear(1, 1), str(tmp_path / "model.pt"))
    best.load_state_dict({"metric": 0.5, "epoch": 7})
    assert "model.pt is gone" in caplog.text
    best(validated(0.4, 8))
    assert best.state_dict() == {"metric": 0.4, "epoch": 8}


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


MADE_FOR = {"modalities": ["t1", "t2"], "regions": {"WT": [1, 2], "TC": [1]}, "spacing": [1.0] * 3}


def save_made_for(folder: Path) -> str:
    BestModel(nn.Linear(1, 1), str(folder / "model.pt"), MADE_FOR)(validated(0.5, 1))
    return str(folder / "model.pt")


def test_weights_are_used_for_what_they_were_made_for(tmp_path, caplog):
    path = save_made_for(tmp_path)
    check_made_for(path, MADE_FOR)
    # Whether a saved file is told about depends on what configured the logging before.
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("modalities", ["t2", "t1"]),
        ("regions", {"TC": [1], "WT": [1, 2]}),
        ("spacing", [2.0, 2.0, 2.0]),
    ],
)
def test_weights_made_for_something_else_are_refused(tmp_path, name, other):
    path = save_made_for(tmp_path)
    with pytest.raises(ValueError, match=f"was trained with {name} .* this config has"):
        check_made_for(path, MADE_FOR | {name: other})


def test_weights_that_do_not_say_what_they_were_made_for_are_loaded_with_a_warning(
    tmp_path, caplog
):
    path = save_made_for(tmp_path)
    (tmp_path / "model.json").unlink()
    check_made_for(path, MADE_FOR)
    assert "model.json is missing" in caplog.text


def test_the_note_beside_the_weights_says_what_they_were_made_with_and_is_not_compared(tmp_path):
    made_with = {"prompts": {"source": "random", "seed": 3}}
    best = BestModel(nn.Linear(1, 1), str(tmp_path / "model.pt"), MADE_FOR, made_with)
    best(validated(0.5, 1))
    note = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert note == MADE_FOR | made_with
    check_made_for(str(tmp_path / "model.pt"), MADE_FOR)


def autoencoder(filters: int = 4, modalities: int = 4) -> MaskedAutoencoder:
    network = MaskedAutoencoder(modalities, filters, blocks_down=(1, 1, 1))
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network


def universal() -> UniversalNetwork:
    return UniversalNetwork(4, 3, filters=4, blocks_down=(1, 1, 1), deep_supervision=2)


def started(loader: PretrainedLoader) -> Engine:
    engine = Engine(lambda engine, batch: None)
    engine.state.device = torch.device("cpu")
    loader.attach(engine)
    engine.run([0])
    return engine


def test_the_autoencoder_starts_from_all_that_was_pretrained(tmp_path, caplog):
    pretrained, network = autoencoder(), universal()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    path, count = str(tmp_path / "pretrained.ckpt"), len(pretrained.state_dict())
    BestModel(pretrained, path, MADE_FOR).save()
    with caplog.at_level(logging.INFO):
        started(PretrainedLoader(path, network.autoencoder, MADE_FOR))
    numbers = sum(value.numel() for value in pretrained.state_dict().values())
    assert f"{count} of the file's {count} tensors fit, {numbers} of {numbers} par" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    for name, value in network.state_dict().items():
        part = name.removeprefix("autoencoder.")
        expected = before[name] if part == name else pretrained.state_dict()[part]
        assert torch.equal(value, expected), name


def test_tensors_that_do_not_fit_stay_and_are_counted_in_a_warning(tmp_path, caplog):
    network = nn.Linear(2, 3)
    bias = network.bias.clone()
    state = {"weight": torch.ones(3, 2), "bias": torch.ones(4), "more": torch.ones(1)}
    save_atomically(state, tmp_path / "pretrained.ckpt")
    load_pretrained(network, str(tmp_path / "pretrained.ckpt"))
    assert bool((network.weight == 1).all())
    assert torch.equal(network.bias, bias)
    assert "1 of the file's 3 tensors fit, 6 of 9 parameters start from" in caplog.text
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_weights_of_which_nothing_fits_are_refused(tmp_path):
    save_atomically(nn.Linear(2, 3).state_dict(), tmp_path / "pretrained.ckpt")
    with pytest.raises(
        ValueError,
        match=r"pretrained\.ckpt: 0 of its 2 tensors fit, 0 of the \d+ .*instance 'weight', the "
        r"part 'stand_in\.tile'\. Pre-train with the same modalities, filters and blocks_down",
    ):
        load_pretrained(autoencoder(), str(tmp_path / "pretrained.ckpt"))


def test_weights_of_a_network_of_another_width_are_refused(tmp_path):
    save_atomically(autoencoder(filters=8).state_dict(), tmp_path / "pretrained.ckpt")
    with pytest.raises(ValueError, match="the same modalities, filters and blocks_down"):
        load_pretrained(autoencoder(), str(tmp_path / "pretrained.ckpt"))


def test_missing_pretrained_weights_say_what_to_do(tmp_path):
    loader = PretrainedLoader(str(tmp_path / "pretrained.ckpt"), nn.Linear(2, 3))
    with pytest.raises(
        FileNotFoundError, match=r"pretrained\.ckpt, .*pretrain\.yaml, or train wit"
    ):
        started(loader)


def test_pretrained_weights_made_for_something_else_are_refused(tmp_path):
    path = str(tmp_path / "pretrained.ckpt")
    BestModel(autoencoder(), path, {"modalities": ["t1", "t2", "t1ce", "flair"]}).save()
    network = universal()
    before = network.autoencoder.stand_in.tile.clone()
    made_for = {"modalities": ["t1", "t1ce", "t2", "flair"], "regions": {"WT": [1]}}
    with pytest.raises(ValueError, match=r"was trained with modalities .* this config has"):
        started(PretrainedLoader(path, network.autoencoder, made_for))
    assert torch.equal(network.autoencoder.stand_in.tile, before)


def test_without_pretrained_weights_the_log_says_so(caplog):
    with caplog.at_level(logging.INFO):
        started(PretrainedLoader(None, universal().autoencoder))
        started(PretrainedLoader(None, None))
    assert caplog.text.count("no pretrained_file: training starts from random weights") == 2


def test_pretrained_weights_for_a_network_without_such_a_part_are_refused():
    with pytest.raises(ValueError, match=r"no part that is pre-trained, got a\.ckpt\. Leave --pre"):
        PretrainedLoader("a.ckpt", None)


def test_pretrained_weights_are_loaded_at_the_first_run_alone(tmp_path):
    save_atomically(nn.Linear(2, 3).state_dict(), tmp_path / "pretrained.ckpt")
    network = nn.Linear(2, 3)
    loader = PretrainedLoader(str(tmp_path / "pretrained.ckpt"), network)
    engine = started(loader)
    nn.init.constant_(network.weight, 7)
    engine.run([0])
    assert bool((network.weight == 7).all())
