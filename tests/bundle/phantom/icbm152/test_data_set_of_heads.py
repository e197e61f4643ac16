"""The data set of heads: what is written beside the cases, and which folder is taken for which."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

import bundle.phantom.data_set as phantom
from bundle.phantom.data_set import ensure_phantom, write_phantom

HEADS = {"sections": {"training": 2}, "spacing_mm": (6.0, 6.0, 6.0), "modalities": ("t1", "t2")}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("heads"), **HEADS)


def test_the_notice_of_the_template_lies_beside_the_cases(written, tmp_path):
    notice = (written.parent / "NOTICE.txt").read_text()
    assert "Copyright (C) 1993-2009 Louis Collins" in notice
    assert "No patient is in it" in notice
    write_phantom(tmp_path, {"training": 1}, anatomy="simple", size=24)
    assert not (tmp_path / "NOTICE.txt").exists()


def test_the_files_are_what_the_seed_makes(written):
    datalist = json.loads(written.read_text())
    assert datalist["phantom"]["anatomy"] == "icbm152"
    case = datalist["training"][1]
    image = nib.load(written.parent / case["image"]["t2"])
    assert image.shape == (28, 36, 28)
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    labels = np.asarray(nib.load(written.parent / case["label"]).dataobj)
    assert set(np.unique(labels)) <= {0, 1, 2, 4}


def test_asking_again_changes_nothing(written, monkeypatch):
    monkeypatch.setattr(phantom, "write_case", lambda *_: pytest.fail("it is there already"))
    assert ensure_phantom(written.parent, **HEADS) == str(written)


def test_another_orientation_and_naming_hold_the_same_head(written, tmp_path):
    other = write_phantom(
        tmp_path, **{**HEADS, "sections": {"training": 1}}, orientation="RAS", naming="brats2023"
    )
    turned = nib.load(tmp_path / json.loads(other.read_text())["training"][0]["image"]["t1"])
    plain = nib.load(written.parent / "Phantom_0000/Phantom_0000_t1.nii.gz")
    assert nib.aff2axcodes(turned.affine) == ("R", "A", "S")
    plain = nib.as_closest_canonical(plain)
    np.testing.assert_array_equal(np.asarray(turned.dataobj), np.asarray(plain.dataobj))
    np.testing.assert_allclose(turned.affine, plain.affine, atol=1e-5)


def test_a_folder_of_before_there_were_two_anatomies_is_a_simple_one(tmp_path):
    simple = {"sections": {"training": 1}, "anatomy": "simple", "size": 24}
    path = write_phantom(tmp_path, **simple)
    content = json.loads(path.read_text())
    del content["phantom"]["anatomy"]
    path.write_text(json.dumps(content))
    assert ensure_phantom(tmp_path, **simple) == str(path)
    with pytest.raises(ValueError, match="anatomy: expected icbm152, found simple"):
        ensure_phantom(tmp_path, **HEADS)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"anatomy": "mni"}, r"anatomy: expected one of \['icbm152', 'simple'\], got 'mni'"),
        ({"size": 48}, "got 'size', which is one of anatomy simple"),
        ({"difficulty": 1.0}, "got 'difficulty', which is one of anatomy simple"),
        ({"anatomy": "simple", "head": True}, "got 'head', which is one of anatomy icbm152"),
        ({"spacing_mm": (0.5, 0.5, 0.5)}, "voxel sizes from 1 to 6 mm, got"),
        ({"spacing_mm": (3, 3, 9)}, r"voxel sizes from 1 to 6 mm, got \[3.0, 3.0, 9.0\]"),
        ({"grid": "mni"}, r"grid: expected one of \['brain', 'brats'\], got 'mni'"),
        ({"grid": "brats"}, "grid brats: expected voxels of 1 mm and orientation LPS"),
        (
            {"grid": "brats", "spacing_mm": (1, 1, 1), "orientation": "RAS"},
            r"got \[1.0, 1.0, 1.0\] mm and RAS",
        ),
        ({"workers": 0}, "workers: expected a whole number from 1 on, got 0"),
        ({"scanner_seed": -1}, "scanner_seed: expected a whole number from 0 on, got -1"),
    ],
)
def test_a_wrong_parameter_is_named_before_anything_is_written(wrong, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        write_phantom(tmp_path / "new", **{**HEADS, **wrong})
    assert not (tmp_path / "new").exists()
