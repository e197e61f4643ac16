from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from bundle import __version__
from bundle.__main__ import main
from bundle.data.labels import read_labels
from bundle.data.marks import WRITTEN, accept, description_of, is_marked, mark_of
from bundle.data.volumes import CaseError

LABELS = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 3


def write(path, description, kind=nib.Nifti1Image):
    image = kind(LABELS, np.diag([1.0, 2.0, 3.0, 1.0]))
    image.header["descrip"] = description
    nib.save(image, path)
    return path


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_mark_names_program_version_and_kind_and_fits_the_header(kind):
    mark = mark_of(kind)
    assert mark == f"patchwork {__version__} {WRITTEN[kind]}"
    assert len(mark.encode()) < 80
    assert is_marked(mark)


@pytest.mark.parametrize(
    "description",
    ["", "6.0.5:b3b0dd2a", "a patchwork 0.5.0 prediction", "patchwork quilt", "prediction", "ITK"],
)
def test_what_other_programs_say_is_no_mark(description, tmp_path):
    assert not is_marked(description)
    path = write(tmp_path / "a_seg.nii.gz", description)
    assert description_of(nib.load(path)) == description
    assert np.array_equal(read_labels(path, "a", [1, 2]).labels, LABELS)


@pytest.mark.parametrize("name", ["p01_seg.nii.gz", "labels/p 01.nii"])
@pytest.mark.parametrize(
    "mark", [mark_of("pred"), "patchwork 0.9.1 prediction", mark_of("rebuilt")]
)
def test_what_inference_wrote_is_refused_as_ground_truth_whatever_it_is_called(
    name, mark, tmp_path
):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write(path, mark)
    with pytest.raises(
        CaseError, match=r"case a: .* is no ground truth, .*python -m bundle accept"
    ):
        read_labels(path, "a", [1, 2])


@pytest.mark.parametrize("name", ["p01_pred.nii.gz", "p01_pred.nii"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_an_accepted_file_is_the_same_volume_and_may_be_a_label(name, kind, tmp_path):
    path = write(tmp_path / name, mark_of("pred"), kind)
    before = nib.load(path)
    header = before.header.copy()
    assert main(["accept", str(path)]) == 0
    after = nib.load(path)
    assert description_of(after) == f"accepted, was {mark_of('pred')}"
    header["descrip"] = after.header["descrip"]
    assert after.header == header
    assert np.array_equal(read_labels(path, "a", [1, 2]).labels, LABELS)
    assert [found.name for found in tmp_path.iterdir()] == [name]


def test_only_a_marked_volume_can_be_accepted(tmp_path, capsys):
    path = write(tmp_path / "expert.nii.gz", "drawn by hand")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"expert\.nii\.gz has no mark .*'drawn by hand'"):
        accept(path)
    assert path.read_bytes() == before
    (tmp_path / "notes.nii").write_text("patchwork 0.5.0 prediction " * 40)
    assert main(["accept", str(tmp_path / "notes.nii")]) == 2
    assert "expected a NIfTI file" in capsys.readouterr().err
