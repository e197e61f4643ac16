"""Two arms of the evidence on a federation that is as small as can be, in NVFlare's simulator."""

from __future__ import annotations

import pytest
import torch
from federation.evidence import Size, evidence, read_records
from federation.evidence_report import formed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SITES = "site-1:t1+t2;site-2:t2"
SIZE = Size(
    rounds=1,
    pretrain_rounds=1,
    sites=SITES,
    cases={"training": 4, "validation": 2, "testing": 2},
    edge=32,
    settings={"filters": 4, "blocks_down": [1, 1, 1], "epoch_samples": 8},
)
OWN_BANKS, ALONE = "universal with own banks", "alone"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The folder, and the records by arm."""
    folder = tmp_path_factory.mktemp("evidence")
    assert evidence(str(folder), seeds=0, arms=(OWN_BANKS, ALONE), size=SIZE)
    return folder, {record["arm"]: record for record in read_records(folder)}


def test_each_site_alone_has_a_model_and_a_federation_has_one(measured):
    _, records = measured
    assert set(records[ALONE]["models"]) == {"site-1", "site-2"}
    assert set(records[OWN_BANKS]["models"]) == {"global"}
    for record in records.values():
        for model in record["models"].values():
            assert len(model["dice"]) == 15
            assert set(formed("site-1", SITES)) <= set(model["dice"])
            assert len(model["cases"]) == 2


def test_a_sites_own_bank_never_reached_the_server(measured):
    folder, records = measured
    state = folder / "work/seed_0/state"
    server = state / "server/universal_with_own_banks_global/pretrain/FL_global_model.pt"
    bank = torch.load(server, weights_only=True)["model"]["distribution.bank.counts"]
    assert not bool(bank.any())
    own = torch.load(
        state / "site-1/universal_with_own_banks_global/pretrain/site_state.ckpt", weights_only=True
    )["private"]["distribution.bank.counts"]
    assert bool(own.any())
    assert records[OWN_BANKS]["rebuilt"]["modality"] == "flair"
    assert len(records[OWN_BANKS]["rebuilt"]["psnr"]) == 2


def test_the_report_is_there(measured):
    folder, _ = measured
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "FLAIR rebuilt from t1 and t2" in text
    assert (folder / "sites.png").is_file()
