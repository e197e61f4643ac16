"""Every method that jobs offer trains for a round in a federation, and is scored."""

from __future__ import annotations

import pytest
import torch
from federation.protocol.messages import read_refusal
from nvflare.app_common.abstract.fl_model import FLModel

pytestmark = pytest.mark.slow

METHODS = {
    "universal": ["federation.yaml"],
    "personalised": ["federation.yaml", "federation_personalised.yaml"],
    "plain U-Net": ["method_modality_dropout.yaml", "federation_plain.yaml"],
    "modality-aware U-Net": ["method_modality_dropout.yaml", "federation_unet.yaml"],
    "LCKD": ["method_lckd.yaml", "federation_lckd.yaml"],
    "GMD": ["method_gmd.yaml", "federation_gmd.yaml"],
}


@pytest.mark.parametrize("name", METHODS)
def test_a_round_moves_what_is_shared_by_what_sites_have(stage, share, federate, name):
    small = stage("train", METHODS[name], rounds=1)
    federation = federate(small, [share("a", [0, 1]), share("b", [2, 3], ["t2"])], half=True)
    before = federation.round()
    assert federation.refusals == {}
    after = federation.state
    assert after.keys() == before.keys()
    assert all(bool(value.isfinite().all()) for value in after.values())
    exchange = federation.aggregator._exchange
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved
    private = {key for key, part in exchange.parts.items() if part.kind == "private"}
    assert not moved & private
    answer = federation.clients["b"].answer("validate", federation.message())
    assert read_refusal(answer) is None
    assert list(answer.metrics["dice"]) == ["t2"]
    assert isinstance(answer, FLModel)


def test_elections_travel_as_ratios(stage, share, federate):
    small = stage("train", METHODS["LCKD"], rounds=2, election_interval=1, warm_up_epochs=0)
    federation = federate(small, [share("a", [0, 1]), share("b", [2, 3], ["t1", "t2"])])
    federation.round()
    federation.round()
    assert federation.refusals == {}
    counts, sums = federation.state["case_counts"], federation.state["dice_sums"]
    assert bool((counts >= 0).all())
    assert bool((sums <= counts + 1e-5).all())
    # Two held-out cases at each site: both elect with t1 and t2, one with the others.
    assert counts[:, 0].tolist() == [2.0, 1.0, 2.0, 1.0]
