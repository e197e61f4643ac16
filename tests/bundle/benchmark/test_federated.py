from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.benchmark import federated
from bundle.benchmark.federated import ALONE, ARMS, command, federation, make_federated, rounds_of
from bundle.benchmark.plan import Phantom
from bundle.benchmark.results import read_result, record_path, write_record
from bundle.benchmark.sites import MEANING


@pytest.fixture(scope="module")
def grid():
    return federation(seeds=(3,), rounds=4, pretrain_rounds=2, phantom=Phantom(6, 2, 32))


def pick(grid, label):
    (run,) = [run for run in grid.runs if run.label == label]
    return run


def steps(run):
    """Passes with training in them at a site: a shared bank is collected in a round before."""
    options, rounds = run.federation.options, rounds_of(run.federation)
    collecting = bool(rounds["pretrain_rounds"]) and not options.get("own_banks")
    before = (rounds["pretrain_rounds"] - collecting) * options.get("pretrain_epochs", 1)
    return rounds["rounds"] * options.get("local_epochs", 1) + before


@pytest.mark.parametrize("label", [label for label in ARMS if label != "pooled"])
def test_every_arm_makes_the_same_steps_at_a_site(label, grid):
    assert steps(pick(grid, label)) == 6


def test_a_pool_makes_the_steps_of_all_four_sites_together(grid):
    assert steps(pick(grid, "pooled")) == 4 * 6


def test_a_shared_bank_has_a_round_more(grid):
    own, shared = (
        rounds_of(pick(grid, label).federation)["pretrain_rounds"]
        for label in ("universal with own banks", "universal")
    )
    assert shared == own + 1


def test_every_arm_has_a_meaning_and_no_meaning_is_without_an_arm():
    assert set(MEANING) == set(ARMS)


def test_arms_have_names_fit_for_files(grid):
    names = {run.name for run in grid.runs}
    assert len(names) == len(ARMS)
    assert all(name.replace("_", "").replace("-", "").isalnum() for name in names)


def test_a_command_tells_the_arm_its_data_and_its_seed(grid, tmp_path):
    run = pick(grid, "modality_dropout alone")
    words = command(run, "cases.json", tmp_path)
    assert words[:3] == [sys.executable, "-m", "federation.simulate"]
    assert {
        "--datalist=cases.json",
        "--seed=3",
        "--how=alone",
        "--rounds=6",
        "--pretrain_rounds=0",
        f"--output_dir={tmp_path}",
        "--configs=train.json,method_modality_dropout.yaml,federation_unet.yaml,benchmark.yaml",
    } <= set(words)


@pytest.fixture
def told(monkeypatch, tmp_path):
    """Give told(record of each model): what the process writes instead of training."""

    def write(models):
        def start(words):
            options = dict(word[2:].split("=", 1) for word in words[3:])
            settings = json.loads(Path(options["settings"]).read_text(encoding="utf-8"))
            assert settings["seed"] == 3
            scores = tmp_path / "scores.csv"
            scores.write_text("case,subset,region,dice,hd95\nx,t1,WT,0.5,nan\ny,t1,WT,0.7,nan\n")
            before = {"configs": ["train.json"], "settings": {"patch": 8}}
            for model in models.values():
                model["scores"] = str(scores)
            record = {"datalist": "all.json", "models": models, "pretraining": before}
            with open(options["record"], "w", encoding="utf-8") as file:
                json.dump(record, file)

        monkeypatch.setattr(federated, "_start", start)
        monkeypatch.setattr(
            federated,
            "score_pretrained",
            lambda configs, settings, weights, *names: {"asked": [configs, settings, weights]},
        )

    return write


@pytest.fixture(autouse=True)
def nvflare(monkeypatch):
    """Takes NVFlare for installed."""
    monkeypatch.setattr(federated.importlib.util, "find_spec", lambda name: name)


def test_a_record_holds_dice_what_was_sent_and_what_was_rebuilt(told, grid, tmp_path):
    told({"global": {"pretrained": "p.ckpt", "sent": {"b": [2, 3], "a": [10, 10, 11]}}})
    made = make_federated(pick(grid, "universal"), "cases.json", tmp_path / "scratch")
    assert made["models"] == {"global": {"cases": ["x", "y"], "dice": {"t1": {"WT": [0.5, 0.7]}}}}
    assert made["sent"] == {"a": 10, "b": 2}
    assert made["rebuilt"] == {
        "modality": "flair",
        "given": ["t1", "t2"],
        "asked": [["train.json"], {"patch": 8, "datalist_file": "all.json"}, "p.ckpt"],
    }


def test_sites_by_themselves_send_and_rebuild_nothing(told, grid, tmp_path):
    models = {site: {"pretrained": "p.ckpt", "sent": {site: [1]}} for site in ("a", "b")}
    told(models)
    made = make_federated(pick(grid, ALONE), "cases.json", tmp_path / "scratch")
    assert set(made["models"]) == {"a", "b"}
    assert (made["sent"], made["rebuilt"]) == ({}, {})


def test_without_nvflare_it_says_what_to_install(monkeypatch, grid, tmp_path):
    monkeypatch.setattr(federated.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"expected NVFlare, .*-e '\.\[fl\]'"):
        make_federated(grid.runs[0], "cases.json", tmp_path / "scratch")


def test_a_process_that_fails_is_an_error_and_finds_both_packages(capfd):
    look = "import bundle.benchmark, importlib.util as i; print(i.find_spec('federation').origin)"
    federated._start([sys.executable, "-c", look])
    assert capfd.readouterr().out.strip().endswith("custom/federation/__init__.py")
    with pytest.raises(RuntimeError, match="ended with 3, expected 0"):
        federated._start([sys.executable, "-c", "raise SystemExit(3)"])


def test_what_is_started_hears_ctrl_c_though_a_worker_does_not(capfd):
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "from bundle.benchmark.federated import _start; "
        "_start([sys.executable, '-c', "
        "'import signal; print(signal.getsignal(signal.SIGINT) is not signal.SIG_IGN)'])"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert capfd.readouterr().out.strip() == "True"


def old_record(run, **size):
    """A record as version 0.3 left it."""
    phantom, plan = run.data, run.federation
    return {
        "arm": run.label,
        "seed": run.seed,
        "size": {
            "rounds": plan.rounds,
            "pretrain_rounds": plan.pretrain_rounds,
            "sites": plan.sites,
            "cases": {
                "training": phantom.training,
                "validation": phantom.validation,
                "testing": phantom.testing,
            },
            "edge": phantom.size,
            "settings": {},
            **size,
        },
        "models": {"global": {"cases": ["x"], "dice": {"t1": {"WT": [0.5]}}}},
    }


def test_a_record_of_version_0_3_counts_if_it_was_of_the_same_size(grid, tmp_path):
    run, digests = grid.runs[0], grid.digests()
    write_record(old_record(run), record_path(tmp_path, run.name))
    state, result = read_result(run, digests[run.name], tmp_path)
    assert (state, result.cases, result.regions) == ("finished", ["x"], ["WT"])
    write_record(old_record(run, rounds=5), record_path(tmp_path, run.name))
    assert read_result(run, digests[run.name], tmp_path) == ("changed", None)
