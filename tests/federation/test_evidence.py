from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("nvflare")

from federation import evidence as module
from federation.evidence import ARMS, Size, evidence, plan_arm, read_records, record_name
from federation.evidence_report import MEANING
from federation.job import ModalityRecipe

SIZE = Size(rounds=4, pretrain_rounds=2)


def steps(plan):
    """Epochs with training in them, of all stages: a shared bank is collected in a round before."""
    stages = {stage.task: stage.rounds * stage.local_epochs for stage in plan.stages}
    collecting = "pretrain" in stages and not any("private" in k for k in plan.stages[0].settings)
    return sum(stages.values()) - (plan.stages[0].local_epochs if collecting else 0)


@pytest.mark.parametrize("name", [name for name in ARMS if name != "pooled"])
def test_every_arm_makes_the_same_steps_at_a_site(name):
    assert steps(plan_arm(name, 0, 4, SIZE)) == 6


def test_a_pool_makes_the_steps_of_all_sites_together():
    assert steps(plan_arm("pooled", 0, 1, SIZE)) == 4 * 6


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_is_a_job_and_waits_for_all_its_sites(name):
    plan = plan_arm(name, 3, 2, SIZE)
    assert ModalityRecipe(plan).plan.quorum["min_sites"] == 2
    assert all(stage.settings["seed"] == 3 for stage in plan.stages)
    assert name in MEANING


def test_an_own_bank_is_never_sent():
    first = plan_arm("universal with own banks", 0, 4, SIZE).stages[0]
    assert first.settings["exchange#additive_statistics"] == []
    shared = plan_arm("universal", 0, 4, SIZE).stages[0]
    assert shared.rounds == first.rounds + 1


def test_arms_have_names_fit_for_files():
    names = {record_name(name, 1) for name in ARMS}
    assert len(names) == len(ARMS)
    assert all(name.replace("_", "").replace("-", "").isalnum() for name in names)


@pytest.fixture
def measured(monkeypatch):
    """What has been measured, by a stand-in that writes records of nothing."""
    made = []

    def measure(name, seed, folder, size):
        if name == "fedavg" and seed == 1:
            raise RuntimeError("no luck")
        assert folder.is_absolute()
        made.append((name, seed))
        dice = {subset: {"WT": [0.5, 0.7]} for subset in module_subsets()}
        models = {"global": {"cases": ["a", "b"], "dice": dice}}
        return {"models": models, "sent": {}, "rebuilt": {}, "seconds": 1.0}

    monkeypatch.setattr(module, "measure", measure)
    return made


def module_subsets():
    from bundle.modalities import BRATS_MODALITIES, all_subsets, subset_name

    return [subset_name(s, BRATS_MODALITIES) for s in all_subsets(BRATS_MODALITIES)]


def run(tmp_path, **others):
    return evidence(str(tmp_path), make_executor=ThreadPoolExecutor, size=SIZE, **others)


def test_a_stopped_measurement_goes_on_and_a_failure_costs_itself_alone(tmp_path, measured, capsys):
    assert run(tmp_path, seeds=0, arms="fedavg")
    assert not run(tmp_path, seeds=(0, 1), arms=("universal", "fedavg"))
    assert measured == [("fedavg", 0), ("universal", 0), ("universal", 1)]
    assert "no luck" in capsys.readouterr().out
    assert len(read_records(tmp_path)) == 3
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| universal | 60.0 \N{PLUS-MINUS SIGN} 0.0 |" in text
    assert (tmp_path / "sites.png").is_file()


def test_a_folder_may_be_named_from_where_one_is(tmp_path, measured, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("here", seeds=0, arms="universal")
    assert (tmp_path / "here" / "report.md").is_file()


def test_a_report_alone_measures_nothing(tmp_path, measured):
    assert run(tmp_path, report_only=True)
    assert measured == []
    assert "No run has finished" in (tmp_path / "report.md").read_text()


def test_records_of_another_size_are_not_mixed_in(tmp_path, measured):
    run(tmp_path, seeds=0, arms="fedavg")
    with pytest.raises(ValueError, match="another output_dir"):
        evidence(str(tmp_path), size=Size(rounds=5), make_executor=ThreadPoolExecutor)


def test_an_unknown_arm_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"expected some of .*got \['magic'\]"):
        run(tmp_path, arms="magic")


def test_a_record_tells_its_circumstances(tmp_path, measured):
    run(tmp_path, seeds=0, arms="pooled")
    (path,) = (tmp_path / "runs").iterdir()
    record = json.loads(path.read_text())
    assert record["size"]["rounds"] == 4
    assert {"torch", "monai", "bundle"} <= set(record["versions"])
