from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted

from bundle.evaluation.handler import REPORT_FILES, ReportHandler
from bundle.evaluation.metrics import SubsetScores
from bundle.evaluation.tables import read_csv
from bundle.modalities import BRATS_MODALITIES, all_subsets, presence
from bundle.regions import BRATS_REGIONS, labels_to_regions


def case_items(case: str, scanned: tuple[str, ...]) -> list[dict]:
    """Items of one case on a grid of anisotropic LAS voxels, one per subset it can form."""
    labels = torch.zeros(1, 14, 16, 6, dtype=torch.uint8)
    labels[0, 2:8, 3:9, 2:5] = 2
    labels[0, 3:6, 4:7, 2:4] = 4
    affine = torch.diag(torch.tensor([-1.0, 1.0, 3.0, 1.0], dtype=torch.float64))
    masks = MetaTensor(labels_to_regions(labels, BRATS_REGIONS), affine=affine)
    scans = torch.zeros(4, 14, 16, 6)
    scans[presence(scanned, BRATS_MODALITIES)] = torch.rand(1, 14, 16, 6) + 1
    return [
        {
            "image": masks.float(),
            "label": masks,
            "case": case,
            "present": presence(subset, BRATS_MODALITIES),
            "background": scans,
        }
        for subset in all_subsets(BRATS_MODALITIES)
        if set(subset) <= set(scanned)
    ]


def evaluate(items: list[dict], output_dir: Path, pictures: bool = True) -> ReportHandler:
    scores = SubsetScores(BRATS_REGIONS, BRATS_MODALITIES)
    handler = ReportHandler(output_dir, BRATS_MODALITIES, BRATS_REGIONS, scores, pictures)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=2),
        network=torch.nn.Identity(),
        postprocessing=AsDiscreted("pred", threshold=0.5),
        key_val_metric={"dice": scores},
        val_handlers=[handler],
    )
    evaluator.run()
    return handler


def test_an_evaluation_leaves_a_whole_report(tmp_path, capsys, caplog):
    items = case_items("full", BRATS_MODALITIES) + case_items("partial", ("t1", "t2"))
    with caplog.at_level(logging.INFO, logger="bundle.evaluation.handler"):
        evaluate(items, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(REPORT_FILES)
    assert all(str(tmp_path / name) in caplog.text for name in REPORT_FILES)
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out
    rows = read_csv(tmp_path / "scores.csv")
    assert len(rows) == (15 + 3) * 3
    assert {(row.dice, row.hd95) for row in rows} == {(1.0, 0.0)}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [entry["cases"] for entry in summary["subsets"].values()][:4] == [2, 1, 2, 1]
    for name in ("heatmap.png", "contact_sheet.png"):
        picture = imread(tmp_path / name)
        assert min(picture.shape[:2]) > 300
        # One whole number a colour: sorting rows of a picture takes seconds.
        channels = (255 * picture).round().astype(np.int64)
        assert len(np.unique(channels @ 256 ** np.arange(picture.shape[2]))) > 50


def test_slices_lie_upright_on_the_label_grid(tmp_path):
    handler = evaluate(case_items("a", ("t1", "t2")), tmp_path)
    (entry,) = handler._slices.values()
    assert sorted(entry.images) == ["t1", "t2"]
    assert sorted(entry.predictions) == ["t1", "t1+t2", "t2"]
    # Stored as LAS: columns already run to the patient's left, rows still run to anterior.
    expected = np.zeros((16, 14), np.uint8)
    expected[3:9, 2:8], expected[4:7, 3:6] = 2, 4
    assert np.array_equal(entry.truth, expected[::-1])
    assert np.array_equal(entry.predictions["t2"], entry.truth)
    assert entry.aspect == 1.0


def test_without_pictures_no_scan_is_needed_or_written(tmp_path):
    items = [
        {k: v for k, v in item.items() if k != "background"} for item in case_items("a", ("t1",))
    ]
    evaluate(items, tmp_path, pictures=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(REPORT_FILES[:-1])


def test_scans_off_the_label_grid_are_refused(tmp_path):
    items = [{**item, "background": item["background"][:, :5]} for item in case_items("a", ("t1",))]
    with pytest.raises(ValueError, match=r"case a: expected 'background' .* \(4, 14, 16, 6\), got"):
        evaluate(items, tmp_path)
