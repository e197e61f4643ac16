"""What MONAI's own tools ask of a bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from monai.bundle import verify_metadata, verify_net_in_out

import bundle

CONFIGS = Path(bundle.ROOT) / "configs"
SCHEMA = Path(bundle.ROOT) / "tests" / "schema" / "meta_schema_20240725.json"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["train.json"], "train"),
        (["train.json", "method_modality_dropout.yaml"], "train"),
        (["train.json", "method_full_only.yaml"], "train"),
        (["train.json", "method_specialist.yaml"], "train"),
        (["train.json", "method_lckd.yaml"], "train"),
        (["inference.json", "method_lckd.yaml"], "infer"),
        (["train.json", "method_gmd.yaml"], "train"),
        (["inference.json", "method_gmd.yaml"], "infer"),
        (["train.json", "pretrain.yaml"], "train"),
        (["train.json", "pretrain.yaml", "demo.yaml"], "train"),
        (["train.json", "pretrain.yaml", "benchmark.yaml"], "train"),
        (["train.json", "demo.yaml"], "train"),
        (["train.json", "brats2018.yaml"], "train"),
        (["train.json", "evaluate.json"], "train"),
        (["train.json", "demo.yaml", "evaluate.json"], "train"),
        (["inference.json"], "infer"),
        (["inference.json", "method_modality_dropout.yaml"], "infer"),
        (["inference.json", "method_full_only.yaml"], "infer"),
        (["inference.json", "method_specialist.yaml"], "infer"),
        (["inference.json", "demo.yaml", "demo_inference.yaml"], "infer"),
    ],
)
def test_no_required_property_is_missing(workflow, tiny, names, kind):
    assert workflow(names, kind, **tiny).check_properties() == []


def test_metadata_fits_the_schema(tmp_path):
    schema = shutil.copy(SCHEMA, tmp_path / "schema.json")
    verify_metadata(meta_file=str(CONFIGS / "metadata.json"), filepath=schema, create_dir=False)


@pytest.mark.parametrize("name", ["train.json", "inference.json"])
def test_network_does_what_the_metadata_say(name):
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / name),
        device="cpu",
        n=2,
    )


def run_bundle(folder: Path, *names: str, **overrides: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m monai.bundle run` as a person would, from `folder`."""
    files = [str(CONFIGS / name) for name in names]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(files)]
    for name, value in overrides.items():
        command += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_demo_trains_evaluates_and_segments_from_a_foreign_folder(tmp_path):
    shrunk = {
        "bundle_root": bundle.ROOT,
        "dataset_dir": str(tmp_path / "phantom"),
        # A head takes three seconds.
        "datalist_file#counts": {"training": 8, "validation": 1, "testing": 2},
        "output_dir": str(tmp_path / "demo"),
        "ckpt_dir": str(tmp_path / "demo" / "models"),
        "cache_dir": str(tmp_path / "demo" / "cache"),
        "filters": 4,
        "max_epochs": 1,
        "val_interval": 1,
    }
    pretrained = run_bundle(tmp_path, "train.json", "pretrain.yaml", "demo.yaml", **shrunk)
    assert pretrained.returncode == 0, pretrained.stdout + pretrained.stderr

    start = str(tmp_path / "demo" / "models" / "pretrained.ckpt")
    trained = run_bundle(tmp_path, "train.json", "demo.yaml", **shrunk, pretrained_file=start)
    assert "parameters start from" in trained.stdout
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "train_loss" in trained.stdout

    evaluated = run_bundle(tmp_path, "train.json", "demo.yaml", "evaluate.json", **shrunk)
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    assert "| Dice WT %" in evaluated.stdout
    names = {"scores.csv", "summary.json", "table.md", "heatmap.png", "contact_sheet.png"}
    assert names <= {path.name for path in (tmp_path / "demo").iterdir()}
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert len(summary["subsets"]) == 15
    assert summary["cases"] == 2
    assert summary["nsd_tolerance_mm"] == 1.0

    source = str(tmp_path / "phantom" / "datalist.json")
    changed = shrunk | {"dataset_dir": source, "output_dir": str(tmp_path / "segmentations")}
    changed = {
        k: v
        for k, v in changed.items()
        if k not in ("max_epochs", "val_interval", "datalist_file#counts")
    }
    segmented = run_bundle(tmp_path, "inference.json", "demo.yaml", **changed)
    assert segmented.returncode == 0, segmented.stdout + segmented.stderr
    assert len(list((tmp_path / "segmentations").glob("*_pred.nii.gz"))) == 2


def test_missing_weights_are_said_in_one_sentence(tmp_path, phantom, tiny):
    chosen = {k: tiny[k] for k in ("spacing", "roi_size", "filters", "blocks_down", "ckpt_dir")}
    chosen |= {"dataset_dir": str(phantom), "output_dir": str(tmp_path / "out")}
    failed = run_bundle(tmp_path, "inference.json", **chosen, deep_supervision=2)
    assert failed.returncode != 0
    assert f"expected trained weights in {tiny['ckpt_dir']}/model.pt" in failed.stderr
