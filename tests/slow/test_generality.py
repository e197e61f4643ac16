"""Other vocabularies by config alone, and the six real cases where they are at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import bundle
from bundle.phantom.data_set import write_phantom

pytestmark = pytest.mark.slow

BRATS_2021 = Path(
    os.environ.get("BRATS2021_DIR", Path(bundle.ROOT).parent / "shared" / "data" / "brats2021")
)


@pytest.mark.parametrize(
    ("modalities", "regions"),
    [
        (["t1", "adc"], {"lesion": [1, 2, 4]}),
        (["t1", "t1ce", "t2", "flair", "adc"], {"core": [1], "rim": [4], "oedema": [2]}),
    ],
    ids=["two modalities, one region", "five modalities, exclusive regions"],
)
def test_other_vocabularies_train_evaluate_and_segment(
    workflow, tiny, tmp_path, modalities, regions
):
    sections = {"training": 2, "validation": 1, "testing": 2}
    datalist = write_phantom(
        tmp_path / "data", sections, anatomy="simple", size=32, modalities=modalities
    )
    settings = tiny | {
        "datalist_file": str(datalist),
        "modalities": modalities,
        "regions": regions,
        "max_epochs": 1,
    }
    train = workflow(["train.json"], "train", **settings)
    train.run()
    train.finalize()
    evaluate = workflow(["train.json", "evaluate.json"], "train", **settings)
    evaluate.run()
    evaluate.finalize()
    summary = json.loads((Path(settings["output_dir"]) / "summary.json").read_text())
    assert len(summary["subsets"]) == 2 ** len(modalities) - 1
    assert set(summary["mean"]["dice"]) == set(regions)
    infer = workflow(["inference.json"], "infer", **(settings | {"dataset_dir": str(datalist)}))
    infer.run()
    infer.finalize()
    files = list(Path(settings["output_dir"]).glob("*_pred.nii.gz"))
    assert len(files) == 2
    written = {int(v) for f in files for v in np.unique(np.asanyarray(nib.load(f).dataobj))}
    # As the config says: a 4 is written as 3, whatever it stands for.
    renamed = {int(old): new for old, new in infer.parser["written_labels"].items()}
    labels = {value for values in regions.values() for value in values}
    assert written <= {0, *(renamed.get(value, value) for value in labels)}


@pytest.mark.skipif(
    not BRATS_2021.is_dir(),
    reason=f"needs six BraTS 2021 cases in {BRATS_2021}; BRATS2021_DIR names another folder",
)
def test_six_real_cases_scan_load_train_and_evaluate(workflow, tiny, tmp_path, capsys):
    from bundle.data.scan import scan

    datalist = tmp_path / "datalist.json"
    problems = scan(BRATS_2021, output=datalist, split=(0.5, 0.17, 0.33), check="headers")
    assert problems == []
    assert "6 usable cases" in capsys.readouterr().out
    settings = tiny | {"datalist_file": str(datalist), "spacing": [4.0] * 3, "check": "headers"}
    settings |= {"roi_size": [40] * 3, "max_epochs": 1}
    train = workflow(["train.json"], "train", **settings)
    train.run()
    train.finalize()
    more = {"evaluate_subsets": ["flair", "t1+t1ce+t2+flair"]}
    evaluate = workflow(["train.json", "evaluate.json"], "train", **(settings | more))
    evaluate.run()
    evaluate.finalize()
    summary = json.loads((Path(settings["output_dir"]) / "summary.json").read_text())
    assert summary["cases"] == 2
    assert (Path(settings["output_dir"]) / "contact_sheet.png").stat().st_size > 10_000
