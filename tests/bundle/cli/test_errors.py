from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from torch._utils import ExceptionWrapper

from bundle import check_root
from bundle.cli.errors import end_of, sentence_of
from bundle.data.volumes import CaseError
from bundle.training.engine import MethodIteration

NOWHERE = "datalist nowhere.json does not exist."
READ = {
    "_target_": "bundle.data.datalist.read_datalist",
    "path": "nowhere.json",
    "modalities": ["t1", "flair"],
    "regions": {"WT": [1]},
}


def raised_by(call, *given) -> Exception:
    try:
        call(*given)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def of_config(**ids) -> Exception:
    """Give the error of MONAI when it makes the id 'made'."""
    parser = ConfigParser({"imports": ["$import bundle", "$import torch"], **ids})
    return raised_by(parser.get_parsed_content, "made")


def refuse(_data):
    raise CaseError("case a: t1.nii cannot be read. Copy it again.")


def refuse_after_another(data):
    try:
        raise OSError("disk: gone")
    except OSError as error:
        with pytest.raises(ValueError, match="case a"):
            refuse(data)
        raise CaseError("case a: t1.nii cannot be read. Copy it again.") from error


def slip(_data):
    return {}["slip"]


@pytest.mark.parametrize(
    ("ids", "line"),
    [
        ({"made": READ}, NOWHERE),
        ({"made": "$@read", "read": READ}, NOWHERE),
        ({"made": "$bundle.check_root(1 / 0)"}, "ZeroDivisionError: division by zero (Failed to"),
        (
            {"made": "$bundle.checkpoints.check_writable('x')"},
            "bundle.checkpoints.BestModel is now bundle.training.best.BestModel",
        ),
        ({"made": "$bundle.flag('maybe')"}, "expected true or false, got 'maybe'"),
        (
            {"made": {**READ, "pth": 1}},
            "TypeError: read_datalist() got an unexpected keyword argument 'pth' (Failed to "
            "instantiate component 'bundle.data.datalist.read_datalist'; PATCHWORK_TRACEBACK=1 "
            "shows where)",
        ),
        (
            {"made": {"_target_": "torch.nn.Conv3d", "in_channels": "x"}},
            "TypeError: Conv3d.__init__() missing 2 required positional arguments",
        ),
        ({"made": {"_target_": "torch.device", "type": "gpu"}}, "Expected one of cpu, cuda"),
        ({"made": {"_target_": "bundle.nothing.Here"}}, "Cannot locate class or function path"),
    ],
)  # fmt: skip
def test_what_a_config_got_wrong_is_one_line(ids, line, capsys):
    assert end_of(of_config(**ids)) == 2
    (shown,) = capsys.readouterr().err.splitlines()
    assert shown.startswith(f"error: {line}")


@pytest.mark.parametrize("transform", [refuse, refuse_after_another])
def test_a_transforms_refusal_is_one_line_also_out_of_a_worker(transform, capsys):
    error = raised_by(Compose([transform]), {})
    assert str(error).startswith("applying transform")
    sent = ExceptionWrapper(
        (type(error), error, error.__traceback__), "in DataLoader worker process 1"
    )
    for each in (error, raised_by(sent.reraise)):
        assert end_of(each) == 2
        assert capsys.readouterr().err == "error: case a: t1.nii cannot be read. Copy it again.\n"


@pytest.mark.parametrize("in_worker", [False, True])
def test_a_slip_of_ours_keeps_its_traceback_before_the_last_line(in_worker, capsys):
    error = raised_by(Compose([slip]), {})
    if in_worker:
        given = (type(error), error, error.__traceback__)
        error = raised_by(ExceptionWrapper(given, "in DataLoader worker process 0").reraise)
    assert end_of(error) == 1
    shown = capsys.readouterr().err
    assert 'return {}["slip"]' in shown
    assert "KeyError: 'slip'" in shown
    assert shown.splitlines()[-1].startswith("error: ") or in_worker


def test_every_traceback_is_shown_to_who_asks(monkeypatch, capsys):
    monkeypatch.setenv("PATCHWORK_TRACEBACK", "1")
    assert end_of(of_config(made=READ)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith(f"error: {NOWHERE}")
    monkeypatch.setenv("PATCHWORK_TRACEBACK", "0")
    assert end_of(of_config(made=READ)) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_our_own_sentences_are_for_people_whatever_their_type(tmp_path, capsys):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "__init__.py").touch()
    assert end_of(raised_by(check_root, str(tmp_path))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: a package called 'bundle' is already loaded from")


def test_a_loss_that_is_not_finite_is_one_line(capsys):
    state = SimpleNamespace(epoch=1, iteration=2)
    engine = SimpleNamespace(state=state)
    error = raised_by(
        MethodIteration._check_finite, {"loss": float("nan")}, {"case": ["a"]}, engine
    )
    assert end_of(error) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the loss is not finite in epoch 1, iteration 2 (loss nan)")
    assert line.endswith("(--amp false), and continue with --resume true.")


def test_other_peoples_runtime_errors_are_not(capsys):
    assert end_of(raised_by(torch.ones(2).__add__, torch.ones(3))) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("error: The size of tensor a (2) must match")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ValueError("a: expected b. Do c."), 2, "error: a: expected b. Do c."),
        (FileNotFoundError(2, "No such file", "x"), 2, "error: [Errno 2] No such file: 'x'"),
        (ImportError("no package x"), 2, "error: no package x"),
        (ValueError(), 2, "error: ValueError"),
        (KeyboardInterrupt(), 130, "stopped with Ctrl-C"),
        (KeyError("x"), 1, "error: KeyError: 'x'"),
        (AssertionError(), 1, "error: AssertionError"),
    ],
)
def test_the_status_tells_who_has_to_change_something(error, status, line, capsys):
    assert end_of(error) == status
    assert capsys.readouterr().err.splitlines()[-1] == line


def read_size(word):
    try:
        return int(word)
    except ValueError as error:
        raise ValueError("size: expected a number, got 'x'") from error


def test_a_chain_of_our_own_is_told_by_its_last_sentence():
    assert sentence_of(raised_by(read_size, "x")) == "error: size: expected a number, got 'x'"
