"""The zip, unpacked in an empty folder and used by processes that know nothing else of us."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import onnxruntime
import pytest
import torch
from monai.bundle import ConfigParser

import bundle
from bundle.delivery.package import NAME, package
from bundle.delivery.trained_model import Trained

HERE = Path(__file__).parent
SCHEMA = Path(bundle.ROOT) / "tests" / "schema" / "meta_schema_20240725.json"
OVERLAY = """
filters: 4
blocks_down: [1, 1, 1]
deep_supervision: 2
spacing: [2.0, 2.0, 2.0]
roi_size: [32, 32, 32]
num_workers: 0
encoders: ENCODERS
"""

pytestmark = pytest.mark.slow


def unpack(folder: Path, encoders: str) -> Path:
    """Package random weights and unpack the zip into `folder / "unpacked"`."""
    overlay = folder / "small.yaml"
    overlay.write_text(OVERLAY.replace("ENCODERS", encoders))
    made = Trained(folder / "model.pt", (overlay,))
    torch.manual_seed(0)
    parser = ConfigParser(config=made.config("inference.json"))
    network = parser.get_parsed_content("network_def")
    torch.nn.init.normal_(network.hypernetwork.prompts)
    torch.nn.init.normal_(network.hypernetwork.output.weight, std=0.05)
    torch.save(network.state_dict(), made.weights)
    note = {**parser.get_parsed_content("made_for"), "prompts": {"source": "presence"}}
    (folder / "model.json").write_text(json.dumps(note))
    path = package(folder / "bundle.zip", str(made.weights), [str(overlay)], "noise")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    return unpack(tmp_path_factory.mktemp("package"), "joint")


def run(command: list[str], folder: Path, root: Path | None) -> str:
    """Run in `folder`, of our code only what is in `root` on Python's path; return the output."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"PYTHONWARNINGS": "ignore"} | ({"PYTHONPATH": str(root)} if root else {})
    folder.mkdir(exist_ok=True)
    ran = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    return ran.stdout + ran.stderr


@pytest.mark.parametrize("encoders", ["joint", pytest.param("separate", marks=pytest.mark.long)])
def test_monais_tools_take_the_unpacked_bundle_from_a_foreign_folder(encoders, phantom, tmp_path):
    folder = unpack(tmp_path, encoders)
    command = [str(HERE / "packaged_bundle.py"), str(folder), str(SCHEMA), str(phantom.parent)]
    said = run(command, tmp_path / "elsewhere", folder / NAME)
    count = len(torch.load(tmp_path / "model.pt"))
    for kind in ("train", "inference", "evaluation"):
        assert f"{kind}: {count} of {count} keys loaded, the network has {count}" in said
    assert said.rstrip().endswith("all is well")


def test_it_evaluates_where_it_lies_and_segments_from_elsewhere(unpacked, phantom, tmp_path):
    root, out = unpacked / NAME, tmp_path / "out"
    start = ["-m", "monai.bundle", "run", "--config_file"]
    places = ["--output_dir", str(out), "--dataset_dir"]
    here = [*start, "configs/evaluation.json", *places, str(phantom.parent)]
    said = run([*here, "--cache_dir", "$None"], root, None)
    assert "| Dice WT %" in said
    assert json.loads((out / "summary.json").read_text())["cases"] == 2
    config = str(root / "configs" / "inference.json")
    run([*start, config, *places, str(phantom)], tmp_path / "elsewhere", root)
    assert len(list(out.glob("*_pred.nii.gz"))) == 2


def test_two_scans_are_enough_and_it_exports(unpacked, phantom, tmp_path):
    root, case = unpacked / NAME, tmp_path / "p01"
    case.mkdir()
    scans = sorted(phantom.parent.rglob("*_t1ce.nii.gz"))[:1]
    scans += [scans[0].with_name(scans[0].name.replace("_t1ce", "_flair"))]
    for scan in scans:
        shutil.copy(scan, case / f"p01_{scan.name.rpartition('_')[2]}")
    config = str(root / "configs" / "inference.json")
    command = ["-m", "monai.bundle", "run", "--config_file", config, "--dataset_dir", str(case)]
    run([*command, "--output_dir", "out"], tmp_path / "elsewhere", root)
    written, scan = nib.load(tmp_path / "elsewhere/out/p01_pred.nii.gz"), nib.load(scans[0])
    assert written.shape == scan.shape
    assert written.get_data_dtype() == np.uint8
    run(["-m", "bundle", "export", "model.onnx"], tmp_path / "elsewhere", root)
    exported = onnxruntime.InferenceSession(
        tmp_path / "elsewhere" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    image = np.zeros((1, 4, 32, 32, 32), np.float32)
    present = np.array([[False, True, False, True]])
    (logits,) = exported.run(None, {"image": image, "present": present})
    assert logits.shape == (1, 3, 32, 32, 32)


def test_packaged_again_it_is_the_same_zip(unpacked, tmp_path):
    run(["-m", "bundle", "package", "again.zip"], tmp_path, unpacked / NAME)
    assert (tmp_path / "again.zip").read_bytes() == (unpacked.parent / "bundle.zip").read_bytes()


def test_the_zoos_own_checks_pass(unpacked, phantom, tmp_path):
    """What ci/verify_bundle.py does in its modes min and full, and ci/unit_tests/runner.py."""
    zoo = tmp_path / "zoo"
    root = Path(shutil.copytree(unpacked / NAME, zoo / "models" / NAME))
    (root / "eval").mkdir()
    shutil.copy(SCHEMA, root / "eval" / "schema.json")
    assert not list(root.glob("large_files.*"))
    for name in ("LICENSE", "configs/metadata.json", "models/model.pt", "configs/inference.json"):
        assert (root / name).is_file(), name
    assert max(path.stat().st_size for path in root.rglob("*") if path.is_file()) < 25e6
    metadata = json.loads((root / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    script = (
        "import sys, torch\n"
        f"root = 'models/{NAME}'\n"
        "sys.path.insert(0, root)\n"
        "from monai.bundle import *\n"
        "meta, config = root + '/configs/metadata.json', root + '/configs/inference.json'\n"
        "verify_metadata(meta_file=meta, filepath=root + '/eval/schema.json')\n"
        "logs = root + '/configs/logging.conf'\n"
        "made = create_workflow(workflow_type='inference', bundle_root=root, config_file=config,\n"
        "    logging_file=logs, meta_file=meta, dataset_dir=sys.argv[1])\n"
        "assert made.check_properties() == []\n"
        "given = {'meta_file': meta, 'config_file': config, 'bundle_root': root}\n"
        "verify_net_in_out(net_id='network_def', **given)\n"
        "ckpt_export(net_id='network_def', filepath=root + '/models/verify_model.ts',\n"
        "    ckpt_file=root + '/models/model.pt', **given)\n"
        "torch.jit.load(root + '/models/verify_model.ts')\n"
    )
    run(["-c", script, str(phantom.parent)], zoo, None)
    tests = zoo / "ci" / "unit_tests"
    tests.mkdir(parents=True)
    shutil.copy(HERE / "zoo_unit_tests.py", tests / f"test_{NAME}.py")
    said = run([str(tests / f"test_{NAME}.py")], zoo, None)
    assert "Ran 2 tests" in said
    assert said.rstrip().endswith("OK")
