"""A phantom case on disk, whose files can be swapped."""

from __future__ import annotations

import pytest

from bundle.phantom.case import make_case
from bundle.phantom.data_set import save


@pytest.fixture(scope="session")
def phantoms():
    """Two cases of 32 voxels in memory: images by modality, and the label."""
    return [make_case(seed, 32, difficulty=0.5) for seed in (0, 2)]


@pytest.fixture
def write_phantom_case(tmp_path, phantoms):
    """Give write(case, number, swap=...): a datalist entry; `swap` maps a file to another's scan.

    Paths are relative to the temporary folder.
    """

    def write(case, number=0, swap=None, spacing_mm=2.0):
        images, labels = phantoms[number]
        names = {name: f"{case}/{case}_{name}.nii" for name in images}
        for name, file in names.items():
            voxels = images[(swap or {}).get(name, name)].astype("int16")
            (tmp_path / case).mkdir(exist_ok=True)
            save(voxels, (spacing_mm,) * 3, "LPS", tmp_path / file)
        label = f"{case}/{case}_seg.nii"
        save(labels, (spacing_mm,) * 3, "LPS", tmp_path / label)
        return {"case": case, "image": names, "label": label}

    return write
