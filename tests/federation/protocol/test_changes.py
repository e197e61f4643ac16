from __future__ import annotations

import json

import pytest
import torch
from federation.protocol.changes import ChangesRefused, changes, check_changes, made_with
from federation.protocol.identity import Identity
from monai.bundle import ConfigParser

BUNDLE = Identity(*(f"{name} of before" for name in Identity._fields))
NEWER = BUNDLE._replace(version="newer")
CONFIG = {
    "modalities": ["t1", "t2"],
    "regions": {"WT": [1, 2]},
    "filters": 8,
    "network_def": {"_target_": "torch.nn.Conv3d", "in_channels": "$len(@modalities)"},
    "net": {"_target_": "torch.nn.Identity"},
    "method": {"_target_": "torch.nn.Sequential", "part": "@net", "filters": "@filters"},
    "learning_rate": 0.1,
}


def described(identity=BUNDLE, **changed):
    return made_with(identity, ConfigParser({**CONFIG, **changed}))


def test_what_a_state_is_made_with_is_plain_and_its_expressions_are_resolved():
    told = described()
    assert json.loads(json.dumps(told)) == told
    assert told["identity"] == BUNDLE._asdict()
    assert told["settings"] == {
        "modalities": ["t1", "t2"],
        "regions#WT": [1, 2],
        "network_def#_target_": "torch.nn.Conv3d",
        "network_def#in_channels": 2,
        "method#_target_": "torch.nn.Sequential",
        "method#part": "@net",
        "method#filters": 8,
    }


def test_it_survives_a_checkpoint(tmp_path):
    torch.save(described(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == described()


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"filters": 16}, "method#filters: 8, now 16"),
        ({"regions": {"WT": [1]}}, "regions#WT: [1, 2], now [1]"),
        ({"spacing": [1, 1, 2]}, "spacing: not set, now [1, 1, 2]"),
        ({"identity": NEWER}, "bundle's version: version of before, now newer"),
    ],
)
def test_what_matters_is_listed_with_both_sides(changed, line):
    assert changes(described(), described(**changed)) == [line]


def test_a_learning_rate_does_not_matter():
    assert changes(described(), described(learning_rate=1.0)) == []


def test_changes_are_refused_unless_they_are_accepted():
    now = described(filters=16)
    with pytest.raises(ValueError, match=r"1 change.*filters: 8, now 16.*--accept_changes"):
        check_changes(described(), now, accepted=False)
    assert check_changes(described(), now, accepted=True) == ["method#filters: 8, now 16"]
    assert check_changes(described(), described(), accepted=False) == []


def test_who_takes_no_changes_is_not_persuaded_by_a_job():
    with pytest.raises(ChangesRefused, match=r"filters: 8, now 16.*this site takes no changes"):
        check_changes(described(), described(filters=16), accepted=True, allowed=False)
    assert check_changes(described(), described(), accepted=True, allowed=False) == []


def test_a_state_that_says_nothing_is_a_change_too():
    with pytest.raises(ChangesRefused, match=r"does not say what it was made with.*accept_changes"):
        check_changes(None, described(), accepted=False)
    with pytest.raises(ChangesRefused, match="this site takes no changes"):
        check_changes(None, described(), accepted=True, allowed=False)
    (line,) = check_changes(None, described(), accepted=True)
    assert "a version before 0.5" in line


@pytest.mark.parametrize("broken", [{}, {"settings": 1, "identity": {}}, {"settings": {}}, [1], 3])
def test_a_description_that_is_none_is_named(broken):
    with pytest.raises(ValueError, match="expected identity and settings"):
        check_changes(broken, described(), accepted=True)
