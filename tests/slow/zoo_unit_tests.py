"""The bundle's unit test in the form that MONAI's model zoo asks for.

In a checkout of the zoo it is ci/unit_tests/test_brats_missing_modality_segmentation.py, which
ci/unit_tests/runner.py runs with the bundle in models/. Here test_package.py does so.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import unittest

import nibabel as nib
import numpy as np
from monai.bundle import ConfigWorkflow

ROOT = os.path.join("models", "brats_missing_modality_segmentation")
CASES = {"training": 3, "validation": 1, "testing": 1}
SHAPE = (40, 40, 40)


class TestMissingModalities(unittest.TestCase):
    """Train, evaluate and segment random cases, of which each lacks another modality."""

    def setUp(self) -> None:
        sys.path.insert(0, ROOT)
        self.folder = tempfile.mkdtemp()
        random = np.random.default_rng(0)
        datalist: dict[str, list[dict]] = {section: [] for section in CASES}
        for section, count in CASES.items():
            for number in range(count):
                case = f"{section}_{number}"
                absent = ("t1", "t1ce", "t2")[number]
                image = {
                    m: self.write(f"{case}_{m}", random.random(SHAPE))
                    for m in ("t1", "t1ce", "t2", "flair")
                    if m != absent
                }
                label = self.write(f"{case}_seg", random.choice([0, 1, 2, 4], SHAPE))
                datalist[section].append({"case": case, "image": image, "label": label})
        with open(os.path.join(self.folder, "datalist.json"), "w", encoding="utf-8") as file:
            json.dump(datalist, file)
        self.override = {
            "bundle_root": ROOT,
            "dataset_dir": self.folder,
            "output_dir": os.path.join(self.folder, "eval"),
            "ckpt_dir": os.path.join(self.folder, "models"),
        }

    def tearDown(self) -> None:
        sys.path.remove(ROOT)
        shutil.rmtree(self.folder)

    def write(self, name: str, voxels: np.ndarray) -> str:
        path = os.path.join(self.folder, f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(voxels.astype(np.float32), np.eye(4)), path)
        return path

    def run_workflow(self, names: list[str], kind: str, **override: object) -> None:
        workflow = ConfigWorkflow(
            workflow_type=kind,
            config_file=[os.path.join(ROOT, "configs", name) for name in names],
            logging_file=os.path.join(ROOT, "configs", "logging.conf"),
            meta_file=os.path.join(ROOT, "configs", "metadata.json"),
            **self.override | override,
        )
        workflow.initialize()
        assert workflow.check_properties() == []
        workflow.run()
        workflow.finalize()

    def test_train_eval_config(self) -> None:
        small = {"cache_dir": None, "num_workers": 0, "max_epochs": 1, "val_interval": 1}
        self.run_workflow(["train.json"], "train", **small)
        assert os.path.isfile(os.path.join(self.folder, "models", "model.pt"))
        self.run_workflow(["train.json", "evaluate.json"], "train", **small)
        assert os.path.isfile(os.path.join(self.folder, "eval", "scores.csv"))

    def test_infer_config(self) -> None:
        weights = os.path.join(ROOT, "models")
        self.run_workflow(["inference.json"], "infer", ckpt_dir=weights)
        written = os.path.join(self.folder, "eval", "testing_0_pred.nii.gz")
        assert nib.load(written).shape == SHAPE


if __name__ == "__main__":
    unittest.main()
