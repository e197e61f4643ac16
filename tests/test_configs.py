"""What the configs promise one another; tests/bundle/methods/test_contract.py has the methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

import bundle

CONFIGS = Path(bundle.ROOT) / "configs"


def read(name: str) -> dict[str, Any]:
    return ConfigParser.load_config_file(str(CONFIGS / name))


def test_inference_prepares_a_case_as_validation_does_and_infers_alike():
    train, inference = read("train.json"), read("inference.json")
    assert inference["inferer"] == train["validate"]["inferer"]
    validate = train["validate"]["preprocessing"]["transforms"]
    wanted = [{k: v for k, v in t.items() if k != "copy_key"} for t in validate]
    wanted = [transform for transform in wanted if "image" in transform["keys"]]
    # What only a case that no datalist names needs: the order in a 4D file, and the check.
    own = ("channel_order", "odd")
    found = inference["preprocessing"]["transforms"]
    assert [{k: v for k, v in t.items() if k not in own} for t in found] == wanted


def test_calibration_leaves_out_the_threshold_of_validation_and_nothing_else():
    (changed,) = [id_ for id_ in read("calibrate.yaml") if "#transforms" in id_]
    assert changed == "validate#postprocessing#transforms#3#_disabled_"
    threshold = read("train.json")["validate"]["postprocessing"]["transforms"][3]
    assert threshold == {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}


@pytest.mark.parametrize("name", ["modality_dropout", "full_only", "specialist"])
def test_the_baselines_train_one_network(name):
    definition = read(f"method_{name}.yaml")["network_def"]
    assert definition["_target_"] == "bundle.networks.unet.UNet"
    assert definition == read("method_modality_dropout.yaml")["network_def"]


def test_given_endings_reach_all_that_reads_file_names():
    readers = (
        "bundle.transforms.load.LoadModalitiesd",
        "bundle.training.no_data.cases_if_any",
        "bundle.training.datasets.cached_cases",
        "bundle.training.datasets.CaseSubsets",
    )

    def parts(config: Any) -> list[dict[str, Any]]:
        inner = config.values() if isinstance(config, dict) else config
        found = [part for each in inner if isinstance(each, (dict, list)) for part in parts(each)]
        return found + ([config] if isinstance(config, dict) else [])

    found = [p for name in ("train.json", "inference.json") for p in parts(read(name))]
    readers_found = [part for part in found if part.get("_target_") in readers]
    assert {part["_target_"] for part in readers_found} == set(readers)
    # What lists the cases of inference is not named here, for it may be wrapped.
    readers_found.append(read("inference.json")["dataset"]["data"])
    assert all(part["suffixes"] == "@suffixes" for part in readers_found)
