from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from federation.protocol.identity import Identity
from federation.protocol.messages import to_message
from federation.server.aggregator import ACCEPTED_SITES, ModalityAggregator
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.utils.fl_model_utils import FLModelUtils

HEAD = "network.head.weight"


@pytest.fixture
def make(rules_by_name):
    def aggregator(**arguments):
        built = ModalityAggregator(["t1", "t2", "flair"], rules_by_name, **arguments)
        built.fl_ctx = FLContext()
        return built

    return aggregator


def message(given):
    sent = to_message(given)
    sent.meta["client_name"] = given.site
    return sent


def test_it_returns_the_rounds_update_as_differences(make, contribute, state):
    aggregator = make()
    aggregator.begin(state, 2, ["A", "B"])
    assert aggregator.accept_model(message(contribute("A", {"t1": 3}, 3)))
    assert aggregator.accept_model(
        message(contribute("B", {"t2": 1}, 1, {HEAD: torch.full((4,), 5.0)}))
    )
    result = aggregator.aggregate_model()
    assert result.params_type == ParamsType.DIFF
    assert result.current_round == 2
    assert result.meta == {ACCEPTED_SITES: ["A", "B"]}
    assert result.params[HEAD].tolist() == [2.0] * 4
    assert "network.encoders.2.weight" not in result.params


def test_nvflare_applies_it_without_changing_names_or_types(make, contribute, state):
    # The server's default holds arrays, 0-dimensional ones included.
    arrays = {key: value.numpy() for key, value in state.items()}
    aggregator = make()
    aggregator.begin(arrays, 0)
    aggregator.accept_model(message(contribute("A", {"t1": 3}, 3)))
    model = FLModel(ParamsType.FULL, dict(arrays))
    FLModelUtils.update_model(model, aggregator.aggregate_model())
    assert model.params.keys() == arrays.keys()
    for key, value in arrays.items():
        assert isinstance(model.params[key], np.ndarray | np.generic)
        assert model.params[key].dtype == value.dtype
    assert model.params[HEAD].tolist() == [1.5] * 4
    assert model.params["network.encoders.1.weight"] is arrays["network.encoders.1.weight"]
    # And what NVFlare made of it opens the next round.
    aggregator.begin(model.params, 1)
    assert aggregator.accept_model(message(contribute("A", {"t1": 3}, 3)))


def test_a_refused_contribution_changes_nothing_and_the_report_says_why(
    make, contribute, state, tmp_path
):
    aggregator = make(report_dir=str(tmp_path), norm_bound=50.0)
    aggregator.begin(state, 0, ["A", "B", "C", "D", "E"])
    broken = {
        "B": {HEAD: torch.full((4,), torch.nan)},
        "C": {HEAD: torch.ones(9)},
        "D": {HEAD: torch.full((4,), 1e4)},
    }
    for site, moved in broken.items():
        assert not aggregator.accept_model(message(contribute(site, moved=moved)))
    assert not aggregator.accept_model(FLModel(ParamsType.FULL, {}, meta={"client_name": "E"}))
    assert aggregator.accept_model(message(contribute("A")))
    result = aggregator.aggregate_model()
    assert result.params[HEAD].tolist() == [1.0] * 4
    # Not before the new state is on disk.
    assert not (tmp_path / "round_0000.json").exists()
    aggregator.report()
    report = json.loads((tmp_path / "round_0000.json").read_text(encoding="utf-8"))
    assert list(report["accepted"]) == ["A"]
    assert report["refused"]["B"] == f"'{HEAD}' holds NaN"
    assert report["refused"]["C"].startswith(f"'{HEAD}' has shape (9,)")
    assert report["refused"]["D"].startswith("the update's norm is 20000")
    assert report["refused"]["E"].startswith("expected differences")


def test_only_the_jobs_bundle_may_contribute(make, contribute, state):
    ours = Identity(*"1234567")
    aggregator = make(identity=ours._asdict())
    aggregator.begin(state, 0)
    assert aggregator.accept_model(message(contribute("A", identity=ours)))
    assert not aggregator.accept_model(message(contribute("B", identity=ours._replace(code="x"))))
    assert not aggregator.accept_model(message(contribute("C")))


def test_without_a_round_it_says_what_to_do(make, contribute, state):
    aggregator = make()
    told = r"begin\(model, number, sites\) before each round"
    with pytest.raises(RuntimeError, match=told):
        aggregator.accept_model(message(contribute()))
    aggregator.begin(state, 3, ["A"])
    assert aggregator.accept_model(message(contribute("A")))
    aggregator.reset_stats()
    with pytest.raises(RuntimeError, match=told):
        aggregator.aggregate_model()


def test_after_aggregating_the_next_round_starts_empty(make, contribute, state):
    aggregator = make()
    for number in (0, 1):
        aggregator.begin(state, number)
        assert aggregator.accept_model(message(contribute("A", round=number)))
        assert aggregator.aggregate_model().current_round == number
        assert aggregator.accepted == {}


def test_a_round_without_contributions_moves_nothing(make, state):
    aggregator = make()
    aggregator.begin(state, 5, ["A"])
    result = aggregator.aggregate_model()
    assert result.params == {}
    model = FLModel(ParamsType.FULL, dict(state))
    FLModelUtils.update_model(model, result)
    assert all(model.params[key] is value for key, value in state.items())


def test_wrong_rules_are_found_at_the_start():
    with pytest.raises(TypeError, match="unknown_rule"):
        ModalityAggregator(["t1", "t2"], {"unknown_rule": []})
