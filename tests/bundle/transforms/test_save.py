from __future__ import annotations

import json
from contextlib import suppress

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor, decollate_batch
from monai.transforms import SaveImage

from bundle.data.marks import description_of, mark_of
from bundle.transforms.load import LoadModalitiesd
from bundle.transforms.outputs import case_file_name
from bundle.transforms.save import in_place_writer

AFFINE = np.array([[0, 0, 2.0, 3], [-1, 0, 0, 5], [0, 1.5, 0, 7], [0, 0, 0, 1]])


def save(volume, folder, kind="pred", overwrite=False, dtype=np.float32):
    SaveImage(
        output_dir=folder,
        output_postfix=kind,
        separate_folder=False,
        resample=False,
        print_log=False,
        output_dtype=dtype,
        writer=in_place_writer(kind, overwrite),
        output_name_formatter=case_file_name,
    )(volume)
    return folder / f"{volume.meta['case']}_{kind}.nii.gz"


def scan(path, shape, qform, sform, unit=2):
    """Write a scan whose forms are (affine, code), None = not set."""
    voxels = np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32)
    image = nib.Nifti1Image(voxels, AFFINE)
    image.set_sform(*sform)
    image.set_qform(*qform)
    image.header["xyzt_units"] = unit
    nib.save(image, path)
    return path


def loaded(source, case="p"):
    """Load a case as the evaluator gets it: through a data loader and back."""
    item = LoadModalitiesd("image", ("t1", "t2"))({"image": source, "case": case})
    return decollate_batch(next(iter(DataLoader([item], batch_size=1))))[0]["image"]


def shifted(millimetres):
    moved = AFFINE.copy()
    moved[1, 3] += millimetres
    return moved


@pytest.mark.parametrize(
    ("qform", "sform"),
    [
        ((shifted(20), 1), (AFFINE, 2)),
        ((AFFINE, 3), (None, 0)),
        ((None, 0), (shifted(-4), 4)),
        ((None, 0), (None, 0)),
    ],
)
@pytest.mark.parametrize("unit", [0, 2])
def test_what_is_written_lies_where_the_scan_lies_whichever_form_a_viewer_takes(
    qform, sform, unit, tmp_path
):
    path = scan(tmp_path / "p_t1.nii.gz", (4, 5, 6), qform, sform, unit)
    image = loaded({"t1": path})
    for kind, volume in (("pred", image[:1]), ("probabilities", image)):
        written, given = nib.load(save(volume, tmp_path, kind)), nib.load(path)
        for field in ("qform_code", "sform_code", "xyzt_units"):
            assert int(written.header[field]) == int(given.header[field])
        # A form whose code is 0 is none, whatever its numbers are.
        for form in ("get_qform", "get_sform"):
            found, expected = (getattr(each, form)(coded=True)[0] for each in (written, given))
            assert (found is None) is (expected is None)
            if expected is not None:
                np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_allclose(written.affine, given.affine, atol=1e-5)


def test_of_several_files_the_first_in_order_gives_the_header(tmp_path):
    first = scan(tmp_path / "a.nii.gz", (4, 5, 6), (shifted(20), 1), (AFFINE, 2))
    second = scan(tmp_path / "b.nii.gz", (4, 5, 6), (AFFINE, 4), (AFFINE, 3))
    for files, codes in (
        ({"t1": first, "t2": second}, (1, 2)),
        ({"t1": second, "t2": first}, (4, 3)),
    ):
        written = nib.load(save(loaded(files)[:1], tmp_path, overwrite=True))
        assert (int(written.header["qform_code"]), int(written.header["sform_code"])) == codes


def test_a_4d_file_gives_its_forms_too(tmp_path):
    path = scan(tmp_path / "p.nii.gz", (4, 5, 6, 2), (shifted(20), 1), (AFFINE, 2))
    order = {"name": "x", "modality": {"0": "t1", "1": "t2"}, "training": [], "test": [path.name]}
    (tmp_path / "dataset.json").write_text(json.dumps(order))
    written = nib.load(save(loaded(path)[:1], tmp_path))
    np.testing.assert_allclose(written.get_qform(), shifted(20), atol=1e-5)


@pytest.mark.parametrize("change", ["another grid", "no forms", "plain metadata"])
def test_off_the_scan_s_grid_both_forms_are_the_affine(change, tmp_path):
    path = scan(tmp_path / "p_t1.nii.gz", (4, 5, 6), (shifted(20), 1), (AFFINE, 2))
    image = loaded({"t1": path})[:1]
    if change == "another grid":
        image.affine = torch.as_tensor(AFFINE) @ torch.diag(torch.tensor([2.0, 2, 2, 1]).double())
    elif change == "no forms":
        del image.meta["forms"]
    else:
        image = MetaTensor(image.as_tensor(), affine=torch.eye(4), meta={"case": "p"})
    written = nib.load(save(image, tmp_path))
    for form in (written.get_qform(), written.get_sform(), written.affine):
        np.testing.assert_allclose(form, image.affine, atol=1e-5)
    assert int(written.header["qform_code"]) == int(written.header["sform_code"]) == 1


@pytest.mark.parametrize("shape", [(4, 5, 1), (4, 1, 6), (1, 5, 1), (1, 1, 1), (4, 5, 6)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_volume_keeps_its_three_dimensions_however_thin(shape, channels, tmp_path):
    volume = MetaTensor(torch.rand(channels, *shape), meta={"case": "p"})
    written = nib.load(save(volume, tmp_path))
    assert written.shape == (shape if channels == 1 else (*shape, 3))
    found = np.asanyarray(written.dataobj).reshape(*shape, channels)
    np.testing.assert_array_equal(np.moveaxis(found, -1, 0), volume.numpy())


def test_the_header_says_who_wrote_it(tmp_path):
    volume = MetaTensor(torch.ones(1, 2, 2, 2), meta={"case": "p"})
    for kind in ("pred", "uncertainty"):
        assert description_of(nib.load(save(volume, tmp_path, kind))) == mark_of(kind)
    with pytest.raises(KeyError, match="segmentation"):
        in_place_writer("segmentation")


def test_a_file_that_is_there_is_replaced_only_if_that_is_asked(tmp_path):
    first, second = (
        MetaTensor(torch.full((1, 2, 2, 2), v), meta={"case": "p"}) for v in (1.0, 2.0)
    )
    path = save(first, tmp_path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match=r"p_pred\.nii\.gz is there already .*--overwrite true"):
        save(second, tmp_path)
    assert path.read_bytes() == before
    save(second, tmp_path, overwrite=True)
    assert float(nib.load(path).get_fdata().max()) == 2
    assert save(first, tmp_path / "again").read_bytes() == before


class Killed(BaseException):
    """As when the process ends in the middle of a write."""


@pytest.mark.parametrize("there", [True, False])
def test_half_a_file_never_bears_the_name(there, tmp_path, monkeypatch):
    volume = MetaTensor(torch.ones(1, 8, 8, 8), meta={"case": "p"})
    path = save(volume, tmp_path) if there else tmp_path / "p_pred.nii.gz"
    before = path.read_bytes() if there else None

    def stop(self, file):
        file.write(b"half of it")
        raise Killed

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", stop)
    with suppress(Killed):
        save(volume, tmp_path, overwrite=True)
    assert (path.read_bytes() if path.exists() else None) == before
