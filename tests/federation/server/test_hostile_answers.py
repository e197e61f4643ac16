"""One site's broken answer is that site's refusal, whatever it holds; the round goes on.

Answers go through NVFlare's own `_process_result`. There is a hostile site for each bad value.
"""

from __future__ import annotations

import copy
import enum
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from federation.protocol.identity import Identity
from federation.protocol.messages import VALIDATE, refusal, to_message
from federation.server.aggregator import ModalityAggregator
from federation.server.controller import ModalityFedAvg
from federation.server.round_log import ROUNDS, VALIDATIONS
from federation.server.rounds_picture import draw_rounds
from nvflare.apis.controller_spec import Task
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.utils.fl_model_utils import FLModelUtils

HEAD = "network.head.weight"
BUNDLE = Identity(*"1234567")
HONEST = ["honest-1", "honest-2"]


class Rude:
    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __len__ = __repr__


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no")


class Liar(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError("no")


def gone():
    raise FileNotFoundError("no such file")


def mute():
    raise MuteError


def deep(depth=5000):
    value = []
    for _ in range(depth):
        value = [value]
    return value


LOOP = {}
LOOP["self"] = LOOP
VALUES = {
    "none": None,
    "true": True,
    "minus": -1,
    "half": 1.5,
    "nan": math.nan,
    "infinite": math.inf,
    "huge": 10**400,
    "large": 10**13,
    "complex": 1j,
    "text": "two\nlines | <b>",
    "formula": "=1+1",
    "long": "x" * 10**5,
    "bytes": b"\x00\xff",
    "list": [],
    "dict": {},
    "numbered": {1: 2},
    "nested": {"a": {"b": [1]}},
    "loop": LOOP,
    "deep": deep(),
    "set": {1},
    "many": dict.fromkeys(map(str, range(2000)), 1),
    "tensor": torch.ones(3),
    "sparse": torch.ones(4).to_sparse(),
    "meta": torch.ones(4, device="meta"),
    "liar": torch.ones(4).as_subclass(Liar),
    "gradient": torch.full((4,), torch.nan, requires_grad=True),
    "objects": np.array([object()] * 4),
    "swapped": np.ones(4, ">f4"),
    "date": np.datetime64("2026-01-01"),
    "enum": enum.IntEnum("E", {"A": 1}).A,
    "reference": SimpleNamespace(materialize=gone),
    "mute reference": SimpleNamespace(materialize=mute),
    "rude": Rude(),
    "rude reference": SimpleNamespace(materialize=lambda: Rude()),
}


def in_about(*path):
    """Return a function that sets a value in our entry of a message's metadata."""

    def put(message, value):
        entry = message.meta["patchwork"]
        for name in path[:-1]:
            entry = entry[name]
        entry[path[-1]] = value

    return put


def in_meta(name):
    return lambda message, value: message.meta.update({name: value})


def in_privacy(name):
    return lambda message, value: message.meta.update({"privacy": {name: value}})


# Each place of a contribution: how a value gets there, and which ones belong there.
PLACES = {
    "about": (in_meta("patchwork"), ()),
    "facts": (in_about("facts"), ("none", "dict")),
    "collected": (in_about("facts", "collected"), ("true",)),
    "seconds": (in_about("facts", "seconds"), ("half",)),
    "peak memory": (in_about("facts", "peak_memory_mib"), ("half",)),
    "notes": (in_about("facts", "notes"), ("list",)),
    "another fact": (
        in_about("facts", "other"),
        ("true", "minus", "half", "text", "formula", "long", "list"),
    ),
    "cases": (in_about("cases"), ()),
    "cases of t1": (in_about("cases", "t1"), ()),
    "all cases": (in_about("all_cases"), ()),
    "identity": (in_about("identity"), ()),
    "code": (in_about("identity", "code"), ()),
    "privacy": (in_meta("privacy"), ("none", "dict")),
    "epsilon": (
        in_privacy("epsilon"),
        ("true", "minus", "half", "text", "formula", "long", "list"),
    ),
    "statement": (
        in_privacy("statement"),
        ("true", "minus", "half", "text", "formula", "long", "list"),
    ),
    "bytes": (in_meta("wire_bytes"), ("none", "large")),
    "tensor": (lambda message, value: message.params.update({HEAD: value}), ()),
}


def in_dxo(name):
    return lambda message, value: message["DXO"].update({name: value})


def in_header(name):
    return lambda message, value: message.set_header(name, value)


# The same of a message that NVFlare has written.
WRITTEN = {
    "params": (in_dxo("data"), ()),
    "metadata": (in_dxo("meta"), ()),
    "kind": (in_dxo("kind"), ()),
    "content": (lambda message, value: message.update({"DXO": value}), ()),
    "round": (in_header(AppConstants.CURRENT_ROUND), ("none",)),
    "return code": (in_header(ReservedHeaderKey.RC), ("none", "list", "dict")),
}


class Workflow(ModalityFedAvg):
    """The workflow, whose sites answer at once with `answers(task, site)`, a `Shareable`."""

    def __init__(self, state, sites, answers, folder, rules):
        aggregator = ModalityAggregator(["t1", "t2", "flair"], rules)
        aggregator.fl_ctx = FLContext()
        super().__init__(
            aggregator, "p", "train", 1, min_sites=2, round_timeout=5.0, task_check_period=0.01
        )
        self.state, self.sites, self.answers = dict(state), sites, answers
        parser = SimpleNamespace(get_parsed_content=lambda _: {"WT": [1], "TC": [2]})
        workflow = SimpleNamespace(parser=parser)
        self.persistor = SimpleNamespace(
            folder=folder, training=None, resumed=False, workflow=workflow, model=None
        )
        self.persistor.save_best = self.persistor.export = lambda *_: None
        self.fl_ctx, self.abort_signal = FLContext(), Signal()
        self.saved, self.panics, self.alive = [], [], []

    def load_model(self):
        return FLModel(ParamsType.FULL, dict(self.state), meta={})

    def save_model(self, model):
        self.saved.append(dict(model.params))
        self.alive.append(self.fl_ctx.get_prop(FLContextKey.TASK_RESULT))

    def broadcast_model(self, data, task_name, targets, blocking, callback):
        props = {AppConstants.TASK_PROP_CALLBACK: callback, AppConstants.META_DATA: {}}
        task = Task(task_name, Shareable(), props=props)
        for site in targets:
            client_task = SimpleNamespace(
                task=task, client=SimpleNamespace(name=site), result=self.answers(task_name, site)
            )
            context = FLContext()
            context.set_prop(FLContextKey.TASK_RESULT, client_task.result, True, False)
            self._process_result(client_task, context)

    def get_num_standing_tasks(self):
        return 0

    def sample_clients(self, num_clients=None):
        return self.sites

    def event(self, _):
        pass

    def panic(self, reason):
        self.panics.append(reason)

    def get_run_dir(self):
        return str(self.persistor.folder)


@pytest.fixture(autouse=True)
def _same_bundle(monkeypatch):
    monkeypatch.setattr("federation.server.controller.installed_identity", lambda _: BUNDLE)


@pytest.fixture
def run(state, contribute, tmp_path, rules_by_name):
    """Give run(spoil, task): `spoil(message, value)` spoils the answers of a site for each value.

    With `written` it is given what NVFlare made of a message.
    """

    def answer(task, site):
        if task == VALIDATE:
            return FLModel(metrics={"dice": {"t1": {"WT": [0.5, 1], "TC": [0.25, 1]}}})
        given = contribute(site, round=0, identity=BUNDLE, wire_bytes=8, all_cases=3)
        return to_message(given, {"collected": False, "seconds": 1.0, "notes": ["fine"]})

    def make(spoil, spoilt_task="train", written=False):
        def answers(task, site):
            message = answer(task, site)
            if site in HONEST or task != spoilt_task:
                return FLModelUtils.to_shareable(message)
            if not written:
                spoil(message, VALUES[site])
            shareable = FLModelUtils.to_shareable(message)
            if written:
                spoil(shareable, VALUES[site])
            return shareable

        workflow = Workflow(state, [*HONEST, *VALUES], answers, tmp_path, rules_by_name)
        workflow.run()
        return workflow

    return make


def strictly(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("place", [*PLACES, *WRITTEN])
def test_an_ill_typed_value_is_that_sites_refusal_and_nothing_else(run, place):
    spoil, fine = {**PLACES, **WRITTEN}[place]
    workflow = run(spoil, written=place in WRITTEN)
    assert workflow.panics == []
    assert len(workflow.saved) == 1
    folder = workflow.persistor.folder
    report = strictly((folder / "round_0000.json").read_text())
    assert sorted(report["accepted"]) == sorted([*HONEST, *fine])
    assert sorted(report["refused"]) == sorted(set(VALUES) - set(fine))
    for reason in report["refused"].values():
        assert reason.isprintable()
        assert 0 < len(reason) <= 600
    assert len((folder / "coverage.md").read_text().splitlines()) == 1
    assert len((folder / ROUNDS).read_text().splitlines()) == 1
    strictly((folder / ROUNDS).read_text())
    # Everything that was taken is a move by 1.
    assert workflow.saved[0][HEAD].tolist() == [1.5] * 4
    # All have answered the second question.
    (scores,) = (folder / VALIDATIONS).read_text().splitlines()
    assert set(strictly(scores)["sites"]) == {*HONEST, *VALUES}


def whole(message, value):
    message.metrics = {"dice": value}


SCORES = {
    "scores": (whole, ("dict",)),
    "subset": (lambda m, v: m.metrics["dice"].update({"t1": v}), ()),
    "entry": (lambda m, v: m.metrics["dice"]["t1"].update({"WT": v}), ()),
    "dice": (lambda m, v: m.metrics["dice"]["t1"].update({"WT": [v, 2]}), ("half",)),
    "count": (lambda m, v: m.metrics["dice"]["t1"].update({"WT": [0.5, v]}), ()),
    "region": (lambda m, v: m.metrics["dice"]["t1"].update({_hashable(v): [0.5, 1]}), ()),
    "another subset": (lambda m, v: m.metrics["dice"].update({_hashable(v): {}}), ()),
    "another subset's regions": (lambda m, v: m.metrics["dice"].update({"t2": v}), ()),
}


def _hashable(value):
    try:
        hash(value)
    except (TypeError, RuntimeError):
        return repr(type(value))
    return value


@pytest.mark.parametrize("place", SCORES)
def test_ill_typed_scores_are_that_sites_refusal_and_nothing_else(run, place):
    spoil, fine = SCORES[place]
    workflow = run(spoil, VALIDATE)
    assert workflow.panics == []
    folder = workflow.persistor.folder
    (line,) = (folder / VALIDATIONS).read_text().splitlines()
    entry = strictly(line)
    assert sorted(entry["sites"]) == sorted([*HONEST, *fine])
    assert sorted(entry["refused"]) == sorted(set(VALUES) - set(fine))
    text = (folder / "tables.md").read_text()
    assert text.count("\n- no scores from ") == len(VALUES) - len(fine)
    assert "## honest-1\n" in text
    draw_rounds([entry], folder / "rounds.png")


def test_no_answer_is_kept_in_memory_until_the_commit(run):
    workflow = run(lambda *_: None)
    assert workflow.alive == [None]


def test_regions_that_the_job_lacks_are_named(run):
    def other(message, _):
        message.metrics["dice"]["t1"] = {"necrosis": [0.5, 1], "TC": [0.5, 1]}

    workflow = run(other, VALIDATE)
    reason = workflow._unscored["text"]
    assert reason == ("site text, subset t1: expected regions ['WT', 'TC'], got 'necrosis'")


@pytest.mark.parametrize("value", ["", "a\n\n# Title\n| b |", "=cmd", "x" * 10**6, {"a": 1}, 7])
@pytest.mark.parametrize("task", ["train", VALIDATE])
def test_a_refusal_of_any_kind_is_one_line(run, value, task):
    def refuse(message, _):
        told = refusal(copy.deepcopy(value))
        message.params, message.params_type, message.metrics = None, None, told.metrics

    workflow = run(refuse, task)
    assert workflow.panics == []
    folder = workflow.persistor.folder
    text = (folder / ("coverage.md" if task == "train" else "tables.md")).read_text()
    assert "\n# Title" not in text
    assert "\n| b" not in text
    assert max(map(len, text.replace("; ", "\n").splitlines())) < 1300
    refused = (
        workflow._unscored
        if task == VALIDATE
        else strictly((folder / "round_0000.json").read_text())["refused"]
    )
    assert set(refused) == set(VALUES)
