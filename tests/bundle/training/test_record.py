from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

import bundle
from bundle.training.current_config import current_parser
from bundle.training.record import case_changes, name_scans, read_record

CONFIGS = Path(bundle.ROOT) / "configs"
METHODS = ["", *sorted(path.name for path in CONFIGS.glob("method_*.yaml")), "pretrain.yaml"]
SMALL = {
    "device": "$torch.device('cpu')",
    "amp": False,
    "filters": 4,
    "blocks_down": [1, 1, 1],
    "deep_supervision": 2,
}


def record_of(overlay: str = "", **settings):
    names = ["train.json", *([overlay] if overlay else [])]
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in names])
    parser.update({**SMALL, **settings})
    parser["asked"] = {"_target_": "bundle.training.record.read_record"}
    return parser.get_parsed_content("asked")


def changed(before, now) -> tuple[list[str], list[str]]:
    """Give the ids that are refused, and those that may change."""
    from bundle.training.made_with import differences

    names = list(differences(before.settings, now.settings))
    free = [name for name in names if now.may_change(name)]
    return [name for name in names if name not in free], free


@pytest.mark.parametrize("overlay", METHODS)
def test_every_methods_record_is_plain_and_knows_no_folder(overlay, tmp_path):
    record = record_of(overlay)
    assert json.loads(json.dumps(record.settings)) == record.settings
    torch.save(record.settings, tmp_path / "state.ckpt")
    torch.load(tmp_path / "state.ckpt", weights_only=True)
    moved = {name: str(tmp_path / name) for name in ("output_dir", "ckpt_dir", "dataset_dir")}
    assert record_of(overlay, cache_dir=None, **moved).settings == record.settings
    assert "spacing" in record.settings
    assert "method#modalities" not in record.settings


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"regions": {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}}, ["regions"]),
        ({"regions": {"TC": [1, 4], "WT": [1, 2], "ET": [4]}}, ["regions#WT"]),
        ({"label_aliases": {}}, ["label_aliases#3"]),
        ({"spacing": [1.0, 1.0, 2.0]}, ["spacing"]),
        ({"roi_size": 96}, ["roi_size"]),
        ({"samples_per_case": 2}, ["samples_per_case"]),
        ({"filters": 8}, ["network_def#filters"]),
        ({"rescale": False}, ["network_def#rescale"]),
        ({"model_side": "false"}, ["method#model_side"]),
        ({"prompt_source": "one_hot"}, ["made_with#prompts"]),
        ({"prompt_source": "random", "seed": 1}, ["made_with#prompts"]),
        ({"criteria#dice#loss#batch": False}, ["criteria#dice#loss#batch"]),
        ({"train#random_transforms#0#pos": 1}, ["train#random_transforms#0#pos"]),
        ({"optimizer#_target_": "torch.optim.SGD"}, ["optimizer#_target_"]),
    ],
)
def test_what_matters_must_stay(setting, told):
    assert changed(record_of(), record_of(**setting))[0] == told


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"batch_size": 1}, ["batch_size"]),
        ({"num_workers": 0}, ["num_workers"]),
        ({"seed": 1}, ["seed"]),
        ({"validate_subsets": ["t1"]}, ["validate_subsets"]),
        ({"validation": False}, ["validation"]),
        (
            {"validate#key_metric#mean_dice#hd95": True},
            ["validate#key_metric#mean_dice#hd95"],
        ),
        ({"train#dataloader#shuffle": False}, ["train#dataloader#shuffle"]),
        (
            {"train#trainer#iteration_update#clip_norm": None},
            ["train#trainer#iteration_update#clip_norm"],
        ),
        ({"learning_rate": 1.0, "max_epochs": 3}, []),
    ],
)
def test_what_may_change_is_told_apart(setting, told):
    assert changed(record_of(), record_of(**setting)) == ([], told)


@pytest.mark.parametrize(
    "same",
    [
        {"spacing": [1, 1, 1], "roi_size": 128, "samples_per_case": 1.0},
        {"regions": {"TC": (4, 1), "WT": [4, 2, 1], "ET": [4.0]}, "label_aliases": {3: 4}},
        {"data_side": "True", "num_workers": 4.0},
    ],
)
def test_the_same_settings_written_otherwise_are_no_change(same):
    assert changed(record_of(), record_of(**same)) == ([], [])


def test_what_is_computed_from_the_length_may_change_with_it():
    before = record_of("method_lckd.yaml")
    assert changed(before, record_of("method_lckd.yaml", max_epochs=10)) == (
        [],
        ["method#warm_up_epochs"],
    )
    by_hand = record_of("method_lckd.yaml", warm_up_epochs=3)
    assert changed(before, by_hand)[0] == ["method#warm_up_epochs"]


def test_another_method_is_told_part_by_part():
    refused, free = changed(record_of(), record_of("method_gmd.yaml"))
    assert free == []
    assert {"network_def#_target_", "method#_target_", "method#decouple"} <= {*refused}


def test_a_record_is_asked_for_by_a_config():
    assert current_parser() is None
    with pytest.raises(RuntimeError, match="expected to be called by a config"):
        read_record()


def test_the_innermost_config_is_the_one_that_is_read():
    inner = ConfigParser({"found": "$bundle.training.current_config.current_parser()"})
    inner.globals["bundle"] = bundle
    outer = ConfigParser({"found": "$inner.get_parsed_content('found')"})
    outer.globals["inner"] = inner
    assert outer.get_parsed_content("found") is inner


def test_scans_are_named_and_a_hosts_single_files_are_taken():
    items = [
        {"case": "a", "image": {"t1": "x", "flair": "y", "t2": None}},
        {"image": {"t2": "x"}},
        {"image": "/data/b.nii.gz"},
    ]
    assert name_scans(items) == {"a": "t1+flair", "1": "t2", "b.nii.gz": "one file"}


def test_cases_that_come_go_or_change_are_said():
    before = {"training": {"a": "t1", "b": "t1+t2", "c": "t2"}, "validation": {"v": "t1"}}
    now = {"training": {"a": "t1", "b": "t2", **{f"n{i}": "t1" for i in range(7)}}}
    assert case_changes(before, now) == [
        "training cases: 7 came (n0, n1, n2, n3, n4, and 2 more), 1 went (c), "
        "1 have other scans (b); 3 before, 9 now"
    ]
    assert case_changes(now, now) == []
