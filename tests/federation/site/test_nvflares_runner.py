"""NVFlare's own runner at a site, with our executor and filters, and a trainer that is a stand-in.

What it returns is what NVFlare would send to the server.
"""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest
import torch
from federation.filters.half_precision import HalfPrecision
from federation.filters.privacy import GaussianPrivacy
from federation.protocol.messages import PRIVACY, read_refusal
from federation.protocol.stages import Stage
from federation.settings import VARIABLE
from federation.site.executor import BundleTrainer
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_constant import FilterKey, FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.private.fed.client.client_engine_executor_spec import TaskAssignment
from nvflare.private.fed.client.client_runner import ClientRunner, ClientRunnerConfig, TaskRouter

STAGES = [Stage("train", ["train.json", "federation.yaml"], 2).to_dict()]
JOB_ID, SITE = "job-1", "site-1"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Give run(rules, filters): what leaves a site with these rules in a job with these filters."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "{site}.yaml"))
    trained = []

    def train(*_):
        trained.append(True)
        return DXO(DataKind.WEIGHT_DIFF, data={"a": torch.full((1000,), 1e-3)}).to_shareable()

    monkeypatch.setattr(ClientAPIExecutor, "execute", train)

    def make(rules, filters):
        (tmp_path / f"{SITE}.yaml").write_text(f"state_dir: state\nrules: {rules}\n")
        router = TaskRouter()
        router.add_executor(["*"], BundleTrainer("fed", STAGES))
        chains = {f"train{FilterKey.DELIMITER}{FilterKey.OUT}": filters}
        config = ClientRunnerConfig(router, {}, chains)
        runner = ClientRunner({"client_name": SITE}, config, JOB_ID, MagicMock())
        reply = runner._process_task(TaskAssignment("train", "1", Shareable()), context(runner))
        return FLModelUtils.from_shareable(reply), len(trained)

    return make


def context(runner):
    """Give what NVFlare puts into the context of a job at a site."""
    made, peer = FLContext(), FLContext()
    for key, value in {
        ReservedKey.ENGINE: runner.engine,
        ReservedKey.RUN_NUM: JOB_ID,
        FLContextKey.RUNNER: runner,
        FLContextKey.JOB_META: {"name": "private"},
    }.items():
        made.set_prop(key, value, private=True, sticky=False)
    made.set_prop(ReservedKey.IDENTITY_NAME, SITE, private=False, sticky=False)
    peer.set_prop(ReservedKey.RUN_NUM, JOB_ID, private=False, sticky=False)
    made.set_peer_context(peer)
    return made


def noise():
    return GaussianPrivacy(1.0, 2.0)


def test_where_noise_is_required_it_is_in_what_leaves(run):
    sent, _ = run("{require_private: true}", [noise(), HalfPrecision()])
    assert read_refusal(sent) is None
    assert sent.meta[PRIVACY]["releases"] == 1
    assert float(sent.params["a"].float().abs().max()) > 0


@pytest.mark.parametrize("filters", [[], [HalfPrecision()], [HalfPrecision(), noise()]])
def test_where_noise_is_missing_or_late_the_reason_alone_leaves(run, filters):
    sent, trained = run("{require_private: true}", filters)
    assert "GaussianPrivacy must be the first filter" in read_refusal(sent)
    assert (sent.params, trained) == (None, 0)


def test_a_late_noise_without_the_rule_leaves_nothing(run):
    """NVFlare then tells the server that a filter failed."""
    with pytest.raises(ValueError, match="not a valid DXO"):
        run("{}", [HalfPrecision(), noise()])


def test_a_cap_is_kept_over_jobs(run):
    told = []
    for _ in range(4):
        sent, _ = run("{most_epsilon: 3}", [noise(), HalfPrecision()])
        told.append(read_refusal(sent))
    assert told[:2] == [None, None]
    assert all("cap on epsilon leaves no room for another release" in why for why in told[2:])


def test_a_job_of_another_name_gets_nothing(run):
    sent, trained = run("{jobs: [census]}", [])
    assert read_refusal(sent) == "ValueError: the site does not take part in jobs of this name"
    assert trained == 0
