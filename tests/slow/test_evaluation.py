"""The whole evaluation, given a network whose right answer is known."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow

# Sees WT only in flair, TC only in t2 and ET only in t1ce: a channel out of place, a region out of
# place or a prediction out of place each costs Dice.
ORACLE = """
import torch

class Oracle(torch.nn.Module):
    def forward(self, image, present=None):
        t1, t1ce, t2, flair = image.unbind(1)
        return torch.stack([t2, flair, t1ce], 1) * 1000 - 1
"""
# Sees the same with doubt: its logits are those scans, times a weight that is far too large.
SOFT = """
import torch

class Soft(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(8.0))

    def forward(self, image, present=None):
        t1, t1ce, t2, flair = image.unbind(1)
        return self.weight * (torch.stack([t2, flair, t1ce], 1) - 0.4 + t1 / 3)
"""
REGIONS = {"TC": (1, 4), "WT": (1, 2, 4), "ET": (4,)}
SHOWN_BY = {"WT": "flair", "TC": "t2", "ET": "t1ce"}


def write_data(folder: Path, case: str = "a") -> Path:
    """Write one case in LPS whose t2, flair and t1ce are bright in TC, WT and ET alone."""
    shape, affine = (24, 28, 20), np.diag([-1.0, -1.0, 1.0, 1.0])
    labels = np.zeros(shape, np.uint8)
    labels[6:14, 9:21, 5:12], labels[7:13, 10:17, 6:11], labels[8:10, 11:14, 7:9] = 2, 1, 4
    brain = np.zeros(shape, bool)
    brain[2:22, 2:26, 2:18] = True
    folder.mkdir()
    # Texture: a volume of one value would count as absent, one of a handful as a label.
    rows = np.arange(24)[:, None, None] / 24
    for name, values in {"t1": (), **{SHOWN_BY[r]: v for r, v in REGIONS.items()}}.items():
        voxels = (100 + ord(case) + rows + 500 * np.isin(labels, values)) * brain
        nib.save(
            nib.Nifti1Image(voxels.astype(np.float32), affine), folder / f"{case}_{name}.nii.gz"
        )
    nib.save(nib.Nifti1Image(labels, affine), folder / f"{case}_seg.nii.gz")
    names = ("t1", "t1ce", "t2", "flair")
    item = {"case": case, "image": {m: f"{case}_{m}.nii.gz" for m in names}}
    path = folder / "datalist.json"
    path.write_text(json.dumps({"testing": [item | {"label": f"{case}_seg.nii.gz"}]}))
    return path


@pytest.fixture
def evaluate(workflow, tiny, tmp_path, monkeypatch):
    """Give evaluate(**overrides) -> summary, with the oracle in place of a trained network."""
    (tmp_path / "oracle_network.py").write_text(ORACLE)
    monkeypatch.syspath_prepend(tmp_path)
    datalist = write_data(tmp_path / "data")

    def run(**overrides):
        settings = tiny | {
            "datalist_file": str(datalist),
            "spacing": [1.0] * 3,
            "roi_size": [16] * 3,
            "network_def": {"_target_": "oracle_network.Oracle"},
            "validate#handlers#0#_disabled_": True,
        }
        built = workflow(["train.json", "evaluate.json"], "train", **(settings | overrides))
        built.run()
        built.finalize()
        return json.loads((Path(settings["output_dir"]) / "summary.json").read_text())

    return run


def test_a_perfect_network_scores_perfectly_where_it_can_see(evaluate):
    summary = evaluate()
    assert len(summary["subsets"]) == 15
    for name, scores in summary["subsets"].items():
        for region, modality in SHOWN_BY.items():
            seen = modality in name.split("+")
            assert scores["dice"][region] == (1.0 if seen else 0.0), (name, region)
            assert scores["hd95"][region] == (0.0 if seen else 373.13), (name, region)


def test_small_regions_can_be_emptied_and_the_difference_is_told(evaluate, tmp_path):
    scores = evaluate(min_voxels={"ET": 13})["subsets"]["t1+t1ce+t2+flair"]["dice"]
    assert scores == {"TC": 1.0, "WT": 1.0, "ET": 0.0}
    reference = (tmp_path / "out" / "scores.csv").rename(tmp_path / "before.csv")
    again = evaluate(min_voxels={"ET": 12}, reference=str(reference))
    assert again["subsets"]["t1ce"]["dice"]["ET"] == 1.0
    text = (tmp_path / "out" / "reference.md").read_text()
    assert "Paired with before.csv: 1 of its 1 cases, 45 scores." in text
    whole = next(line.split("|") for line in text.splitlines() if re.match(r"\| ET +\| +4 ", line))
    assert [cell.strip() for cell in whole[3:6]] == ["100.0", "0.0", "+100.0"]


def test_no_picture_is_written_when_none_is_wanted(evaluate, tmp_path):
    evaluate(pictures="false")
    assert (tmp_path / "out" / "heatmap.png").exists()
    assert not (tmp_path / "out" / "contact_sheet.png").exists()


def test_calibration_changes_probabilities_and_uncertainty_but_no_segmentation(
    workflow, tiny, tmp_path, monkeypatch, capsys
):
    (tmp_path / "soft_network.py").write_text(SOFT)
    monkeypatch.syspath_prepend(tmp_path)
    items = []
    for case in "abc":
        (item,) = json.loads(write_data(tmp_path / case, case).read_text())["testing"]
        image = {name: f"{case}/{file}" for name, file in item["image"].items()}
        items.append(item | {"image": image, "label": f"{case}/{item['label']}"})
    testing, validation = items[:1], items[1:]
    datalist = tmp_path / "datalist.json"
    datalist.write_text(json.dumps({"testing": testing, "validation": validation}))
    weights, note = tmp_path / "models" / "model.pt", tmp_path / "models" / "model.json"
    weights.parent.mkdir()
    torch.save({"weight": torch.tensor(8.0)}, weights)
    note.write_text(json.dumps({"modalities": ["t1", "t1ce", "t2", "flair"]}))
    shared = {"spacing": [1.3, 0.7, 1.9], "network_def": {"_target_": "soft_network.Soft"}}
    settings = tiny | shared | {"datalist_file": str(datalist)}
    names = ["train.json", "calibrate.yaml"]
    built = workflow(names, "train", **settings)
    built.run()
    built.finalize()
    report = json.loads((Path(settings["output_dir"]) / "calibration.json").read_text())
    assert len(report["temperatures"]) == 15
    whole = [row for row in report["errors"] if row["scans"] == 0]
    assert all(row["held_out"]["nll"] < row["before"]["nll"] for row in whole)
    assert "| WT     | any   |" in capsys.readouterr().out
    stored = json.loads(note.read_text())["temperatures"]
    assert stored["weights"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert stored["subsets"] == report["temperatures"]

    keys = json.loads((Path(__file__).parents[2] / "configs/inference.json").read_text())
    asked = {"save_probabilities": True, "save_uncertainty": True, "section": "testing"}
    asked |= {"dataset_dir": str(datalist), "check": "none"}
    inference = {k: v for k, v in settings.items() if k in keys} | asked

    def segment(**overrides):
        place = tmp_path / f"out_{len(list(tmp_path.iterdir()))}"
        built = workflow(["inference.json"], "inference", **(inference | overrides))
        built.parser["output_dir"] = str(place)
        built.run()
        built.finalize()
        return {
            kind: nib.load(place / f"a_{kind}.nii.gz").get_fdata()
            for kind in ("pred", "probabilities", "uncertainty")
        }

    own, calibrated = segment(calibrated="false"), segment()
    np.testing.assert_array_equal(own["pred"], calibrated["pred"])
    assert 0 < (own["pred"] != 0).mean() < 0.5
    p, q = own["probabilities"], calibrated["probabilities"]
    np.testing.assert_array_equal(p >= 0.5, q >= 0.5)
    assert not q[p == 0].any()
    assert np.abs(p - q).max() > 0.05
    assert np.abs(own["uncertainty"] - calibrated["uncertainty"]).max() > 0.05
    torch.save({"weight": torch.tensor(7.0)}, weights)
    with pytest.raises(RuntimeError) as refused:
        segment()
    assert "fitted for other weights" in repr(refused.getrepr(style="native"))
    segment(calibrated=False)
    datalist.write_text(json.dumps({"testing": testing, "validation": []}))
    with pytest.raises(RuntimeError) as refused:
        workflow(names, "train", **settings).run()
    assert "got none in the datalist" in repr(refused.getrepr(style="native"))
