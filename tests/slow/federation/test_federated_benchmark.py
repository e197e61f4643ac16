"""Two arms of grid `federation`, as small as can be, in NVFlare's simulator through the bench."""

from __future__ import annotations

import json

import pytest
import torch

from bundle.benchmark import command
from bundle.benchmark.federated import federation
from bundle.benchmark.plan import Phantom
from bundle.benchmark.results import record_path
from bundle.benchmark.runs import execute
from bundle.benchmark.sites import formed

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1800)]

OWN_BANKS, ALONE = "universal_with_own_banks-seed_0", "alone-seed_0"


def small_grid():
    return federation(
        seeds=(0,),
        rounds=1,
        pretrain_rounds=1,
        sites="site-1:t1+t2;site-2:t2",
        phantom=Phantom(training=4, validation=2, testing=2, size=32),
        settings={"filters": 4, "blocks_down": [1, 1, 1], "epoch_samples": 8},
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The folder, and the records by the name of their run."""
    folder = tmp_path_factory.mktemp("federation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(command.ON_THE_PHANTOM, "federation", small_grid)
        only = f"^({OWN_BANKS}|{ALONE})$"
        assert command.benchmark(str(folder), "federation", only=only, keep=True)
    paths = {name: record_path(folder, name) for name in (OWN_BANKS, ALONE)}
    return folder, {name: json.loads(path.read_text()) for name, path in paths.items()}


def test_each_site_alone_has_a_model_and_a_federation_has_one(measured):
    _, records = measured
    assert set(records[ALONE]["models"]) == {"site-1", "site-2"}
    assert set(records[OWN_BANKS]["models"]) == {"global"}
    for record in records.values():
        for model in record["models"].values():
            assert len(model["dice"]) == 15
            assert set(formed(("t1", "t2"))) <= set(model["dice"])
            assert len(model["cases"]) == 2


def test_a_record_tells_what_each_site_sent_and_its_circumstances(measured):
    _, records = measured
    sent = records[OWN_BANKS]["sent"]
    assert sent["site-1"] > sent["site-2"] > 0
    assert records[ALONE]["sent"] == records[ALONE]["rebuilt"] == {}
    for record in records.values():
        assert record["seconds"] > 0
        assert {"torch", "monai", "bundle"} <= set(record["versions"])


def test_a_sites_own_bank_never_reached_the_server(measured):
    folder, records = measured
    state = folder / "scratch" / OWN_BANKS / "state"
    (server,) = state.glob("server/*/pretrain/FL_global_model.pt")
    bank = torch.load(server, weights_only=True)["model"]["distribution.bank.counts"]
    assert not bool(bank.any())
    (site,) = state.glob("site-1/*/pretrain/site_state.ckpt")
    own = torch.load(site, weights_only=True)["private"]["distribution.bank.counts"]
    assert bool(own.any())
    assert records[OWN_BANKS]["rebuilt"]["modality"] == "flair"
    assert len(records[OWN_BANKS]["rebuilt"]["psnr"]) == 2


def test_the_report_is_there(measured):
    folder, _ = measured
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "**2 of 9 runs**" in text
    assert "FLAIR rebuilt from t1 and t2" in text
    assert (folder / "sites.png").is_file()


def test_a_run_that_fails_tells_where_its_words_are(tmp_path):
    grid = small_grid()
    (run,) = [run for run in grid.runs if run.name == ALONE]
    with pytest.raises(RuntimeError, match=r"federation.simulate ended with 1, expected 0"):
        execute(run, {}, grid.digests(), {run.name: str(tmp_path / "no.json")}, str(tmp_path))
    log = (tmp_path / "logs" / f"{ALONE}.log").read_text(encoding="utf-8")
    assert "no.json" in log
    assert not record_path(tmp_path, ALONE).exists()
