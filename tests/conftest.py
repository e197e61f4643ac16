"""Fixtures for all tests: small NIfTI volumes, written on the spot."""

from __future__ import annotations

import os

import nibabel as nib
import numpy as np
import pytest

SHAPE = (10, 20, 30)

# Before PyTorch comes: its threads must not spin while they wait. On a busy machine the tests'
# tiny volumes otherwise take ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture
def write_volume(tmp_path):
    """Give write(name, voxels, affine): voxels are an array, or a seed for noise from 1 to 2."""

    def write(name, voxels=0, affine=None):
        if isinstance(voxels, int):
            voxels = np.random.default_rng(voxels).uniform(1, 2, SHAPE).astype(np.float32)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
        return path

    return write


@pytest.fixture
def write_case(write_volume):
    """Give write(case, modalities): a datalist item, its label a box of oedema."""

    def write(case, modalities):
        files = {
            m: str(write_volume(f"{case}/{case}_{m}.nii.gz", i)) for i, m in enumerate(modalities)
        }
        label = np.pad(np.full((6, 12, 18), 2, np.uint8), ((2, 2), (4, 4), (6, 6)))
        return {
            "case": case,
            "image": files,
            "label": str(write_volume(f"{case}/seg.nii.gz", label)),
        }

    return write
