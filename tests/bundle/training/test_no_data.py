from __future__ import annotations

import logging
from pathlib import Path

import pytest
from monai.bundle import create_workflow

import bundle
from bundle.training.no_data import NoCases, cases_if_any, check_any

CONFIGS = Path(bundle.ROOT) / "configs"
MODALITIES = ("t1", "flair")
SMALL = {"device": "cpu", "filters": 4, "blocks_down": [1, 1, 1], "deep_supervision": 2}


def looked_at(**settings):
    return create_workflow(
        config_file=str(CONFIGS / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        **SMALL,
        **settings,
    )


@pytest.mark.parametrize("place", ["nowhere", "nowhere/datalist.json", "p01_flair.nii.gz"])
def test_nothing_is_missing_in_a_fresh_bundle_without_data(tmp_path, place, caplog):
    made = looked_at(dataset_dir=str(tmp_path / place))
    assert made.check_properties() == []
    assert len(made.dataset) == 0
    assert f"no cases yet: {tmp_path / place} does not exist" in caplog.text


def test_a_run_without_data_is_refused_before_anything_is_written(tmp_path):
    made = looked_at(dataset_dir=str(tmp_path / "nowhere"), output_dir=str(tmp_path / "out"))
    with pytest.raises(RuntimeError) as refused:
        made.run()
    assert isinstance(refused.value.__cause__, FileNotFoundError)
    assert "nowhere does not exist. Expected a datalist" in str(refused.value.__cause__)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("datalist.json", '{"testing": []}', "no case in it"),
        ("empty", None, "empty"),
        ("datalist.json", "{", "datalist.json"),
    ],
)
def test_data_that_are_there_and_bad_are_refused_at_once(tmp_path, name, content, said):
    source = tmp_path / name
    source.mkdir() if content is None else source.write_text(content)
    with pytest.raises(ValueError, match=said):
        cases_if_any(source, MODALITIES)


def test_a_file_that_a_datalist_names_in_vain_is_no_missing_place(tmp_path):
    (tmp_path / "list.json").write_text('{"testing": [{"case": "a", "image": {"t1": "a.nii"}}]}')
    with pytest.raises(ValueError, match=r"a\.nii"):
        cases_if_any(tmp_path / "list.json", MODALITIES, on_bad="raise")


def test_cases_pass(tmp_path, write_volume, caplog):
    write_volume("p01_t1.nii.gz")
    with caplog.at_level(logging.WARNING):
        (case,) = cases_if_any(tmp_path, MODALITIES)
    assert check_any([case]) is True
    assert "no cases yet" not in caplog.text


def test_no_cases_are_an_empty_list():
    assert NoCases(FileNotFoundError("x")) == []
    assert check_any([]) is True
