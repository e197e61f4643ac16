from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import bundle
from bundle.training.own_ids import HOSTS, overlay_parts, own_ids, own_nodes, top_of

CONFIGS = Path(bundle.ROOT) / "configs"


def test_every_id_of_the_configs_is_known_with_its_file():
    ids = own_ids()
    assert ids["save_rebuilt"] == ["inference.json", "demo_inference.yaml"]
    assert ids["masking"] == ["pretrain.yaml"]
    for path in CONFIGS.glob("*.yaml"):
        tops = {re.split("#|::", id_.lstrip("+"))[0] for id_ in yaml.safe_load(path.read_text())}
        assert {id_ for id_, files in ids.items() if path.name in files} == tops


def test_parts_are_found_by_their_id():
    assert [node["pos"] for node in own_nodes("train#random_transforms#0")] == [2]
    assert [len(node) for node in own_nodes("written_labels")] == [1]
    assert own_nodes("train#random_transforms#99") == own_nodes("train#nothing#0") == []
    assert own_nodes("filters") == []
    assert {"dataloader", "deterministic_transforms", "trainer"} <= overlay_parts("train")


@pytest.mark.parametrize("id_", ["train", "train#trainer#max_epochs", "+train::handlers"])
def test_the_first_part_of_an_id_is_its_top(id_):
    assert top_of(id_) == "train"


def test_hosts_ids_are_known_from_monai_itself():
    assert {"evaluator", "imports", "use_click", "tracking_uri", "config_file"} <= HOSTS
    assert "learning_rate" not in HOSTS
