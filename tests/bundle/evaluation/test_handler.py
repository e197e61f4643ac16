from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted

from bundle.evaluation.handler import REPORT_FILES, ReportHandler
from bundle.evaluation.metrics import Score, SubsetScores
from bundle.evaluation.summary import summarise
from bundle.evaluation.tables import markdown_table, read_csv, write_csv, write_json
from bundle.modalities import BRATS_MODALITIES, all_subsets, presence, subset_name
from bundle.regions import BRATS_REGIONS, labels_to_regions

SMALL = ("ct", "pet")
GIVEN, WITHHELD, DASH = "\N{BLACK CIRCLE}", "\N{WHITE CIRCLE}", "\N{EN DASH}"


def small_rows(hd95: float = 2.0) -> list[Score]:
    return [
        Score("a", "ct", "tumour", 0.5, hd95),
        Score("b", "ct", "tumour", 0.7, hd95 * 2),
        Score("a", "ct+pet", "tumour", 0.9, hd95),
    ]


def brats_rows() -> list[Score]:
    return [
        Score("a", subset_name(subset, BRATS_MODALITIES), region, 0.25 * len(subset), 1.0)
        for subset in all_subsets(BRATS_MODALITIES)
        for region in BRATS_REGIONS
    ]


def test_summary_averages_cases_within_a_subset_and_then_subsets():
    summary = summarise(small_rows(), SMALL, ["tumour"])
    assert summary["cases"] == 2
    assert summary["subsets"]["ct"] == {
        "cases": 2,
        "dice": {"tumour": pytest.approx(0.6)},
        "hd95": {"tumour": 3.0},
    }
    assert summary["subsets"]["pet"] == {
        "cases": 0,
        "dice": {"tumour": None},
        "hd95": {"tumour": None},
    }
    assert summary["mean"]["dice"]["tumour"] == pytest.approx(0.75)
    assert summary["mean"]["hd95"]["tumour"] == 2.5
    assert summary["mean"]["dice_all"] == pytest.approx(0.75)
    assert summary["worst_subset"] == {"name": "ct", "dice": pytest.approx(0.6)}


def test_brats_subsets_and_regions_stand_in_the_papers_order():
    summary = summarise(brats_rows(), BRATS_MODALITIES, list(BRATS_REGIONS))
    names = list(summary["subsets"])
    assert (len(names), names[0], names[-1]) == (15, "t2", "t1+t1ce+t2+flair")
    assert summary["regions"] == ["WT", "TC", "ET"]
    assert summary["mean"]["dice_all"] == pytest.approx((4 * 1 + 6 * 2 + 4 * 3 + 4) / 4 / 15)


def test_rows_of_another_vocabulary_are_refused():
    with pytest.raises(ValueError, match="at least one score row, got none"):
        summarise([], SMALL, ["tumour"])
    with pytest.raises(
        ValueError, match=r"case a: expected a subset of 'ct[+]pet'.*got subset 'mr'"
    ):
        summarise([Score("a", "mr", "tumour", 1.0, 0.0)], SMALL, ["tumour"])


def test_table_of_a_small_vocabulary():
    table = markdown_table(summarise(small_rows(), SMALL, ["tumour"]))
    expected = [
        "| ct             |    1 |   0 |    1 | mean |",
        "| :------------- | ---: | --: | ---: | ---: |",
        "| pet            |    0 |   1 |    1 |      |",
    ]
    marked = [line.replace("1", GIVEN).replace("0", WITHHELD) for line in expected]
    assert table.splitlines() == [
        *marked,
        f"| Dice tumour %  | 60.0 |   {DASH} | 90.0 | 75.0 |",
        f"| HD95 tumour mm |  3.0 |   {DASH} |  2.0 |  2.5 |",
    ]
    assert table.endswith("|\n")


def test_brats_table_is_aligned_and_fits_a_terminal():
    lines = markdown_table(
        summarise(brats_rows(), BRATS_MODALITIES, list(BRATS_REGIONS))
    ).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= 130
    assert {line.count("|") for line in lines} == {18}
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [line[0] for line in cells[:5]] == ["flair", ":-----------", "t1", "t1ce", "t2"]
    first, last = ([line[i] for line in (cells[0], *cells[2:5])] for i in (1, 15))
    assert first == [WITHHELD] * 3 + [GIVEN]
    assert last == [GIVEN] * 4
    assert [line[0] for line in cells[5:9]] == [
        "Dice WT %",
        "Dice TC %",
        "Dice ET %",
        "Dice mean %",
    ]
    assert [cells[8][1], cells[8][15], cells[8][16]] == ["25.0", "100.0", "53.3"]


def test_table_leaves_out_distances_that_were_not_computed():
    summary = summarise(small_rows(hd95=math.nan), SMALL, ["tumour"])
    assert summary["mean"]["hd95"] == {"tumour": None}
    assert "HD95" not in markdown_table(summary)


def test_csv_keeps_every_digit(tmp_path):
    rows = [Score('c,"1"', "ct", "tumour", 2 / 3, 0.1), Score("ä", "ct+pet", "tumour", 1.0, 373.13)]
    write_csv(rows, tmp_path / "deep" / "scores.csv")
    assert read_csv(tmp_path / "deep" / "scores.csv") == rows
    write_csv(small_rows(math.nan), tmp_path / "nan.csv")
    assert math.isnan(read_csv(tmp_path / "nan.csv")[0].hd95)


def test_json_is_strict_and_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "summary.json"
    summary = summarise(small_rows(math.nan), SMALL, ["tumour"])
    write_json(summary, path)
    assert json.loads(path.read_text()) == summary
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json({"dice": math.nan}, path)
    assert json.loads(path.read_text()) == summary
    assert list(tmp_path.iterdir()) == [path]


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
        # Of every fourth line and column: to sort all the pixels takes seconds.
        seen = picture[::4, ::4].reshape(-1, picture.shape[2])
        assert len(np.unique(seen, axis=0)) > 50


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
