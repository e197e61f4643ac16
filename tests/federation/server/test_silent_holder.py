"""The only holder of a modality goes silent: later rounds wait the grace, not the timeout."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest
from federation.protocol.identity import Identity
from federation.protocol.messages import VALIDATE, refusal, to_message
from federation.server.aggregator import ModalityAggregator
from federation.server.controller import ModalityFedAvg
from federation.server.round_log import ROUNDS, VALIDATIONS, read_log
from nvflare.apis.fl_context import FLContext
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType

BUNDLE = Identity(*"1234567")
TIMEOUT, GRACE = 0.8, 0.05
# Seconds; whoever waits for it is found out.
LONG = 30.0
CASES = {"A": {"t1": 2}, "B": {"t2": 2}, "holder": {"t1": 1, "flair": 3}}


class Workflow(ModalityFedAvg):
    """Sites answer at once with `answers(site, number)`; None = never, "late" = after the round."""

    def __init__(self, state, answers, folder, rounds, **arguments):
        rules = {"modality_parameters": [r"\.encoders\.{index}\."], "private_parameters": ["norm"]}
        rules |= {"additive_statistics": ["bank"], "recounted_statistics": ["dice_sums"]}
        rules |= {"modality_axes": {r"\.first\.": 1}}
        aggregator = ModalityAggregator(["t1", "t2", "flair"], rules)
        aggregator.fl_ctx = FLContext()
        times = {"round_timeout": TIMEOUT, "grace": GRACE, "task_check_period": 0.01}
        times |= {"validate_last": False} | arguments
        super().__init__(aggregator, "p", "train", rounds, min_sites=2, **times)
        self.state, self.answers, self.waiting, self.late = dict(state), answers, 0, []
        self.persistor = SimpleNamespace(
            folder=folder,
            training=None,
            resumed=False,
            export=lambda _: "",
            save_best=lambda *_: None,
        )
        self.fl_ctx, self.abort_signal = FLContext(), Signal()

    def load_model(self):
        return FLModel(ParamsType.FULL, dict(self.state), meta={})

    def save_model(self, model):
        for site in self.late:
            client = SimpleNamespace(name=site)
            self.process_result_of_unknown_task(client, "train", "id", None, self.fl_ctx)
        self.late = []

    def broadcast_model(self, data, task_name, targets, blocking, callback):
        self.waiting = 0
        for site in targets:
            answer = self.answers(site, task_name if task_name == VALIDATE else data.current_round)
            if isinstance(answer, FLModel):
                answer.meta = {**(answer.meta or {}), "client_name": site}
                callback(answer)
            else:
                self.waiting += 1
                self.late += [site] if answer == "late" else []

    def get_num_standing_tasks(self):
        return self.waiting

    def cancel_all_tasks(self):
        self.waiting = 0

    def sample_clients(self, num_clients=None):
        return list(CASES)

    def event(self, _):
        pass

    def get_run_dir(self):
        return str(self.persistor.folder)


@pytest.fixture
def waited(state, contribute, tmp_path, monkeypatch):
    """Give waited({round: the holder's answer}, rounds): True for each round that timed out."""
    monkeypatch.setattr("federation.server.controller.installed_identity", lambda _: BUNDLE)

    def run(answers, rounds):
        def answer(site, number):
            if site == "holder" and number in answers:
                return answers[number]
            return to_message(contribute(site, CASES[site], round=number, identity=BUNDLE))

        workflow = Workflow(state, answer, tmp_path, rounds)
        workflow.run()
        entries = read_log(tmp_path / ROUNDS)
        assert [entry["committed"] for entry in entries] == [True] * rounds
        return [entry["seconds"] >= TIMEOUT for entry in entries]

    return run


def test_a_holder_that_died_is_waited_for_once(waited, tmp_path):
    assert waited({1: None, 2: None, 3: None}, 4) == [False, True, False, False]
    report = json.loads((tmp_path / "round_0003.json").read_text())
    assert report["silent"] == ["holder"]
    assert report["unheld"] == ["flair"]


def test_it_counts_again_when_it_has_answered(waited):
    assert waited({1: None, 2: None, 4: None}, 5) == [False, True, False, False, True]


def test_an_answer_that_comes_too_late_is_an_answer(waited):
    assert waited({1: "late", 2: None, 3: None}, 4) == [False, True, True, False]


def test_a_refusal_is_an_answer_and_nothing_more_is_waited_for_in_its_round(
    state, contribute, tmp_path, monkeypatch
):
    monkeypatch.setattr("federation.server.controller.installed_identity", lambda _: BUNDLE)

    def answer(site, number):
        if site == "holder" and number == 1:
            return refusal("the disk is full")
        if site == "B" and number == 1:
            return None
        return to_message(contribute(site, CASES[site], round=number, identity=BUNDLE))

    monkeypatch.setitem(CASES, "C", {"t2": 1})
    Workflow(state, answer, tmp_path, 3, round_timeout=LONG).run()
    assert all(entry["seconds"] < LONG / 2 for entry in read_log(tmp_path / ROUNDS))


def test_a_site_that_was_silent_before_any_round_is_waited_for_once(
    state, contribute, tmp_path, monkeypatch
):
    monkeypatch.setattr("federation.server.controller.installed_identity", lambda _: BUNDLE)
    failed = []

    def answer(site, number):
        if site == "holder":
            return None
        if site == "B" and not failed:
            failed.append(site)
            return refusal("not yet")
        return to_message(contribute(site, CASES[site], round=number, identity=BUNDLE))

    Workflow(state, answer, tmp_path, 1).run()
    first, second = read_log(tmp_path / ROUNDS)
    assert (first["committed"], second["committed"]) == (False, True)
    assert first["seconds"] >= TIMEOUT > second["seconds"]


def test_scores_of_a_silent_site_are_not_waited_for(state, contribute, tmp_path, monkeypatch):
    monkeypatch.setattr("federation.server.controller.installed_identity", lambda _: BUNDLE)

    def answer(site, asked):
        if site == "holder":
            return None
        if asked == VALIDATE:
            scored = FLModel(metrics={"dice": {"t1": {"WT": [0.5, 1]}}})
            return scored if site == "A" else refusal("it has no cases to score on")
        return to_message(contribute(site, CASES[site], round=asked, identity=BUNDLE))

    workflow = Workflow(state, answer, tmp_path, 2, validate_last=True, round_timeout=LONG)
    started = time.monotonic()
    # It has answered no earlier round either.
    workflow._attendance.note(CASES, ["A", "B"])
    workflow._holders = {"t1": {"A"}, "t2": {"B"}}
    workflow.run()
    assert time.monotonic() - started < LONG / 2
    (entry,) = read_log(tmp_path / VALIDATIONS)
    assert entry["sites"] == {"A": 0.5}
    assert entry["refused"] == {"B": "it has no cases to score on"}
