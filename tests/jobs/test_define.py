"""The committed job folders are what the definition writes, and hold no path and no code."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from bundle.cli.command import run_command

prepare_job_config = pytest.importorskip("nvflare.tool.job.job_cli").prepare_job_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def definition():
    spec = importlib.util.spec_from_file_location("define_jobs", ROOT / "jobs" / "define.py")
    module = importlib.util.module_from_spec(spec)
    # Data classes look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.json")}


@pytest.mark.parametrize(
    "name", ["fedavg", "modality_aware", "personalised", "private", "evaluate", "census"]
)
def test_a_folder_is_byte_for_byte_what_the_definition_writes(definition, tmp_path, name):
    definition.define(str(tmp_path), only=name)
    written, committed = contents(tmp_path / name), contents(ROOT / "jobs" / name)
    assert sorted(written) == [
        "app/config/config_fed_client.json",
        "app/config/config_fed_server.json",
        "meta.json",
    ]
    assert written == committed, "run `make jobs`"
    every = [p for p in (ROOT / "jobs" / name).rglob("*") if p.is_file()]
    assert len(every) == len(committed), "a job carries two configurations and nothing else"


def test_there_is_a_folder_for_each_job_and_no_other(definition):
    folders = {path.parent.name for path in (ROOT / "jobs").glob("*/meta.json")}
    assert folders == {*definition.JOBS, definition.CENSUS}


def test_no_job_holds_a_path_a_command_or_code(definition):
    for path in (ROOT / "jobs").rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert str(ROOT) not in text
        assert "command" not in text
        assert '"/' not in text


@pytest.mark.parametrize("method", ["universal", "modality_dropout", "lckd", "gmd"])
def test_a_job_arrives_as_it_was_written(definition, tmp_path, method):
    """`nvflare job submit` writes the configurations anew before it sends them."""
    settings = {"train#dataloader#batch_size": 1, "blocks_down": [1, 2]}
    definition.define(str(tmp_path / "jobs"), method=method, settings=settings)
    for folder in (tmp_path / "jobs").iterdir():
        sent = tmp_path / "sent" / folder.name
        shutil.copytree(folder, sent)
        asked = Namespace(job_folder=str(folder), config_file=None, debug=False)
        prepare_job_config(asked, ["app"], str(sent))
        for path in folder.rglob("*.json"):
            arrived = json.loads((sent / path.relative_to(folder)).read_text())
            assert arrived == json.loads(path.read_text()), path


def options(definition, **given):
    return definition.plan_job("modality_aware", definition.Choices(**given))


def test_the_method_rounds_and_epochs_are_arguments(definition):
    pretrain, train = options(definition, rounds=7, pretrain_rounds=3, local_epochs=2).stages
    assert (pretrain.rounds, train.rounds, train.local_epochs) == (3, 7, 2)
    (lckd,) = options(definition, method="lckd", settings={"filters": 8}).stages
    assert lckd.configs == ("train.json", "method_lckd.yaml", "federation_lckd.yaml")
    assert lckd.settings == {"filters": 8}
    with pytest.raises(ValueError, match="method: expected one of"):
        options(definition, method="magic")


def test_a_pinned_job_names_the_bundle(definition):
    plan = definition.plan_job("fedavg", definition.Choices(), pin=True)
    assert len(plan.stages[0].identity["code"]) == 64


def test_a_private_job_would_not_send_sums_over_patients(definition):
    from federation.job import ModalityRecipe

    plan = definition.plan_job("modality_aware", definition.Choices())
    private = plan.with_changes(privacy=definition.Privacy(1.0, 1.0))
    with pytest.raises(
        ValueError, match=r"sums over patients.*Leave the stage out of a private job"
    ):
        ModalityRecipe(private)


def test_the_private_job_puts_the_noise_before_the_rounding():
    path = ROOT / "jobs" / "private" / "app" / "config" / "config_fed_client.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    (chain,) = content["task_result_filters"]
    assert [f["path"].rpartition(".")[2] for f in chain["filters"]] == [
        "GaussianPrivacy",
        "HalfPrecision",
    ]


def test_what_the_server_believes_is_written_as_it_was_asked_for(definition, tmp_path):
    words = [str(tmp_path), "modality_aware", "--site_cases", "{site-1: 200, b.c: 3}"]
    assert run_command(definition.define, [*words, "--robust=trimmed"], "jobs/define.py") == 0
    (path,) = tmp_path.rglob("config_fed_server.json")
    written = json.loads(path.read_text())
    assert [flow["args"]["aggregator"]["args"]["site_cases"] for flow in written["workflows"]] == [
        [["site-1", 200], ["b.c", 3]]
    ] * 2
    assert all(f["args"]["aggregator"]["args"]["robust"] == "trimmed" for f in written["workflows"])
    with pytest.raises(ValueError, match="robust: expected one of"):
        definition.define(str(tmp_path), "fedavg", robust="median")
    with pytest.raises(ValueError, match="site_cases: expected sites and their numbers of cases"):
        definition.define(str(tmp_path), "fedavg", site_cases={"site-1": 0})


def test_words_become_what_a_plan_takes(definition, tmp_path, capsys):
    def run(*words):
        others = definition._QUORUM_KINDS
        return run_command(definition.define, [str(tmp_path), *words], "jobs/define.py", others)

    words = ["--overlays", "brats2018.yaml", "--min_sites=3", "--grace", "60", "--resume=false"]
    assert run("--only", "fedavg", "--federation", "2024_01", *words) == 0
    (path,) = tmp_path.rglob("config_fed_server.json")
    assert '"2024_01"' in path.read_text()
    (flow,) = json.loads(path.read_text())["workflows"]
    assert (flow["args"]["min_sites"], flow["args"]["grace"]) == (3, 60.0)
    capsys.readouterr()
    assert run("--min_sites", "two") == 2
    assert run("--only", "fedavgg") == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: jobs/define.py: min_sites: expected a whole number, got 'two'.")
    assert second.startswith("error: expected one of the jobs ['fedavg'")
