from __future__ import annotations

import json
import logging

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import AsDiscrete

from bundle.inference.temperatures import (
    Calibrated,
    TemperatureNote,
    Temperatures,
    read_temperatures,
)
from bundle.modalities import all_subsets, subset_name

NAMES, REGIONS = ("t1", "t2", "pet"), ("A", "B")
PRESENT = torch.tensor([True, False, True])


def table(names=NAMES, value=1.0, **others) -> dict[str, dict[str, float]]:
    """`value` for every subset and region; others by subset, '+' written as '_'."""
    values = {subset_name(s, names): dict.fromkeys(REGIONS, value) for s in all_subsets(names)}
    return values | {name.replace("_", "+"): row for name, row in others.items()}


def made(**others) -> Temperatures:
    return Temperatures(NAMES, REGIONS, table(**others))


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    path.with_suffix(".json").write_text(json.dumps({"spacing": [1.0]}))
    return path


def test_the_temperature_is_that_of_the_subset_and_the_region():
    temperatures = made(t1_pet={"A": 2.0, "B": 0.5})
    assert temperatures.of(PRESENT).tolist() == [2.0, 0.5]
    logits = torch.tensor([[[[1.0]]], [[[-2.0]]]])
    cooled = temperatures.calibrate(logits.sigmoid(), PRESENT)
    torch.testing.assert_close(cooled.logit().flatten(), torch.tensor([0.5, -4.0]))
    assert temperatures.cool(logits, PRESENT).flatten().tolist() == [0.5, -4.0]
    assert torch.equal(temperatures.calibrate(logits.sigmoid(), ~PRESENT), logits.sigmoid())


@pytest.mark.parametrize("value", [0.05, 0.7, 3.0, 20.0])
def test_no_voxel_changes_sides_of_one_half_and_0_stays(value):
    half = torch.tensor(0.5)
    below, above = (torch.nextafter(half, torch.tensor(end)) for end in (0.0, 1.0))
    ends = torch.stack([half, below, above, torch.tensor(0.0), torch.tensor(1.0)])
    tiny = torch.tensor([1e-45, 1e-9, 1 - 6e-8])
    p = torch.cat([ends, tiny, torch.rand(2040, generator=torch.Generator().manual_seed(0))])
    p = p.reshape(1, 8, 16, 16).expand(2, -1, -1, -1)
    found = made(t1_pet={"A": value, "B": 1.0}).calibrate(p, PRESENT)
    threshold = AsDiscrete(threshold=0.5)
    assert torch.equal(threshold(found), threshold(p))
    assert torch.equal(found == 0, p == 0) or value < 1  # a small T may round to 0
    assert not found[:, p[0] == 0].any()
    assert found.isfinite().all()
    assert torch.equal(found[1], p[1])
    assert not torch.equal(found[0], p[0])
    order = p[0].flatten().argsort()
    assert (found[0].flatten()[order].diff() >= 0).all()


def test_a_case_keeps_its_probabilities_and_its_grid():
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))
    p = MetaTensor(torch.full((2, 2, 2, 2), 0.8), affine=affine, meta={"case": "a"})
    item = {"pred": p, "present": PRESENT}
    found = Calibrated("pred", "probabilities", made(value=2.0))(item)
    assert found["pred"] is p
    assert torch.equal(torch.as_tensor(p), torch.full((2, 2, 2, 2), 0.8))
    torch.testing.assert_close(float(found["probabilities"][0, 0, 0, 0]), 2 / 3)
    assert torch.equal(found["probabilities"].affine, affine.double())
    assert found["probabilities"].meta["case"] == "a"
    assert Calibrated("pred", "probabilities")(item)["probabilities"] is p


@pytest.mark.parametrize("names", [("t1", "t2"), NAMES, ("t1", "t1ce", "t2", "flair")])
def test_what_is_written_is_read_and_the_rest_of_the_note_stays(weights, names):
    note = TemperatureNote(weights)
    note.open()
    assert read_temperatures(weights, names, REGIONS) is None
    values = table(names, 1.5)
    note.write(values, 4)
    assert read_temperatures(weights, names, REGIONS) == Temperatures(names, REGIONS, values)
    content = json.loads(weights.with_suffix(".json").read_text())
    assert content["spacing"] == [1.0]
    assert content["temperatures"]["cases"] == 4


def test_other_weights_are_refused(weights, caplog):
    caplog.set_level(logging.INFO)
    note = TemperatureNote(weights)
    note.open()
    note.write(table(), 1)
    weights.write_bytes(b"others")
    with pytest.raises(ValueError, match=r"fitted for other weights .*--calibrated false"):
        read_temperatures(weights, NAMES, REGIONS)
    with pytest.raises(ValueError, match=r"was written anew while it was being calibrated"):
        note.write(table(), 1)
    weights.write_bytes(b"weights")
    assert read_temperatures(weights, NAMES, REGIONS) is not None
    assert "probabilities are calibrated" in caplog.text


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (None, "temperature for each of the 7 subsets of t1"),
        (table(("t1", "t2")), "temperature for each of the 7 subsets of t1"),
        (table(pet={"A": 1.0}), r"each of the regions \['A', 'B'\], got others"),
        (table(pet={"A": 1.0, "B": 0.0}), "from 0.05 to 20.0, got 0.0 for B of pet"),
        (table(pet={"A": float("nan"), "B": 1.0}), "got nan for A of pet"),
        (table(pet={"A": "1.0", "B": 1.0}), "got '1.0' for A of pet"),
        (table(pet={"A": True, "B": 1.0}), "got True for A of pet"),
    ],
)
def test_what_no_calibration_writes_is_refused(weights, values, said):
    note = TemperatureNote(weights)
    note.open()
    note.write(values if values is not None else {}, 1)
    with pytest.raises(ValueError, match=said):
        read_temperatures(weights, NAMES, REGIONS)


def test_weights_and_note_must_be_there_before_the_work_starts(weights):
    weights.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match=r"found no .*model\.json\. Training writes both"):
        TemperatureNote(weights).open()
    assert read_temperatures(weights, NAMES, REGIONS) is None
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"found no .*model\.pt"):
        TemperatureNote(weights).open()
    assert read_temperatures(weights, NAMES, REGIONS) is None
