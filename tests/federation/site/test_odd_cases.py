"""A site warns of odd cases in its own log before it trains, and can count them without names."""

from __future__ import annotations

import json
import logging

import pytest
from federation.protocol.stages import Stage
from federation.settings import Site
from federation.site.local_training import LocalTraining

from bundle.phantom.data_set import write_phantom

SETTINGS = {"filters": 4, "blocks_down": [1, 1, 1], "deep_supervision": 2}


@pytest.fixture
def training(tmp_path):
    """A site with two cases, whose t1 and t1ce are swapped; the first one has a rim to tell by."""
    path = write_phantom(
        tmp_path / "data", {"training": 2, "validation": 0, "testing": 0}, anatomy="simple", size=32
    )
    datalist = json.loads(path.read_text())
    for item in datalist["training"]:
        image = item["image"]
        image["t1"], image["t1ce"] = image["t1ce"], image["t1"]
    path.write_text(json.dumps(datalist))
    site = Site("A", {"device": "cpu", "datalist_file": str(path), "cache_dir": None})
    stage = Stage("train", ["train.json", "federation.yaml"], 3, settings=SETTINGS)
    return LocalTraining(stage, site, tmp_path / "A")


def test_a_site_logs_the_case_and_the_number_and_trains_with_it(training, caplog):
    with caplog.at_level(logging.WARNING):
        assert training.all_cases == 2
    lines = [r.getMessage() for r in caplog.records if "t1 and t1ce seem" in r.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("case Phantom_0000: t1 and t1ce seem to be swapped")


def test_the_counts_have_no_names(training):
    flagged = training.parser.get_parsed_content("datalist").flagged
    assert flagged["agent_in_rim"] == 1
    assert "Phantom" not in json.dumps(flagged)
