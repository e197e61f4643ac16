"""The demonstration in NVFlare's simulator: four sites, two stages, real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from federation.census import CensusRecipe, census_table
from federation.policy import allow
from federation.protocol.stages import Stage, read_workflow
from federation.server.round_log import ROUNDS, VALIDATIONS, read_log
from federation.simulate import demo_plan, prepare_sites
from federation.site.patient_names import identifiers

import bundle
from bundle.data.datalist import load_datalist
from bundle.modalities import BRATS_MODALITIES
from bundle.training.weights import load_weights

pytestmark = pytest.mark.slow

PLAN = "site-1:t1+t1ce+t2+flair;site-2:t1ce+flair;site-3:t1+t2;site-4:t2"
SITES = ["site-1", "site-2", "site-3", "site-4"]
SMALL = {"filters": 4, "blocks_down": [1, 1, 1], "epoch_samples": 8}
CASES = {"training": 8, "validation": 4, "testing": 2}
RUN = """
import sys
from pathlib import Path
from federation.simulate import demo_plan, run_in_simulator
plan = demo_plan("fed", rounds=2, pretrain_rounds=2, settings={settings})
run_in_simulator(plan, Path({folder!r}), {sites})
"""


def environment(folder):
    """One thread a process, and the settings of each site."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PATCHWORK_SITE": str(folder / "sites" / "{site}.yaml"),
        "PYTHONPATH": os.pathsep.join(
            [bundle.ROOT, str(Path(bundle.ROOT) / "custom"), os.environ.get("PYTHONPATH", "")]
        ),
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A federation that has run: its folder."""
    folder = tmp_path_factory.mktemp("federation")
    prepare_sites(folder, PLAN, CASES, 32, 0)
    code = RUN.format(settings=SMALL, folder=str(folder), sites=SITES)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=600,
    )
    (folder / "output.txt").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return folder


@pytest.fixture
def server(finished):
    return finished / "state" / "server" / "fed"


def weights(path):
    content = torch.load(path, map_location="cpu", weights_only=True)
    return content.get("model", content)


def test_every_site_takes_part_in_every_round_of_both_stages(server):
    for stage in ("pretrain", "train"):
        rounds = read_log(server / stage / ROUNDS)
        assert [entry["round"] for entry in rounds] == [0, 1]
        for entry in rounds:
            assert sorted(entry["sites"]) == SITES
            assert entry["refused"] == {}
    first = read_log(server / "pretrain" / ROUNDS)[0]
    assert all(site["collected"] for site in first["sites"].values())


def test_a_site_with_one_modality_sends_far_less_than_one_with_all(server):
    sites = read_log(server / "train" / ROUNDS)[0]["sites"]
    assert sites["site-4"]["bytes"] < 0.4 * sites["site-1"]["bytes"]


def test_the_bank_knows_every_modality_before_anybody_trains(server):
    state = weights(server / "pretrain" / "FL_global_model.pt")
    counts = state["distribution.bank.counts"]
    assert bool((counts.diagonal() > 0).all())
    report = json.loads((server / "pretrain" / "round_0000.json").read_text())
    assert report["unheld"] == []


def test_training_starts_from_what_pretraining_wrote_and_moves(server):
    pretrained = weights(server / "pretrain" / "pretrained.ckpt")
    trained = weights(server / "train" / "model.pt")
    inside = {k: v for k, v in trained.items() if k.startswith("autoencoder.")}
    assert {k.removeprefix("autoencoder.") for k in inside} == set(pretrained)
    moved = [k for k, v in inside.items() if not torch.equal(v, pretrained[k[12:]])]
    assert len(moved) > len(inside) / 2
    assert all(bool(v.isfinite().all()) for v in trained.values())
    # Two rounds of two steps do not lead far away from where it started.
    key = "autoencoder.encoder.branches.2.encoder.conv_init.weight"
    near = (inside[key] - pretrained[key[12:]]).norm() / pretrained[key[12:]].norm()
    assert 0 < float(near) < 0.5


def test_the_result_is_the_bundles_own_checkpoint(server):
    stage = demo_plan(settings=SMALL).stages[-1]
    assert isinstance(stage, Stage)
    workflow = read_workflow(stage, {})
    workflow.initialize()
    network = workflow.parser.get_parsed_content("network")
    load_weights(network, str(server / "train" / "model.pt"))
    note = json.loads((server / "train" / "model.json").read_text())
    assert note["modalities"] == list(BRATS_MODALITIES)


def test_the_sites_scores_and_the_best_model_are_there(server):
    scores = read_log(server / "train" / VALIDATIONS)
    assert [entry["rounds"] for entry in scores] == [1, 2]
    assert sorted(scores[-1]["sites"]) == SITES
    formed = {site: len(by_subset) for site, by_subset in scores[-1]["dice"].items()}
    assert formed == {"site-1": 15, "site-2": 3, "site-3": 3, "site-4": 1}
    assert (server / "train" / "best_FL_global_model.pt").exists()
    text = (server / "train" / "tables.md").read_text(encoding="utf-8")
    assert "## all sites together" in text


def test_no_patients_name_is_anywhere_at_the_server(finished, server):
    names = set()
    for site in SITES:
        datalist = load_datalist(finished / "sites" / f"{site}.json", BRATS_MODALITIES)
        names |= {name.encode() for name in identifiers(datalist) if len(name) > 3}
    assert len(names) > 10
    folders = [server, finished / "simulation" / "fed" / "server"]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert not [name for name in names if name in content], path


def test_the_census_tells_counts_and_quartiles_of_five_cases_a_site(tmp_path):
    prepare_sites(tmp_path, PLAN, {"training": 20, "validation": 4, "testing": 1}, 24, 0)
    workspace = tmp_path / "census"
    allow(workspace / "census" / "local")
    code = (
        "from nvflare.recipe import SimEnv\n"
        "from federation.census import CensusRecipe\n"
        f"sites = {SITES}\n"
        f"env = SimEnv(clients=sites, num_threads=4, workspace_root={str(workspace)!r})\n"
        "CensusRecipe('census', min_count=1).execute(env)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    (path,) = workspace.rglob("census.json")
    lines = census_table(path).splitlines()
    assert lines[:6] == [
        "site    cases  t1  t1ce  t2  flair",
        "site-1      5   5     5   5      5",
        "site-2      5   0     5   0      5",
        "site-3      5   5     0   5      0",
        "site-4      5   0     0   5      0",
        "Global     20  10    10  15     10",
    ]
    assert lines[7] == "half of a site's cases lie in (a to b); * = a site that differs"
    assert lines[9].startswith("site ")
    names = ["t1 intensity", "t1ce intensity", "t2 intensity", "flair intensity", "WT ml", "TC ml"]
    assert all(name in lines[9] for name in names)
    assert lines[13].startswith("site-4")
    assert lines[13].count(" to ") >= 3
    # Each site has one validation case, which is too few to tell of.
    told = json.loads(path.read_text())["t2 intensity"]["quantile"]["site-4"]
    assert told["validation"] == {}
    assert sorted(told["training"]) == ["p25", "p50", "p75"]
    assert CensusRecipe("census").name == "census"
