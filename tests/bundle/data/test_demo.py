from __future__ import annotations

import json
from pathlib import Path

from bundle.data.demo import phantom_with_gaps

COUNTS = {"training": 3, "validation": 1, "testing": 2}


def make(folder: Path, sections: list[str]) -> Path:
    return Path(phantom_with_gaps(str(folder), 0.5, sections, size=24, counts=COUNTS))


def test_only_the_named_sections_have_gaps_and_asking_again_changes_nothing(tmp_path):
    path = make(tmp_path, ["training"])
    first = path.read_text()
    datalist = json.loads(first)
    assert any(len(item["image"]) < 4 for item in datalist["training"])
    assert all(len(item["image"]) == 4 for item in datalist["testing"])
    assert make(tmp_path, ["training"]) == path
    assert path.read_text() == first


def test_sections_have_datalists_of_their_own(tmp_path):
    assert make(tmp_path, ["training"]) != make(tmp_path, ["testing"])
