"""How a site answers, around a training that is a stand-in: no data, no config, no NVFlare."""

from __future__ import annotations

import dataclasses
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from federation.protocol.changes import ChangesRefused
from federation.protocol.identity import Identity
from federation.protocol.messages import (
    COUNTED_SITES,
    IDENTITY,
    RUN,
    STAGE,
    read_facts,
    read_refusal,
)
from federation.protocol.stages import Stage
from federation.rules import Rules
from federation.settings import VARIABLE, Site
from federation.site.client import Client, main
from federation.site.state import ANEW, FILE
from federation.site.sums import WITHHELD
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType

HEAD = "network.head.weight"
WORD, OTHER = "0123456789abcdef" * 2, "f" * 32
BUNDLE = Identity(*"1234567")
CASES = {"t1": 2, "t2": 0, "flair": 1}
STAGES = [Stage("train", ["train.json"], 5).to_dict()]


class Training:
    """Does with a state what `LocalTraining` does with a method: a round adds 1 to everything."""

    error: Exception | None = None

    def __init__(self, exchange, state):
        self.exchange, self.cases, self.all_cases = exchange, CASES, 2
        self.stage, self.held_out, self.counted = SimpleNamespace(section="validation"), 1, None
        self.state = {key: value.clone() for key, value in state.items()}
        self.method = SimpleNamespace(
            state_dict=lambda: self.state, load_state_dict=lambda new: setattr(self, "state", new)
        )
        self.rounds = []

    def load_global(self, received):
        self.state = self.exchange.take(self.state, received, self.cases)

    def cases_in(self, section):
        return self.held_out

    def countable(self, least):
        return [0, 1] if least <= 2 else []

    def count_statistics(self, among):
        self.counted = among
        self.state = {**self.state, "bank.counts": torch.full((3,), 5.0, dtype=torch.float64)}
        return True

    def train(self, number):
        if self.error is not None:
            raise self.error
        self.rounds.append(number)
        self.state = {k: v if k.startswith("bank.") else v + 1 for k, v in self.state.items()}

    def score(self):
        return {"t1": {"WT": [0.5, 1]}}

    def own_state(self):
        return {"private": {"network.norm.weight": self.state["network.norm.weight"]}}

    def take_up(self, content):
        self.state = {**self.state, **content.get("private", {})}


@pytest.fixture
def built(exchange, state, monkeypatch):
    """The trainings that clients have built, and what they are built from."""
    made = []

    def build(*_):
        made.append(Training(exchange, state))
        return made[-1]

    monkeypatch.setattr("federation.site.client.LocalTraining", build)
    monkeypatch.setattr("federation.site.client.installed_identity", lambda _: BUNDLE)
    # There is nothing large to free here, and a collection takes longer than all the rest.
    monkeypatch.setattr("federation.site.client.gc", SimpleNamespace(collect=lambda: 0))
    monkeypatch.setattr(Training, "error", None)
    return made


@pytest.fixture
def client(built, tmp_path):
    (tmp_path / "list.json").write_text(
        json.dumps({"training": [{"case": "Miller-77", "image": {"t1": "m77/t1.nii"}}]})
    )
    ids = {"datalist_file": str(tmp_path / "list.json")}
    # Its two cases are made up.
    return Client(Site("A", ids, tmp_path, Rules(statistics_of_few=True)), "fed", STAGES)


@pytest.fixture
def sent(state):
    """Give sent(number, changed, **meta): what the server sends."""

    def make(number=0, changed=None, **meta):
        about = {RUN: WORD, STAGE: "train", COUNTED_SITES: [], IDENTITY: BUNDLE._asdict()}
        params = {key: value.clone() for key, value in state.items()} | (changed or {})
        return FLModel(ParamsType.FULL, params, current_round=number, meta={**about, **meta})

    return make


FILLED = {"bank.counts": torch.full((3,), 2.0, dtype=torch.float64)}


def test_the_first_round_only_adds_up_statistics(client, sent, built):
    answer = client.answer("train", sent())
    assert read_facts(answer)["collected"]
    assert built[0].rounds == []
    assert answer.params["bank.counts"].tolist() == [5.0] * 3
    assert not answer.params[HEAD].any()


def test_a_late_comers_statistics_are_added_to_the_others(client, sent, built):
    answer = client.answer("train", sent(3, FILLED))
    assert built[0].rounds == [3]
    assert answer.params["bank.counts"].tolist() == [5.0] * 3
    assert built[0].state["bank.counts"].tolist() == [7.0] * 3
    assert answer.params[HEAD].tolist() == [1.0] * 4


def test_statistics_that_are_in_are_not_sent_again(client, sent, built):
    answer = client.answer("train", sent(1, FILLED, **{COUNTED_SITES: ["A", "B"]}))
    assert not read_facts(answer)["collected"]
    assert not answer.params["bank.counts"].any()
    assert answer.params[HEAD].tolist() == [1.0] * 4


def test_a_contribution_holds_what_the_site_has_and_who_it_is(client, sent):
    answer = client.answer("train", sent(1, FILLED))
    assert answer.params_type == ParamsType.DIFF
    assert "network.encoders.1.weight" not in answer.params
    assert "network.norm.weight" not in answer.params
    about = answer.meta["patchwork"]
    assert (about["cases"], about["all_cases"]) == (CASES, 2)
    assert about["identity"] == BUNDLE._asdict()
    assert read_facts(answer)["peak_memory_mib"] > 1


def test_a_poisoned_broadcast_is_refused_and_the_good_model_kept(client, sent, built):
    client.answer("train", sent(1, FILLED))
    good = {key: value.clone() for key, value in built[0].state.items()}
    kept = (client.site.state_dir / "fed" / "train" / FILE).read_bytes()
    answer = client.answer("train", sent(2, {HEAD: torch.full((4,), torch.nan)}))
    assert "expected finite numbers under 'network.head.weight'" in read_refusal(answer)
    assert all(torch.equal(built[0].state[key], value) for key, value in good.items())
    assert (client.site.state_dir / "fed" / "train" / FILE).read_bytes() == kept
    # And the next good one is trained on, by a training that took up the private part.
    answer = client.answer("train", sent(3, FILLED))
    assert read_refusal(answer) is None
    assert torch.equal(built[-1].state["network.norm.weight"], good["network.norm.weight"] + 1)


def test_another_bundle_at_the_server_is_refused_before_any_work(client, sent, built):
    other = BUNDLE._replace(configs="9" * 64)._asdict()
    answer = client.answer("train", sent(0, **{IDENTITY: other}))
    assert f"expected configs {'9' * 64}, got 3" in read_refusal(answer)
    assert built == []


def test_an_empty_datalist_is_told_before_anything_is_built(client, sent, built, tmp_path):
    """The configs' own complaint would name a file, and the server would learn nothing."""
    (tmp_path / "list.json").write_text(json.dumps({"training": [], "validation": []}))
    reason = read_refusal(client.answer("train", sent()))
    assert reason == "ValueError: expected training cases in the site's datalist, got none"
    assert built == []


def test_a_site_whose_cases_were_all_bad_says_so(client, sent, exchange, state, monkeypatch):
    empty = Training(exchange, state)
    empty.all_cases = 0
    monkeypatch.setattr("federation.site.client.LocalTraining", lambda *_: empty)
    reason = read_refusal(client.answer("train", sent()))
    assert reason == "ValueError: expected training cases in the site's datalist, got none"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            FloatingPointError("the loss is not finite"),
            "FloatingPointError: the loss is not finite",
        ),
        (ValueError("case Miller-77 is bad"), "ValueError. The site's own log says more."),
        (OSError("no /data/private/x.nii"), "OSError. The site's own log says more."),
        (RuntimeError("CUDA out of memory"), "RuntimeError: CUDA out of memory"),
    ],
)
def test_what_went_wrong_is_told_without_patients_and_paths(
    client, sent, monkeypatch, error, told, caplog
):
    monkeypatch.setattr(Training, "error", error)
    with caplog.at_level(logging.ERROR):
        answer = client.answer("train", sent(1, FILLED))
    assert read_refusal(answer) == told
    assert answer.params is None
    assert str(error) in caplog.text
    monkeypatch.setattr(Training, "error", None)
    assert read_refusal(client.answer("train", sent(1, FILLED))) is None


@pytest.mark.parametrize("task", ["train", "validate", "dance"])
@pytest.mark.parametrize("error", [None, ValueError("Miller-77 in /data/m77/t1.nii")])
def test_no_answer_holds_a_name_or_a_path(client, sent, monkeypatch, find_secrets, task, error):
    monkeypatch.setattr(Training, "error", error)
    answer = client.answer(task, sent(1, FILLED))
    assert find_secrets(answer, ["Miller-77", "t1.nii", "m77", "network.norm.weight"]) == []


def test_what_monai_wraps_is_unwrapped(client, sent, monkeypatch):
    wrapped = RuntimeError("Failed to evaluate")
    wrapped.__cause__ = ValueError("no labels")
    monkeypatch.setattr(Training, "error", wrapped)
    assert read_refusal(client.answer("train", sent(1, FILLED))) == "ValueError: no labels"


def test_without_a_datalist_to_compare_with_nothing_is_told(client, sent, monkeypatch):
    client.site.ids["datalist_file"] = "nowhere.json"
    monkeypatch.setattr(Training, "error", ValueError("case Miller-77"))
    told = read_refusal(client.answer("train", sent(1, FILLED)))
    assert told == "ValueError. The site's own log says more."


def test_a_full_disk_does_not_cost_the_round(client, sent, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("federation.site.state.save_atomically", full)
    answer = client.answer("train", sent(1, FILLED))
    assert answer.params[HEAD].tolist() == [1.0] * 4
    assert read_facts(answer)["notes"] == ["could not write its state; the one before is intact"]


@pytest.fixture
def ruled(built, client):
    """Give ruled(**rules): the client at a site with these rules."""

    def make(**rules):
        site = dataclasses.replace(client.site, rules=Rules(**rules))
        return Client(site, "fed", STAGES)

    return make


def test_statistics_of_few_cases_stay_and_the_site_trains_all_the_same(ruled, sent, built):
    client = ruled()
    # In the first round the others send theirs; nobody trains yet.
    first = client.answer("train", sent(0))
    assert (built[0].rounds, built[0].counted) == ([], None)
    later = client.answer("train", sent(1, FILLED, **{COUNTED_SITES: ["B"]}))
    assert built[0].rounds == [1]
    assert later.params[HEAD].tolist() == [1.0] * 4
    for answer in (first, later):
        assert not read_facts(answer)["collected"]
        assert read_facts(answer)["notes"] == [WITHHELD]
        # What the coordinator's check demands is there, and says nothing.
        assert not answer.params["bank.counts"].any()
    assert not any(character.isdigit() for character in WITHHELD)


def test_where_every_site_withholds_them_only_one_round_goes_by(ruled, sent, built):
    client = ruled()
    for number in range(3):
        client.answer("train", sent(number))
    assert built[0].rounds == [1, 2]


def test_what_a_method_counts_for_itself_does_not_leave_either(ruled, sent, built, monkeypatch):
    """A method fills an empty bank before it trains, and a server may send an empty one."""

    def train(self, number):
        self.count_statistics([0, 1])

    monkeypatch.setattr(Training, "train", train)
    answer = ruled().answer("train", sent(1))
    assert built[0].state["bank.counts"].tolist() == [5.0] * 3
    assert not answer.params["bank.counts"].any()
    # A server that says that they are in already does not get them either.
    answer = ruled(statistics_of_few=True).answer("train", sent(1, **{COUNTED_SITES: ["A"]}))
    assert not answer.params["bank.counts"].any()


def test_enough_cases_are_counted_without_those_of_rare_combinations(ruled, sent, built):
    client = ruled(least_cases_statistics=2)
    answer = client.answer("train", sent(0))
    assert read_facts(answer)["collected"]
    assert built[0].counted == [0, 1]


@pytest.mark.parametrize("asked", [{"require_private": True}, {"most_epsilon": 3.0}])
def test_where_noise_must_be_nothing_is_added_up(ruled, sent, asked):
    reason = read_refusal(ruled(statistics_of_few=True, **asked).answer("train", sent()))
    assert reason.endswith("this stage adds up statistics, which noise does not protect")


def test_a_site_with_too_few_cases_joins_nothing_and_tells_no_number(ruled, sent, built):
    client = ruled(least_cases=3)
    for task in ("train", "validate"):
        reason = read_refusal(client.answer(task, sent()))
        assert reason == "ValueError: the site has fewer training cases than it asks for"
    assert built == []


def test_scores_of_too_few_cases_stay(ruled, sent, monkeypatch):
    reason = read_refusal(ruled(least_cases_scores=2).answer("validate", sent(4)))
    assert reason == (
        "ValueError: the site has fewer held-out cases than it asks for to send scores"
    )
    # And a subset of modalities that few of many cases form.
    sums = {"t1": {"WT": [0.5, 1]}, "t2": {"WT": [1.5, 3]}}
    monkeypatch.setattr(Training, "score", lambda _: sums)
    client = ruled(least_cases_scores=1)
    assert client.answer("validate", sent(4)).metrics["dice"] == sums
    monkeypatch.setattr(Training, "cases_in", lambda *_: 4)
    answer = ruled(least_cases_scores=2).answer("validate", sent(4))
    assert answer.metrics["dice"] == {"t2": {"WT": [1.5, 3]}}


def test_recounted_sums_over_too_few_held_out_cases_stay(ruled, sent):
    with_scores = ruled(statistics_of_few=True).answer("train", sent(1, FILLED))
    assert with_scores.params["dice_sums"].tolist() == [1.0] * 3
    without = ruled(statistics_of_few=True, least_cases_scores=2).answer("train", sent(1, FILLED))
    assert without.params["dice_sums"].tolist() == [0.0] * 3


def test_a_damaged_state_is_told_with_the_next_contribution(client, sent, built, tmp_path):
    client.answer("train", sent(1, FILLED))
    path = client.site.state_dir / "fed" / "train" / FILE
    content = bytearray(path.read_bytes())
    content[content.index(np.full(2, 2, np.float32).tobytes())] ^= 1
    path.write_bytes(content)
    again = Client(client.site, "fed", STAGES)
    answer = again.answer("train", sent(2, FILLED))
    assert read_facts(answer)["notes"] == [ANEW]
    assert answer.params[HEAD].tolist() == [1.0] * 4
    assert [p.name for p in path.parent.glob("*.damaged.*")] != []
    # Told once.
    assert read_facts(again.answer("train", sent(3, FILLED)))["notes"] == []


def test_a_damaged_state_is_told_even_if_the_first_round_fails(client, sent, monkeypatch):
    client.answer("train", sent(1, FILLED))
    (client.site.state_dir / "fed" / "train" / FILE).write_bytes(b"hello")
    again = Client(client.site, "fed", STAGES)
    monkeypatch.setattr(Training, "error", RuntimeError("CUDA out of memory"))
    assert read_refusal(again.answer("train", sent(2, FILLED))) is not None
    monkeypatch.setattr(Training, "error", None)
    assert read_facts(again.answer("train", sent(3, FILLED)))["notes"] == [ANEW]


def test_a_change_that_is_not_accepted_is_refused_and_the_state_stays(client, sent, monkeypatch):
    client.answer("train", sent(1, FILLED))
    path = client.site.state_dir / "fed" / "train" / FILE
    before = path.read_bytes()

    def refuse(*_):
        raise ChangesRefused("got 1 change(s): spacing")

    monkeypatch.setattr(Training, "take_up", refuse)
    again = Client(client.site, "fed", STAGES)
    assert "1 change(s): spacing" in read_refusal(again.answer("train", sent(2, FILLED)))
    assert path.read_bytes() == before
    assert [kept.name for kept in path.parent.iterdir()] == [FILE]


@pytest.mark.parametrize("word", [None, "word", WORD.upper(), f"{WORD}0", f"{WORD}\n", 3, [WORD]])
def test_what_is_no_word_of_a_run_costs_the_site_no_state(client, sent, built, word):
    client.answer("train", sent(1, FILLED))
    folder = client.site.state_dir / "fed" / "train"
    before = (folder / FILE).read_bytes()
    for task in ("train", "validate"):
        again = Client(client.site, "fed", STAGES)
        reason = read_refusal(again.answer(task, sent(2, FILLED, **{RUN: word})))
        assert "expected the word of the federation's run, 32 of 0-9 and a-f, got" in reason
    assert len(built) == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {FILE: before}


@pytest.mark.parametrize("task", ["train", "validate"])
def test_a_server_that_alternates_words_costs_one_state_and_that_is_kept(client, sent, task):
    client.answer("train", sent(1, FILLED))
    folder = client.site.state_dir / "fed" / "train"
    first = (folder / FILE).read_bytes()
    again = Client(client.site, "fed", STAGES)
    assert read_refusal(again.answer("train", sent(2, FILLED, **{RUN: OTHER}))) is None
    second = (folder / FILE).read_bytes()
    for number in range(6):
        message = sent(3, FILLED, **{RUN: f"{number:032x}"})
        reason = read_refusal(again.answer(task, message))
        assert "the word of the federation's run has changed within one job" in reason
    (kept,) = folder.glob("*.previous.*")
    assert (kept.read_bytes(), (folder / FILE).read_bytes()) == (first, second)
    # And with the word that it has had, the job goes on.
    assert read_refusal(again.answer(task, sent(4, FILLED, **{RUN: OTHER}))) is None
    assert len(list(folder.iterdir())) == 2


def test_a_second_word_does_not_write_over_the_state_of_the_first(client, sent):
    client.answer("train", sent(1, FILLED))
    path = client.site.state_dir / "fed" / "train" / FILE
    before = path.read_bytes()
    reason = read_refusal(client.answer("train", sent(2, FILLED, **{RUN: OTHER})))
    assert reason.startswith("ValueError: the word of the federation's run has changed within one")
    assert path.read_bytes() == before


def test_what_a_site_keeps_is_for_its_owner_alone(client, sent, tmp_path):
    client.answer("train", sent(1, FILLED))
    folder = tmp_path / "fed" / "train"
    modes = [p.stat().st_mode & 0o777 for p in (folder.parent, folder, folder / FILE)]
    assert modes == [0o700, 0o700, 0o600]


def test_code_that_has_changed_on_disk_is_refused_with_its_name(client, sent, built, monkeypatch):
    def changed(_):
        raise ValueError("expected federation/site/state.py as it was when this process started")

    monkeypatch.setattr("federation.site.client.check_unchanged", changed)
    assert "federation/site/state.py as it was" in read_refusal(client.answer("train", sent()))
    assert built == []


@pytest.mark.parametrize("number", [-1, 5, 10**15, True, 1.0, "1"])
def test_a_round_that_the_job_does_not_have_is_not_worked_at(client, sent, built, number):
    message = sent(1)
    message.current_round = number
    assert "expected one of the 5 rounds of the stage train" in read_refusal(
        client.answer("train", message)
    )
    assert built == []


def test_a_folder_of_data_names_the_patients_too(client, sent, monkeypatch, tmp_path):
    (tmp_path / "datalist.json").write_bytes((tmp_path / "list.json").read_bytes())
    site = dataclasses.replace(client.site, ids={"dataset_dir": str(tmp_path)})
    monkeypatch.setattr(Training, "error", FloatingPointError("NaN in cases ['Miller-77']"))
    answer = Client(site, "fed", STAGES).answer("train", sent(1, FILLED))
    assert read_refusal(answer) == "FloatingPointError. The site's own log says more."


def test_a_task_that_the_job_does_not_have_is_refused(client, sent):
    assert "expected one of the tasks ['validate', 'train'], got 'dance'" in read_refusal(
        client.answer("dance", sent())
    )


def test_scores_travel_without_names(client, sent):
    answer = client.answer("validate", sent(4))
    assert answer.metrics["dice"] == {"t1": {"WT": [0.5, 1]}}
    assert answer.params is None


class Flare:
    """NVFlare's Client API, with messages from a list."""

    def __init__(self, messages):
        self.messages, self.answers = list(messages), []

    def init(self):
        pass

    def is_running(self):
        return bool(self.messages)

    def receive(self):
        return self.messages.pop(0)

    def send(self, answer):
        self.answers.append(answer)

    def get_site_name(self):
        return "A"

    def get_task_name(self):
        return "train"


def test_a_process_answers_until_the_job_ends(built, sent, tmp_path, monkeypatch):
    (tmp_path / "A.yaml").write_text("state_dir: state\n")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "{site}.yaml"))
    flare = Flare([sent(number, FILLED) for number in range(3)])
    monkeypatch.setattr("federation.site.client.flare", flare)
    main({"federation": "fed", "stages": STAGES})
    assert [read_refusal(answer) for answer in flare.answers] == [None] * 3
    assert [training.rounds for training in built] == [[0, 1, 2]]


def test_a_site_with_wrong_settings_answers_why_and_stays(sent, tmp_path, monkeypatch):
    (tmp_path / "A.yaml").write_text("learning_rate: 1\n")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "{site}.yaml"))
    flare = Flare([sent(), sent()])
    monkeypatch.setattr("federation.site.client.flare", flare)
    main({"federation": "fed", "stages": STAGES})
    assert len(flare.answers) == 2
    assert "ValueError" in read_refusal(flare.answers[0])
    assert str(tmp_path) not in read_refusal(flare.answers[0])
