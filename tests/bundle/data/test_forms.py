from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from bundle.data.forms import NO_FORMS, apply_forms, read_forms

AFFINE = np.diag([-1.0, 2.0, 3.0, 1.0])
OTHER = AFFINE + np.array([[0, 0, 0, 5], [0, 0, 0, -20], [0, 0, 0, 1], [0, 0, 0, 0]])
VOXELS = np.zeros((3, 4, 5), np.uint8)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair])
@pytest.mark.parametrize("codes", [(1, 2), (0, 4), (3, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("unit", [0, 1, 2, 3])
def test_a_new_volume_gets_both_forms_their_codes_and_the_unit(kind, codes, unit):
    source = kind(VOXELS, AFFINE)
    source.set_sform(AFFINE if codes[1] else None, codes[1])
    source.set_qform(OTHER if codes[0] else None, codes[0])
    source.header["xyzt_units"] = unit + 8  # and seconds
    made = nib.Nifti1Image(VOXELS, source.affine)
    apply_forms(made, read_forms(source))
    for name in ("qform", "sform"):
        found, code = getattr(made, f"get_{name}")(coded=True)
        expected, wanted = getattr(source, f"get_{name}")(coded=True)
        assert code == wanted
        assert (found is None) is (expected is None)
        if expected is not None:
            np.testing.assert_allclose(found, expected, atol=1e-6)
    assert int(made.header["xyzt_units"]) == unit
    np.testing.assert_allclose(made.affine, source.affine, atol=1e-6)
    np.testing.assert_allclose(made.header.get_zooms(), source.header.get_zooms())


def test_a_quaternion_that_is_none_counts_as_no_qform():
    source = nib.Nifti1Image(VOXELS, AFFINE)
    source.set_sform(AFFINE, 2)
    source.header["qform_code"], source.header["quatern_b"] = 1, 3.0
    forms = read_forms(source)
    assert forms.codes.tolist() == [0, 2, 0]
    assert not forms.affines[0].any()


def test_a_format_without_forms_gives_the_affine_as_both():
    assert read_forms(nib.MGHImage(VOXELS, AFFINE)) is NO_FORMS
    made = nib.Nifti1Image(VOXELS, OTHER)
    apply_forms(made, NO_FORMS)
    assert (int(made.header["qform_code"]), int(made.header["sform_code"])) == (1, 1)
    np.testing.assert_allclose(made.get_qform(), OTHER, atol=1e-6)
    np.testing.assert_allclose(made.get_sform(), OTHER, atol=1e-6)
