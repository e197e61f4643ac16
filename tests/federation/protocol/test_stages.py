from __future__ import annotations

import json

import pytest
from federation.protocol.stages import (
    Stage,
    check_plain,
    installed_identity,
    read_stages,
    read_workflow,
)

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
    with pytest.raises(ValueError, match="setting x: expected a"):
        Stage("train", CONFIGS, 1, settings={"x": value})


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
