from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from bundle.data.volumes import CaseError, read_grid, read_volume

SHAPE = (4, 5, 6)
NOISE = np.random.default_rng(0).random(SHAPE).astype(np.float32)


@pytest.fixture
def save(tmp_path):
    """Give save(voxels, affine, unit, kind): the path of a NIfTI file."""

    def write(voxels=NOISE, affine=None, unit="mm", kind=nib.Nifti1Image):
        image = kind(voxels, np.eye(4) if affine is None else affine)
        if unit is not None:
            image.header.set_xyzt_units(unit)
        nib.save(image, tmp_path / "a.nii")
        return tmp_path / "a.nii"

    return write


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(
    ("unit", "edge", "name", "way"),
    [
        ("meter", 0.001, "metres", "multiply it by 1000"),
        ("micron", 900.0, "micrometres", "divide it by 1000"),
        ("micron", 1.0, "micrometres", "millimetres already, correct the unit alone"),
    ],
)
def test_a_header_in_metres_or_micrometres_says_how_to_correct_it(
    save, kind, unit, edge, name, way
):
    path = save(affine=np.diag([edge, edge, edge, 1]), unit=unit, kind=kind)
    for read in (read_grid, read_volume):
        with pytest.raises(CaseError, match=rf"case A: .* a\.nii gives places in {name} .*{way}"):
            read(path, "A")


@pytest.mark.parametrize("edges", [(0.001, 0.001, 0.005), (1000, 1000, 5000), (240, 240, 3000)])
@pytest.mark.parametrize("unit", ["mm", "unknown"])
def test_an_affine_that_is_in_another_unit_without_saying_so_is_refused(save, edges, unit):
    path = save(affine=np.diag([*edges, 1]), unit=unit)
    with pytest.raises(CaseError, match=r"A: a\.nii has voxels of .* mm\. Expected edges from"):
        read_grid(path, "A")


@pytest.mark.parametrize("edges", [(0.05, 0.05, 0.05), (1, 1, 60), (30, 30, 30), (0.24, 0.24, 5)])
@pytest.mark.parametrize("unit", ["mm", "unknown"])
def test_edges_that_somebody_may_have_are_left_to_the_rules(save, edges, unit):
    grid = read_grid(save(affine=np.diag([*edges, 1]), unit=unit), "A")
    assert grid.spacing_mm == pytest.approx(edges)


def test_a_code_of_a_unit_that_nobody_knows_means_millimetres(save):
    image = nib.Nifti1Image(NOISE, np.eye(4))
    image.header["xyzt_units"] = 5
    path = save()
    nib.save(image, path)
    assert read_grid(path, "A").spacing_mm == (1, 1, 1)


def test_how_far_qform_and_sform_are_apart_is_measured_at_the_corners(save):
    def apart(qform, codes=(1, 1)) -> float:
        image = nib.Nifti1Image(NOISE, np.eye(4))
        image.set_qform(qform, codes[0])
        image.set_sform(np.eye(4), codes[1])
        path = save()
        nib.save(image, path)
        return read_grid(path, "A").forms_mm

    assert apart(np.eye(4)) == 0
    assert apart(nib.affines.from_matvec(np.eye(3), [3, 4, 0])) == pytest.approx(5)
    assert apart(np.diag([1, 1, 2, 1])) == pytest.approx(5)  # 5 steps of 1 mm along the last axis
    assert apart(np.diag([-1, -1, 1, 1])) == pytest.approx(10)  # 2 x 3 and 2 x 4 mm
    moved = nib.affines.from_matvec(np.eye(3), [9, 0, 0])
    assert apart(moved, codes=(0, 1)) == apart(moved, codes=(1, 0)) == 0


@pytest.mark.parametrize("channels", ["RGB", "RGBA"])
def test_colours_are_named(save, channels):
    kind = np.dtype([(name, np.uint8) for name in channels])
    path = save(np.zeros(SHAPE, kind))
    for read in (read_grid, read_volume):
        with pytest.raises(CaseError, match=r"a\.nii holds colours \(R, G, B.*made for viewing"):
            read(path, "A")


@pytest.mark.parametrize("kind", [np.complex64, np.complex128])
def test_complex_numbers_do_not_lose_their_phase_in_silence(save, kind):
    with pytest.raises(CaseError, match=r"a\.nii holds complex numbers.*Give the magnitude"):
        read_volume(save((NOISE + 1j).astype(kind)), "A")


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6, 2, 3), (2, 3, 4, 1, 2, 2)])
def test_a_shape_that_is_no_row_of_volumes_is_shown(save, shape):
    with pytest.raises(CaseError, match=rf"must be one 3D volume.*got shape \({shape[0]}, "):
        read_grid(save(np.ones(shape, np.float32)), "A")
