from __future__ import annotations

import json
from pathlib import Path

from bundle.phantom.gaps import phantom_with_gaps

COUNTS = {"training": 3, "validation": 1, "testing": 2}


def make(folder: Path, sections: list[str]) -> Path:
    return Path(
        phantom_with_gaps(str(folder), 0.5, sections, anatomy="simple", size=24, counts=COUNTS)
    )


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


def test_the_absence_may_have_a_seed_of_its_own_on_one_phantom(tmp_path):
    plain = make(tmp_path, ["training"]).read_text()
    lists = {
        seed: json.loads(
            Path(
                phantom_with_gaps(
                    str(tmp_path),
                    0.5,
                    ["training"],
                    anatomy="simple",
                    size=24,
                    counts=COUNTS,
                    absence_seed=seed,
                )
            ).read_text()
        )
        for seed in (0, 1)
    }
    assert lists[0] == json.loads(plain)
    assert lists[0]["training"] != lists[1]["training"]
    assert lists[0]["phantom"] == lists[1]["phantom"]
