"""The site decides, in NVFlare's process, with NVFlare's own list of filters."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from federation.filters.half_precision import FullPrecision, HalfPrecision
from federation.filters.privacy import GaussianPrivacy
from federation.protocol.messages import read_refusal
from federation.protocol.stages import Stage
from federation.rules import Rules
from federation.settings import VARIABLE, Site
from federation.site.admission import check_answer, check_private, check_task, result_filters
from federation.site.executor import BundleTrainer
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import FilterKey, FLContextKey, ReservedKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import JobMetaKey
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.apis.utils.task_utils import apply_filters
from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.private.privacy_manager import Scope

NOISE = GaussianPrivacy(1.0, 2.0)


def context(filters=(), task="train", job="private", direction=FilterKey.OUT, scope=None):
    """Give NVFlare's context at a site in a job with these filters of a task's result."""
    made = FLContext()
    chains = {f"{task}{FilterKey.DELIMITER}{direction}": list(filters)}
    props = {
        FLContextKey.RUNNER: SimpleNamespace(task_result_filters=chains),
        FLContextKey.JOB_META: {JobMetaKey.JOB_NAME.value: job},
        FLContextKey.SCOPE_OBJECT: scope,
    }
    for key, value in props.items():
        made.set_prop(key, value, private=True, sticky=False)
    made.set_prop(ReservedKey.IDENTITY_NAME, "site-1", private=False, sticky=False)
    return made


def site(tmp_path, **rules):
    return Site("site-1", {}, tmp_path / "state", Rules(**rules))


PRIVATE_ONLY = "the site takes part in private trainings only: GaussianPrivacy must be the first"


class Weaker(GaussianPrivacy):
    """Could do anything."""


@pytest.mark.parametrize(
    ("filters", "where"),
    [
        ([], {}),
        ([HalfPrecision()], {}),
        ([HalfPrecision(), NOISE], {}),
        ([FullPrecision(), NOISE], {}),
        ([Weaker(1.0, 2.0)], {}),
        ([NOISE], {"task": "other"}),
        ([NOISE], {"direction": FilterKey.IN}),
    ],
)
def test_without_noise_first_in_this_very_result_the_site_refuses(tmp_path, filters, where):
    with pytest.raises(ValueError, match=PRIVATE_ONLY):
        check_task(
            site(tmp_path, require_private=True), "train", "fed", [], context(filters, **where)
        )
    check_task(site(tmp_path), "train", "fed", [], context(filters, **where))


def test_a_context_without_filters_to_look_at_is_refused_too(tmp_path):
    with pytest.raises(ValueError, match=PRIVATE_ONLY):
        check_task(site(tmp_path, require_private=True), "train", "fed", [], FLContext())


def test_noise_first_is_accepted_from_the_job_or_from_the_sites_own_scope(tmp_path):
    asking = site(tmp_path, require_private=True)
    check_task(asking, "train", "fed", [], context([NOISE, HalfPrecision()]))
    own = Scope()
    own.add_task_result_filter(NOISE, FilterKey.OUT)
    check_task(asking, "train", "fed", [], context([HalfPrecision()], scope=own))
    other = Scope()
    other.add_task_result_filter(HalfPrecision(), FilterKey.OUT)
    with pytest.raises(ValueError, match=PRIVATE_ONLY):
        check_task(asking, "train", "fed", [], context([NOISE], scope=other))


def test_what_the_site_checks_is_what_nvflare_applies(tmp_path, monkeypatch):
    """NVFlare's runner calls `apply_filters`, and the check the function that this one calls."""
    (tmp_path / "site.yaml").write_text("state_dir: state")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "site.yaml"))
    filters = [NOISE, HalfPrecision()]
    made, chains = context(filters), context(filters).get_prop(FLContextKey.RUNNER)
    assert result_filters("train", made) == filters
    assert result_filters("validate", made) == []
    update = DXO(DataKind.WEIGHT_DIFF, data={"a": torch.ones(1)}).to_shareable()
    sent = apply_filters(
        Scope.TASK_RESULT_FILTERS_NAME,
        update,
        made,
        chains.task_result_filters,
        "train",
        FilterKey.OUT,
    )
    history = from_shareable(sent).get_filter_history()
    assert history == ["GaussianPrivacy", "HalfPrecision"]


def test_a_cap_asks_for_noise_and_for_room(tmp_path):
    # One release with multiplier 2 costs epsilon 1.99 at delta 1e-5, two cost 2.92.
    for cap, fits in ((1.9, False), (2.1, True)):
        capped = site(tmp_path, most_epsilon=cap)
        with pytest.raises(ValueError, match=PRIVATE_ONLY):
            check_private(capped, [])
        if fits:
            check_private(capped, [NOISE])
        else:
            with pytest.raises(ValueError, match="the site's cap on epsilon leaves no room"):
                check_private(capped, [NOISE])
    # Looking costs nothing.
    assert not (tmp_path / "state").exists()


def test_scores_are_not_asked_for_noise(tmp_path):
    check_task(site(tmp_path, require_private=True), "validate", "fed", [], context())


@pytest.mark.parametrize(
    ("rules", "what"),
    [
        ({"jobs": ("census",)}, "jobs"),
        ({"federations": ("other",)}, "federations"),
        ({"methods": ("universal",)}, "methods"),
    ],
)
def test_names_are_checked_for_every_task(tmp_path, rules, what):
    for task in ("train", "validate"):
        configs = [["train.json", "federation.yaml"], ["train.json", "method_gmd.yaml"]]
        with pytest.raises(ValueError, match=f"the site does not take part in {what} of this name"):
            check_task(site(tmp_path, **rules), task, "fed", configs, context())


def test_what_noise_would_let_pass_is_not_sent(tmp_path):
    asking = site(tmp_path, require_private=True)
    whole = DXO(DataKind.WEIGHTS, data={"a": torch.ones(1)}).to_shareable()
    with pytest.raises(
        ValueError, match=r"expected an update, which can be made private, got .*WEIGHTS$"
    ):
        check_answer(asking, "train", whole)
    check_answer(site(tmp_path), "train", whole)
    check_answer(asking, "train", DXO(DataKind.WEIGHT_DIFF, data={"a": 1}).to_shareable())
    check_answer(asking, "train", DXO(DataKind.METRICS, data={"refusal": "no"}).to_shareable())
    check_answer(asking, "train", make_reply(ReturnCode.EXECUTION_EXCEPTION))
    scores = DXO(DataKind.METRICS, data={"refusal": "no", "dice": {}}).to_shareable()
    with pytest.raises(ValueError, match=r"can be made private, got .*METRICS$"):
        check_answer(asking, "train", scores)
    check_answer(asking, "validate", scores)


STAGES = [Stage("train", ["train.json", "federation.yaml"], 2).to_dict()]


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Give ask(rules, ...): what the executor answers at a site whose file holds these rules."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "{site}.yaml"))
    given = []

    def train(self, task_name, shareable, fl_ctx, abort_signal):
        given.append(task_name)
        return DXO(DataKind.WEIGHT_DIFF, data={"a": torch.ones(1)}).to_shareable()

    monkeypatch.setattr(ClientAPIExecutor, "execute", train)

    def make(rules, *filters):
        (tmp_path / "site-1.yaml").write_text(f"state_dir: state\nrules: {rules}\n")
        trainer = BundleTrainer("fed", STAGES)
        reply = trainer.execute("train", Shareable(), context(filters), Signal())
        return read_refusal(FLModelUtils.from_shareable(reply)), given

    return make


@pytest.mark.parametrize(
    ("rules", "filters", "told"),
    [
        ("{}", [], None),
        ("{jobs: [private]}", [], None),
        ("{jobs: [census]}", [], "the site does not take part in jobs of this name"),
        ("{methods: [lckd]}", [], "the site does not take part in methods of this name"),
        ("{require_private: true}", [NOISE, HalfPrecision()], None),
        ("{require_private: true}", [HalfPrecision()], PRIVATE_ONLY),
        ("{most_epsilon: 1}", [NOISE], "the site's cap on epsilon leaves no room for another"),
        # A rule that cannot be read is no rule that allows.
        ("{jobz: [private]}", [], "ValueError. The site's own log says more."),
    ],
)
def test_the_coordinator_is_told_why_and_the_trainer_asked_for_nothing(ask, rules, filters, told):
    reason, given = ask(rules, *filters)
    if told is None:
        assert (reason, given) == (None, ["train"])
    else:
        assert told in reason
        assert given == []


def test_what_a_filter_of_noise_refuses_is_not_even_trained_for(ask, tmp_path):
    """The cap at the filter's turn: the third release is one too many."""
    filters = [NOISE]
    for number in range(3):
        reason, _ = ask("{most_epsilon: 3}", *filters)
        if number < 2:
            assert reason is None
            update = DXO(DataKind.WEIGHT_DIFF, data={"a": torch.ones(1)}).to_shareable()
            NOISE.process(update, context(filters))
    assert reason == (
        "ValueError: the site's cap on epsilon leaves no room for another release with this noise"
    )


def test_code_that_has_changed_under_this_process_does_nothing(ask, monkeypatch):
    def changed(_):
        raise ValueError("expected federation/filters/privacy.py as it was when this process start")

    monkeypatch.setattr("federation.site.executor.check_unchanged", changed)
    reason, given = ask("{}")
    assert "expected federation/filters/privacy.py as it was" in reason
    assert given == []
