from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
import yaml
from federation.protocol.stages import (
    JOB_SETTINGS,
    Stage,
    check_plain,
    installed_identity,
    read_stages,
    read_workflow,
)
from monai.bundle import ConfigWorkflow

import bundle

CONFIGS = ["train.json", "federation.yaml"]


def test_a_stage_survives_json():
    stage = Stage("train", CONFIGS, 3, 2, {"filters": 4, "blocks_down": [1, 1]}, "testing")
    (read,) = read_stages([json.loads(json.dumps(stage.to_dict()))]).values()
    assert read == stage
    assert "identity" not in stage.to_dict()
    assert stage.epochs == 6


def test_a_stage_that_is_only_scored_has_a_schedule_all_the_same():
    assert Stage("train", CONFIGS, 0).epochs == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "a b"}, "expected a name such as 'train', got 'a b'"),
        ({"configs": []}, "got none"),
        ({"configs": ["../secret.json"]}, r"got \['../secret.json'\]"),
        ({"configs": ["train.py"]}, r"got \['train.py'\]"),
        ({"rounds": -1}, "got -1 and 1"),
        ({"local_epochs": 0}, "got 3 and 0"),
        ({"section": "train"}, "got 'train'"),
        ({"settings": {"optimizer#_target_": "subprocess.Popen"}}, "expected an id of the configs"),
        ({"settings": {"_disabled_": True}}, "expected an id of the configs"),
    ],
)
def test_a_stage_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Stage(**{"task": "train", "configs": CONFIGS, "rounds": 3, **changes})


@pytest.mark.parametrize(
    "value",
    ["$import os", " $1", "@optimizer", "%other.json", ["fine", "$x"], {"_target_": "os.system"}],
)
def test_what_monai_would_run_is_no_setting(value):
    with pytest.raises(ValueError, match="setting skips: expected a"):
        Stage("train", CONFIGS, 1, settings={"skips": value})


# A site's own ids, what decides which cases are bad, parts of the configs that name classes, and
# arguments of MONAI's workflow: where it reports to, what it writes, what runs before it.
FORBIDDEN = [
    "dataset_dir",
    "datalist_file",
    "output_dir",
    "ckpt_dir",
    "cache_dir",
    "prompt_file",
    "pretrained_file",
    "model_file",
    "state_file",
    "bundle_root",
    "check",
    "on_bad_case",
    "regions",
    "label_aliases",
    "device",
    "num_workers",
    "amp",
    "resume",
    "save_interval",
    "pictures",
    "tracking",
    "tracking_uri",
    "save_execute_config",
    "meta_file",
    "logging_file",
    "config_file",
    "init_id",
    "run_id",
    "final_id",
    "workflow_type",
    "properties_path",
    "initialize",
    "run",
    "finalize",
    "imports",
    "root_check",
    "validate::handlers",
    "train#handlers",
    "train#dataset#data",
    "datalist#sections",
    "exchange",
    "training_cases",
]


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_job_sets_no_path_no_check_and_nothing_of_monais_workflow(name):
    with pytest.raises(ValueError, match=f"expected a setting that a job may have, got '{name}'"):
        Stage("train", CONFIGS, 1, settings={name: "x"})


def test_every_argument_of_monais_workflow_is_forbidden():
    own = set(inspect.signature(ConfigWorkflow.__init__).parameters) - {"self", "override"}
    assert own <= set(FORBIDDEN)
    assert not own & set(JOB_SETTINGS)


def test_every_setting_of_a_job_is_an_id_of_the_configs():
    known = set()
    for path in (Path(bundle.ROOT) / "configs").iterdir():
        if path.suffix in (".json", ".yaml"):
            known |= set(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert {name.partition("#")[0] for name in JOB_SETTINGS} <= known


@pytest.mark.parametrize("value", [1, 0.5, "cpu", True, None, [1, [2, "t1+t2"]]])
def test_plain_values_are_settings(value):
    check_plain(value, "x")


def test_names_may_not_repeat():
    stage = Stage("train", CONFIGS, 1).to_dict()
    with pytest.raises(ValueError, match=r"different names, got \['train', 'train'\]"):
        read_stages([stage, stage])


def test_settings_come_before_what_the_site_says():
    stage = Stage("train", CONFIGS, 1, settings={"filters": 4, "batch_size": 9})
    parser = read_workflow(stage, {"batch_size": 1}).parser
    assert (parser["filters"], parser["batch_size"]) == (4, 1)


def test_another_bundle_than_the_jobs_is_refused_with_both_hashes():
    stage = Stage("train", CONFIGS, 1)
    found = installed_identity(stage)
    same = Stage("train", CONFIGS, 1, identity=found._asdict())
    assert installed_identity(same) == found
    other = Stage("train", CONFIGS, 1, identity={**found._asdict(), "configs": "0" * 64})
    with pytest.raises(ValueError, match=rf"expected configs {'0' * 64}, got {found.configs}"):
        installed_identity(other)
