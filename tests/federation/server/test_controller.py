"""The workflow's decisions, with sites that answer as they are told and no network."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch
from federation.protocol.identity import Identity
from federation.protocol.messages import (
    COUNTED_SITES,
    IDENTITY,
    RUN,
    STAGE,
    VALIDATE,
    refusal,
    to_message,
)
from federation.server.aggregator import ModalityAggregator
from federation.server.controller import ModalityFedAvg
from federation.server.round_log import ROUNDS, VALIDATIONS, RoundLog, read_log
from nvflare.apis.fl_context import FLContext
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType

SITES = ["A", "B", "C"]
HEAD = "network.head.weight"
BUNDLE = Identity(*"1234567")


class Persistor:
    """Keeps in memory what the real one keeps on disk."""

    def __init__(self, folder):
        self.folder, self.training, self.resumed = folder, None, False
        self.best, self.exported = [], []

    def save_best(self, learnable, _):
        self.best.append(learnable["weights"][HEAD].clone())

    def export(self, name):
        self.exported.append(name)
        return "7 of 7 tensors"


class Workflow(ModalityFedAvg):
    """The workflow, whose broadcasts are answered by `answers(task, site, model)`.

    An answer of None never comes; "failed" is an error of the site's executor.
    """

    def __init__(self, state, answers, folder, rules, trust=None, **arguments):
        aggregator = ModalityAggregator(["t1", "t2", "flair"], rules, **(trust or {}))
        aggregator.fl_ctx = FLContext()
        defaults = {"num_rounds": 2, "round_timeout": 0.2, "grace": 0.05, "task_check_period": 0.01}
        super().__init__(aggregator, "persistor", "train", **{**defaults, **arguments})
        self.state, self.answers = dict(state), answers
        self.persistor, self.fl_ctx, self.abort_signal = Persistor(folder), FLContext(), Signal()
        self.saved, self.meta, self.asked, self.panics, self.waiting = [], {}, [], [], 0
        self.targets, self.warnings = [], []
        self.run_dir = folder / "job"

    def load_model(self):
        return FLModel(ParamsType.FULL, dict(self.state), meta=self.meta)

    def save_model(self, model):
        self.saved.append(({k: v.clone() for k, v in model.params.items()}, dict(model.meta)))

    def broadcast_model(self, data, task_name, targets, blocking, callback):
        self.asked.append((task_name, data.current_round, dict(data.meta)))
        self.targets.append(list(targets))
        self.waiting = 0
        for site in targets:
            answer = self.answers(task_name, site, data)
            if answer is None:
                self.waiting += 1
            elif answer == "failed":
                self._failed[site] = "its trainer failed (EXECUTION_EXCEPTION)"
            else:
                answer.meta = {**(answer.meta or {}), "client_name": site}
                callback(answer)

    def get_num_standing_tasks(self):
        return int(self.waiting > 0)

    def cancel_all_tasks(self):
        self.waiting = 0

    def sample_clients(self, num_clients=None):
        return SITES

    def event(self, _):
        pass

    def warning(self, msg):
        self.warnings.append(msg)

    def panic(self, reason):
        self.panics.append(reason)

    def get_run_dir(self):
        return str(self.run_dir)


@pytest.fixture(autouse=True)
def _same_bundle(monkeypatch):
    monkeypatch.setattr("federation.server.controller.installed_identity", lambda _: BUNDLE)


@pytest.fixture
def workflow(state, contribute, tmp_path, rules_by_name):
    """Give workflow(answers={site: answer or function}, **arguments); others contribute 1."""

    def make(answers=None, scores=0.5, **arguments):
        def answer(task, site, model):
            told = (answers or {}).get(site, "contribute")
            if callable(told):
                told = told(task, model)
            if told != "contribute":
                return told
            if task == VALIDATE:
                return FLModel(metrics={"dice": {"t1": {"WT": [scores, 1]}}})
            given = contribute(site, round=model.current_round, identity=BUNDLE)
            return to_message(given, {"collected": model.current_round == 0})

        return Workflow(state, answer, tmp_path, rules_by_name, **arguments)

    return make


def head(saved):
    return saved[0][HEAD].tolist()[0]


def test_every_round_is_on_disk_before_the_next_one_and_the_last_is_scored(workflow):
    run = workflow()
    run.run()
    assert [head(saved) for saved in run.saved] == [1.5, 2.5]
    assert [(task, number) for task, number, _ in run.asked] == [
        ("train", 0),
        ("train", 1),
        (VALIDATE, 1),
    ]
    assert run.persistor.exported == ["model.pt"]
    assert run.panics == []
    # What the submitter can download.
    assert (run.run_dir / "train" / "coverage.md").exists()


def test_what_is_sent_tells_the_federations_word_its_bundle_and_whose_sums_are_in(workflow):
    run = workflow()
    run.run()
    first, second = (meta for _, _, meta in run.asked[:2])
    assert first[IDENTITY] == BUNDLE._asdict()
    assert first[STAGE] == "train"
    assert re.fullmatch("[0-9a-f]{32}", first[RUN])
    assert second[RUN] == first[RUN]
    assert (first[COUNTED_SITES], second[COUNTED_SITES]) == ([], SITES)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("failed", "its trainer failed"),
        (refusal("the disk is full"), "the disk is full"),
        (FLModel(ParamsType.DIFF, {HEAD: torch.ones(4)}), "expected case counts"),
        (FLModel(metrics={"nonsense": 1}), "expected differences"),
    ],
)
def test_one_sites_failure_is_that_sites(workflow, answer, reason):
    run = workflow({"B": answer}, min_sites=2)
    run.run()
    assert [head(saved) for saved in run.saved] == [1.5, 2.5]
    report = json.loads((run.persistor.folder / "round_0000.json").read_text())
    assert list(report["accepted"]) == ["A", "C"]
    assert reason in report["refused"]["B"]
    assert reason in read_log(run.persistor.folder / ROUNDS)[0]["refused"]["B"]


def test_a_straggler_is_not_waited_for_beyond_the_grace(workflow):
    run = workflow({"C": None}, min_sites=2, round_timeout=60.0)
    run.run()
    assert len(run.saved) == 2
    rounds = read_log(run.persistor.folder / ROUNDS)
    assert all(entry["seconds"] < 5 for entry in rounds)
    report = json.loads((run.persistor.folder / "round_0001.json").read_text())
    assert report["silent"] == ["C"]


def test_a_round_without_quorum_is_asked_again_and_then_the_job_stops(workflow):
    run = workflow({"B": "failed", "C": None}, min_sites=2, attempts=2)
    run.run()
    assert run.saved == []
    assert [number for _, number, _ in run.asked] == [0, 0]
    assert "round 0 got fewer than 2 contributions 2 times" in run.panics[0]
    entries = read_log(run.persistor.folder / ROUNDS)
    assert [(e["attempt"], e["committed"]) for e in entries] == [(1, False), (2, False)]


def test_a_site_that_is_back_takes_part_again(workflow):
    def back_later(task, model):
        return "failed" if task == "train" and model.current_round == 0 else "contribute"

    run = workflow({"B": back_later}, min_sites=2)
    run.run()
    reports = [
        json.loads((run.persistor.folder / f"round_000{i}.json").read_text()) for i in (0, 1)
    ]
    assert [list(report["accepted"]) for report in reports] == [["A", "C"], SITES]
    # Its statistics are not in, because it was not there when they were added up.
    assert run.saved[-1][1][COUNTED_SITES] == ["A", "C"]


def test_a_lost_job_is_resumed_with_the_round_after_the_last_one_on_disk(workflow):
    run = workflow(num_rounds=5)
    run.persistor.resumed = True
    run.meta = {"current_round": 2, RUN: "word", COUNTED_SITES: ["A"], "best_score": 0.9}
    run.run()
    assert [number for task, number, _ in run.asked if task == "train"] == [3, 4]
    assert run.asked[0][2][RUN] == "word"
    assert run.asked[0][2][COUNTED_SITES] == ["A"]
    assert run.persistor.best == [], "nothing better than before"


def test_a_job_that_has_nothing_left_to_train_scores_what_there_is(workflow):
    run = workflow(num_rounds=0)
    run.persistor.resumed = True
    run.meta = {"current_round": 7, RUN: "word"}
    run.run()
    assert [task for task, _, _ in run.asked] == [VALIDATE]
    assert read_log(run.persistor.folder / VALIDATIONS)[0]["mean"] == pytest.approx(0.5)
    assert (run.persistor.exported, run.saved) == ([], [])


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (refusal("its datalist is broken"), "{'A': 'its datalist is broken', 'B': .*"),
        (FLModel(metrics={"dice": {}}), "no site has cases"),
    ],
)
def test_an_evaluation_that_nobody_could_do_has_failed(workflow, answer, told):
    run = workflow(dict.fromkeys(SITES, lambda *_: copy.deepcopy(answer)), num_rounds=0)
    run.persistor.resumed = True
    run.meta = {"current_round": 7, RUN: "word"}
    run.run()
    assert re.search(f"no site has scored the model: {told}", run.panics[0])


def test_the_best_model_is_good_for_the_worst_site_too(workflow):
    dice = {"A": [0.5, 0.9, 0.6], "B": [0.5, 0.2, 0.6], "C": [0.5, 0.9, 0.6]}
    turn = {"n": -1}

    def scored(site):
        def answer(task, model):
            if task != VALIDATE:
                return "contribute"
            turn["n"] += site == "A"
            return FLModel(metrics={"dice": {"t1": {"WT": [dice[site][turn["n"]], 1]}}})

        return answer

    run = workflow({s: scored(s) for s in SITES}, num_rounds=3, validate_interval=1)
    run.run()
    # Means 0.5, 0.67 and 0.6, worst 0.5, 0.2 and 0.6: the second one's mean hides B.
    assert [weights.tolist()[0] for weights in run.persistor.best] == [1.5, 3.5]


def test_scores_that_are_none_are_not_counted(workflow):
    bad = FLModel(metrics={"dice": {"t1": {"WT": [7.0, 1]}}})
    run = workflow({"B": lambda task, _: bad if task == VALIDATE else "contribute"})
    run.run()
    assert sorted(read_log(run.persistor.folder / VALIDATIONS)[0]["sites"]) == ["A", "C"]


def test_an_aborted_job_ends_without_another_round(workflow):
    run = workflow({"B": None}, round_timeout=60.0)
    run.abort_signal.trigger(True)
    run.run()
    assert run.saved == []
    assert len(run.asked) == 1


def test_another_bundle_at_a_site_is_refused_with_both_hashes(workflow, contribute):
    other = to_message(contribute("B", round=0, identity=BUNDLE._replace(code="x")))
    run = workflow({"B": lambda task, _: other if task == "train" else "contribute"})
    run.run()
    report = json.loads((run.persistor.folder / "round_0000.json").read_text())
    assert "expected code 2, got x" in report["refused"]["B"]


def test_a_modality_that_nobody_has_is_not_waited_for_again(workflow, contribute):
    def without_flair(site):
        def answer(task, model):
            if task != "train":
                return "contribute"
            given = contribute(site, {"t1": 2, "t2": 1}, round=model.current_round, identity=BUNDLE)
            return to_message(given)

        return answer

    def straggles_later(task, model):
        return None if task == "train" and model.current_round else without_flair("C")(task, model)

    answers = {"A": without_flair("A"), "B": without_flair("B"), "C": straggles_later}
    run = workflow(answers, min_sites=2, round_timeout=60.0)
    run.run()
    assert len(run.saved) == 2
    assert read_log(run.persistor.folder / ROUNDS)[1]["seconds"] < 5


def test_a_site_that_the_list_leaves_out_is_never_asked_and_scores_nothing(workflow):
    def praise(task, _):
        perfect = FLModel(metrics={"dice": {"t1": {"WT": [1.0, 1]}}})
        return perfect if task == VALIDATE else "contribute"

    run = workflow({"C": praise}, trust={"site_cases": {"A": 2, "B": 2}})
    run.run()
    assert run.targets == [["A", "B"]] * 3
    assert read_log(run.persistor.folder / VALIDATIONS)[0]["sites"] == {"A": 0.5, "B": 0.5}
    assert run._best == pytest.approx(0.5)
    report = json.loads((run.persistor.folder / "round_0000.json").read_text())
    assert (report["refused"], report["silent"]) == ({}, [])
    told = [line for line in run.warnings if "list of sites" in line]
    assert told == ["not in the coordinator's list of sites, and never asked: C"]


def test_scores_of_a_site_that_was_not_asked_are_refused(workflow):
    run = workflow()
    run._asked = ["A", "B"]
    for site in ("A", "C"):
        scores = FLModel(metrics={"dice": {"t1": {"WT": [1.0, 1]}}}, meta={"client_name": site})
        assert run._take_scores(scores) == (site == "A")
    assert list(run._scores) == ["A"]
    assert run._unscored == {"C": "it was not asked for scores"}


def test_a_site_adds_its_sums_once_whatever_it_says_of_them(workflow, contribute):
    def again(task, model):
        if task != "train":
            return "contribute"
        ones = {"bank.counts": torch.ones(3, dtype=torch.float64)}
        given = contribute("B", round=model.current_round, identity=BUNDLE, moved=ones)
        return to_message(given, {"collected": False})

    run = workflow({"B": again})
    run.run()
    assert run.saved[0][1][COUNTED_SITES] == SITES
    assert run.saved[-1][0]["bank.counts"].tolist() == [3.0] * 3
    report = json.loads((run.persistor.folder / "round_0001.json").read_text())
    assert list(report["accepted"]) == ["A", "C"]
    assert report["refused"] == {
        "B": "its statistics are in the model, and it would add to them once more"
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": "../../.."}, "stage: expected a name"),
        ({"stage": "/tmp/x"}, "stage: expected a name"),
        ({"export": "../model.pt"}, "export: expected a name"),
        ({"export": "/tmp/model.ckpt"}, "export: expected a name"),
        (
            {"export": "model.json"},
            r"expected a name that ends in \.pt or \.ckpt, got 'model.json'",
        ),
        ({"export": ".."}, r"expected a name that ends in \.pt or \.ckpt"),
    ],
)
def test_a_job_names_no_folder_at_the_server(arguments, message):
    aggregator = ModalityAggregator(["t1", "t2"], {})
    with pytest.raises(ValueError, match=message):
        ModalityFedAvg(aggregator, "persistor", **{"stage": "train", "num_rounds": 1, **arguments})


@pytest.mark.parametrize("name", ["model.pt", "pretrained.ckpt"])
def test_what_our_jobs_export_is_a_name(name):
    aggregator = ModalityAggregator(["t1", "t2"], {})
    assert ModalityFedAvg(aggregator, "p", "train", 1, export=name).export == name


def test_a_round_is_logged_as_committed_after_it_is_on_disk(workflow, monkeypatch):
    run = workflow()
    order, save, note = [], run.save_model, RoundLog.note_round
    monkeypatch.setattr(run, "save_model", lambda model: (order.append("saved"), save(model)))

    def noting(self, number, attempt, committed, *rest):
        order.append(committed)
        note(self, number, attempt, committed, *rest)

    monkeypatch.setattr(RoundLog, "note_round", noting)
    run.run()
    assert order == ["saved", True, "saved", True]


def test_a_full_disk_ends_the_job_and_the_log_says_which_round_was_not_saved(workflow, monkeypatch):
    run = workflow(num_rounds=3)
    save = run.save_model

    def fill(model):
        if model.current_round == 1:
            raise OSError("No space left on device.")
        save(model)

    monkeypatch.setattr(run, "save_model", fill)
    run.run()
    assert [head(saved) for saved in run.saved] == [1.5]
    (reason,) = run.panics
    assert "round 1 was not saved: No space left on device. The state of before is whole" in reason
    entries = read_log(run.persistor.folder / ROUNDS)
    assert [(entry["round"], entry["committed"]) for entry in entries] == [(0, True), (1, False)]


def test_a_log_that_cannot_be_written_costs_no_round(workflow, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(RoundLog, "note_round", full)
    run = workflow()
    run.run()
    assert [head(saved) for saved in run.saved] == [1.5, 2.5]
    assert run.panics == []


def test_what_speaks_against_a_start_is_the_last_word(workflow, monkeypatch):
    def refuse():
        raise ValueError("expected that no other job runs")

    run = workflow()
    monkeypatch.setattr(run, "load_model", refuse)
    run.run()
    assert run.panics == ["expected that no other job runs"]
    assert run.asked == []


def test_the_persistor_knows_whose_updates_are_in_a_state(workflow):
    run = workflow({"B": "failed"}, num_rounds=1)
    run.run()
    assert run.persistor.contributors == ["A", "C"]
