"""The options of `federation.simulate`, as the benchmark gives them; nothing is trained here."""

from __future__ import annotations

import json

import pytest
import yaml

pytest.importorskip("nvflare")

from federation import simulate as module
from federation.job import ModalityRecipe
from federation.settings import read_site
from federation.simulate import bytes_sent, bytes_table, groups_of, prepare_sites, simulate

from bundle.benchmark.federated import ARMS, command, federation
from bundle.cli.command import run_command
from bundle.phantom.data_set import write_phantom

SITES = "site-1:t1+t2;site-2:t2"


@pytest.fixture
def planned(monkeypatch, tmp_path):
    """Give planned(arm): how its groups are called, and the plan for two sites."""

    def plan(label):
        made = {}

        def record_models(make_plan, groups, folder, threads):
            made.update(plan=make_plan(2), groups=groups)
            return {"models": {}}

        monkeypatch.setattr(module, "record_models", record_models)
        monkeypatch.setattr(module, "prepare_sites", lambda *_: ["site-1", "site-2"])
        (tmp_path / "sites").mkdir(exist_ok=True)
        grid = federation(seeds=(3,), rounds=4, pretrain_rounds=2, sites=SITES)
        (run,) = [run for run in grid.runs if run.label == label]
        settings = {"seed": 3, "filters": 4}
        (tmp_path / "settings.json").write_text(json.dumps(settings))
        words = command(run, "cases.json", tmp_path)[3:]
        assert run_command(simulate, words, "python -m federation.simulate") == 0
        assert json.loads((tmp_path / "record.json").read_text()) == {"models": {}}
        return made["groups"], made["plan"]

    return plan


@pytest.mark.parametrize("label", ARMS)
def test_every_arm_of_the_benchmark_is_a_job_and_waits_for_all_its_sites(label, planned):
    groups, plan = planned(label)
    assert ModalityRecipe(plan).plan.quorum["min_sites"] == 2
    assert all(stage.settings["seed"] == 3 for stage in plan.stages)
    assert all(stage.settings["filters"] == 4 for stage in plan.stages)
    assert plan.half_precision == (label != "modality_dropout in 32 bits")
    assert list(groups) == (["site-1", "site-2"] if "alone" in label else ["global"])
    assert sum(stage.rounds for stage in plan.stages) in (6, 7)


def test_an_own_bank_is_never_sent(planned):
    _, plan = planned("universal with own banks")
    first, last = plan.stages
    assert first.settings["exchange#additive_statistics"] == []
    assert "exchange#additive_statistics" not in last.settings
    _, shared = planned("universal")
    assert "exchange#additive_statistics" not in shared.stages[0].settings
    assert shared.stages[0].rounds == first.rounds + 1


def test_a_pool_makes_longer_rounds_in_both_stages(planned):
    groups, plan = planned("pooled")
    assert groups == {"global": ["pool"]}
    assert [stage.local_epochs for stage in plan.stages] == [4, 4]


def test_the_pool_has_all_cases_as_they_are_at_the_sites(tmp_path, monkeypatch):
    datalist = write_phantom(
        tmp_path / "phantom", {"training": 2, "testing": 1}, anatomy="simple", size=24
    )
    monkeypatch.setattr(module, "record_models", lambda *_: {})
    simulate(str(tmp_path), sites=SITES, datalist=datalist, how="pooled", record=tmp_path / "r")
    pool = yaml.safe_load((tmp_path / "sites" / "pool.yaml").read_text())
    assert pool["datalist_file"] == "datalist.json"
    whole = json.loads((tmp_path / "sites" / "datalist.json").read_text())
    assert {tuple(item["image"]) for item in whole["training"]} == {("t1", "t2"), ("t2",)}
    assert [len(item["image"]) for item in whole["testing"]] == [4]


def test_cases_are_shared_out_by_the_seed_and_are_not_made_again(tmp_path):
    datalist = write_phantom(
        tmp_path / "phantom", {"training": 6, "testing": 1}, anatomy="simple", size=24
    )
    shared = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        assert prepare_sites(folder, SITES, {}, 24, seed, str(datalist)) == ["site-1", "site-2"]
        assert not (folder / "phantom").exists()
        site = json.loads((folder / "sites" / "site-1.json").read_text())
        shared.append({item["case"] for item in site["training"]})
        # Sums over a few cases are part of it: on one machine nothing leaves anybody.
        assert read_site("site-1", folder / "sites" / "site-1.yaml").rules.statistics_of_few
    assert shared[0] != shared[1]


def test_an_unknown_way_to_train_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"expected one of \['together', 'alone', 'pooled'\]"):
        groups_of(["a"], "apart")
    with pytest.raises(ValueError, match="expected together where there is no --record"):
        simulate(str(tmp_path), how="alone")


ENTRIES = [
    {
        "round": number,
        "seconds": 9.0,
        "sites": {
            site: {"bytes": 2**20 * (number + 1), "seconds": 8.0, "peak_memory_mib": 700 + number}
            for site in sites
        },
    }
    for number, sites in enumerate((("a", "b"), ("a",)))
]


def test_bytes_are_listed_without_rounds_that_a_site_missed():
    assert bytes_sent(ENTRIES) == {"a": [2**20, 2**21], "b": [2**20]}


def test_the_table_of_rounds_tells_mebibytes_idle_seconds_and_memory():
    lines = bytes_table(ENTRIES).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0] == ["round", "seconds", "of it idle", "a", "b"]
    assert cells[2:] == [
        ["0", "9.0", "1.0", "1.00", "1.00"],
        ["1", "9.0", "1.0", "2.00", "-"],
        ["peak memory, MiB", "", "", "701", "700"],
    ]


@pytest.mark.parametrize(("threads", "at_once"), [(None, 3), (2, 2), (5, 3)])
def test_as_many_sites_work_at_once_as_there_are_threads(tmp_path, monkeypatch, threads, at_once):
    asked = {}
    monkeypatch.setattr(module, "SimEnv", lambda **words: asked.update(words))
    monkeypatch.setattr(module.ModalityRecipe, "execute", lambda self, environment: None)
    sites = ["a", "b", "c"]
    module.run_in_simulator(module.demo_plan(pretrain_rounds=0), tmp_path, sites, threads)
    assert (asked["clients"], asked["num_threads"]) == (sites, at_once)


def test_sites_that_take_turns_have_as_much_time(tmp_path, monkeypatch):
    plans = []
    monkeypatch.setattr(module, "prepare_sites", lambda *_: ["a", "b", "c", "d", "e"])
    monkeypatch.setattr(module, "report", lambda plan, *_: plans.append(plan))
    for threads in (None, 2):
        simulate(str(tmp_path), threads=threads)
    waits = [plan.quorum["round_timeout"] for plan in plans]
    assert waits[1] == 3 * waits[0]
    with pytest.raises(ValueError, match="threads: expected at least 1, got 0"):
        simulate(str(tmp_path), threads=0)


def test_a_number_of_sites_is_enough(tmp_path, monkeypatch):
    plans = []
    monkeypatch.setattr(module, "prepare_sites", lambda _, plan, *rest: plans.append(plan) or ["a"])
    monkeypatch.setattr(module, "report", lambda *_: None)
    simulate(str(tmp_path), sites=5)
    assert plans == [
        "site-1:t1+t1ce+t2+flair;site-2:t1ce+flair;site-3:t1+t2;site-4:t2;site-5:t1+t1ce+t2+flair"
    ]
    assert plans[0].rpartition(";")[0] == module.SITES


def test_a_mistake_in_words_or_values_is_one_line(tmp_path, capsys):
    program = "python -m federation.simulate"
    assert run_command(simulate, [str(tmp_path), "--how", "alone"], program) == 2
    assert run_command(simulate, [str(tmp_path), "--own_banks", "flase"], program) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: how: expected together where there is no --record")
    assert second.startswith("error: federation.simulate: --own_banks: expected true or false, got")
