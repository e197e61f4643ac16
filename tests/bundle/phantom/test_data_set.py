from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import rankdata

import bundle.phantom.data_set as phantom
from bundle.modalities import BRATS_MODALITIES
from bundle.phantom.case import has_rim, make_case
from bundle.phantom.contrast import sequence_of
from bundle.phantom.data_set import ensure_phantom, write_phantom
from bundle.phantom.naming import NAMINGS

SMALL = {"sections": {"training": 2, "testing": 1}, "anatomy": "simple", "size": 24}


@pytest.fixture(scope="module")
def cases():
    return {seed: make_case(seed) for seed in range(6)}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    return write_phantom(folder, **SMALL)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(f.relative_to(folder)): (f.stat().st_mtime_ns, f.read_bytes()) for f in files}


def area_under_curve(score: np.ndarray, positive: np.ndarray) -> float:
    ranks, count = rankdata(score), np.count_nonzero(positive)
    above = ranks[positive].sum() - count * (count + 1) / 2
    return above / (count * (len(score) - count))


def test_background_is_exactly_0_and_the_brain_is_not(cases):
    for images, labels in cases.values():
        brain = images["t1"] != 0
        assert 0.2 < brain.mean() < 0.5
        assert not brain[[0, -1]].any()
        assert (brain | (labels == 0)).all()
        for image in images.values():
            np.testing.assert_array_equal(image != 0, brain)


def test_intensities_fit_into_int16_and_labels_into_uint8(cases):
    for images, labels in cases.values():
        assert labels.dtype == np.uint8
        for image in images.values():
            assert image.dtype == np.float32
            assert image.shape == labels.shape == (48, 48, 48)
            np.testing.assert_array_equal(image, image.astype(np.int16))


def test_the_regions_are_nested_and_the_rim_is_closed(cases):
    for images, labels in cases.values():
        brain = images["t1"] != 0
        around_necrosis = ndimage.binary_dilation(labels == 1) & (labels != 1)
        around_core = ndimage.binary_dilation(np.isin(labels, (1, 4))) & brain
        assert set(np.unique(labels[around_core])) <= {1, 2, 4}
        assert set(np.unique(labels[around_necrosis])) <= ({4} if (labels == 4).any() else {0, 2})


def test_the_tumour_takes_a_realistic_share_and_the_rim_is_thin(cases):
    for images, labels in cases.values():
        share = np.count_nonzero(labels) / np.count_nonzero(images["t1"])
        assert 0.01 < share < 0.18
        outside = ndimage.distance_transform_edt(np.isin(labels, (1, 4)))
        assert (outside[labels == 4] <= 3).all()


def test_some_cases_have_no_enhancing_rim_but_a_core(cases):
    for seed, (_, labels) in cases.items():
        assert (labels == 4).any() == has_rim(seed)
        assert (labels == 1).any()
    assert np.mean([has_rim(seed) for seed in range(400)]) == pytest.approx(0.75, abs=0.05)


def test_t1ce_tells_the_rim_from_the_rest_of_the_tumour_and_flair_tells_the_oedema_from_fluid(
    cases,
):
    rim, whole = {}, {}
    for images, labels in (case for seed, case in cases.items() if has_rim(seed)):
        for modality, image in images.items():
            smooth = ndimage.gaussian_filter(image, 0.7)
            inside, brain = labels > 0, image > 0
            rim.setdefault(modality, []).append(
                area_under_curve(smooth[inside], labels[inside] == 4)
            )
            whole.setdefault(modality, []).append(area_under_curve(smooth[brain], inside[brain]))
    rim = {modality: np.mean(values) for modality, values in rim.items()}
    whole = {modality: np.mean(values) for modality, values in whole.items()}
    assert max(rim, key=rim.get) == "t1ce"
    assert max(whole, key=whole.get) == "flair"
    assert rim["t1"] < 0.6


def test_difficulty_hides_the_tumour():
    contrast = {}
    for difficulty in (0.0, 1.0):
        images, labels = make_case(0, difficulty=difficulty)
        flair, brain = images["flair"], images["flair"] > 0
        contrast[difficulty] = area_under_curve(flair[brain], labels[brain] > 0)
    assert contrast[0.0] > 0.9
    assert contrast[1.0] < contrast[0.0] - 0.05


def test_a_case_is_the_same_each_time_and_another_seed_gives_another():
    first, labels = make_case(7, size=24)
    again, labels_again = make_case(7, size=24)
    other, _ = make_case(8, size=24)
    np.testing.assert_array_equal(labels, labels_again)
    for modality in BRATS_MODALITIES:
        np.testing.assert_array_equal(first[modality], again[modality])
        assert (first[modality] != other[modality]).any()


def test_a_modality_looks_the_same_whatever_others_are_asked_for():
    few, _ = make_case(3, size=24, modalities=("adc", "t2"))
    many, _ = make_case(3, size=24, modalities=("t1", "pd", "t2", "adc"))
    np.testing.assert_array_equal(few["adc"], many["adc"])
    np.testing.assert_array_equal(few["t2"], many["t2"])


def test_a_made_up_contrast_depends_on_the_name_alone():
    # Exact numbers, so that a contrast which changes with the process (a salted hash) is caught.
    assert sequence_of("adc").echo == pytest.approx(69.8597)
    assert sequence_of("pd").echo == pytest.approx(45.0511)
    assert sequence_of("t1c") == sequence_of("t1ce")


def test_the_datalist_names_every_file_relative_to_itself(written):
    datalist = json.loads(written.read_text())
    assert datalist["modalities"] == list(BRATS_MODALITIES)
    assert [case["case"] for case in datalist["training"]] == ["Phantom_0000", "Phantom_0001"]
    assert [case["case"] for case in datalist["testing"]] == ["Phantom_0800"]
    first = datalist["training"][0]
    assert first["image"]["t1ce"] == "Phantom_0000/Phantom_0000_t1ce.nii.gz"
    named = [f for s in ("training", "testing") for c in datalist[s] for f in c["image"].values()]
    named += [case["label"] for s in ("training", "testing") for case in datalist[s]]
    there = {str(f.relative_to(written.parent)) for f in written.parent.rglob("*") if f.is_file()}
    assert there == {"datalist.json", *named}


def test_files_are_int16_and_uint8_with_both_affines_centred(written):
    for file, dtype in (("Phantom_0000_flair", np.int16), ("Phantom_0000_seg", np.uint8)):
        image = nib.load(written.parent / f"Phantom_0000/{file}.nii.gz")
        assert image.get_data_dtype() == dtype
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        assert image.header.get_zooms() == (2.0, 2.0, 2.0)
        assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 1
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
        np.testing.assert_allclose(image.affine @ [11.5, 11.5, 11.5, 1], [0, 0, 0, 1], atol=1e-5)


def test_a_case_does_not_depend_on_the_counts_of_other_sections(written, tmp_path):
    write_phantom(tmp_path, sections={"training": 0, "testing": 2}, anatomy="simple", size=24)
    for name in ("t1", "seg"):
        file = f"Phantom_0800/Phantom_0800_{name}.nii.gz"
        here, there = (nib.load(folder / file).get_fdata() for folder in (tmp_path, written.parent))
        np.testing.assert_array_equal(here, there)


def test_orientation_turns_the_array_and_leaves_the_head_where_it_is(written, tmp_path):
    write_phantom(tmp_path, **SMALL, orientation="SAR")
    file = "Phantom_0000/Phantom_0000_t2.nii.gz"
    turned, plain = nib.load(tmp_path / file), nib.load(written.parent / file)
    assert nib.aff2axcodes(turned.affine) == ("S", "A", "R")
    turned, plain = nib.as_closest_canonical(turned), nib.as_closest_canonical(plain)
    np.testing.assert_array_equal(turned.get_fdata(), plain.get_fdata())
    np.testing.assert_allclose(turned.affine, plain.affine, atol=1e-5)


def test_thick_slices_merge_voxels(tmp_path):
    write_phantom(
        tmp_path, sections={"training": 1}, anatomy="simple", size=24, spacing_mm=(1, 1, 3)
    )
    image = nib.load(tmp_path / "Phantom_0000/Phantom_0000_t1.nii.gz")
    assert image.shape == (24, 24, 8)
    assert image.header.get_zooms() == (1.0, 1.0, 3.0)


@pytest.mark.parametrize(
    ("naming", "file"),
    [
        ("brats2018", "HGG/Brats18_Phantom0000_1/Brats18_Phantom0000_1_t1ce.nii.gz"),
        ("brats2019", "HGG/BraTS19_Phantom0000_1/BraTS19_Phantom0000_1_t1ce.nii.gz"),
        ("brats2020", "BraTS20_Training_001/BraTS20_Training_001_t1ce.nii"),
        ("brats2021", "BraTS2021_00000/BraTS2021_00000_t1ce.nii.gz"),
        ("brats2023", "BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1c.nii.gz"),
    ],
)
def test_naming_follows_the_release(naming, file, tmp_path):
    datalist = json.loads(
        write_phantom(
            tmp_path, sections={"training": 1}, anatomy="simple", size=24, naming=naming
        ).read_text()
    )
    case = datalist["training"][0]
    assert case["image"]["t1ce"] == file
    assert (tmp_path / file).is_file()
    rim = 3 if naming == "brats2023" else 4
    assert set(np.unique(nib.load(tmp_path / case["label"]).dataobj)) == {0, 1, 2, rim}


def test_ensure_leaves_a_complete_folder_alone(written):
    before = snapshot(written.parent)
    assert ensure_phantom(written.parent, **SMALL) == str(written)
    assert snapshot(written.parent) == before


def test_ensure_restores_only_the_case_that_misses_a_file(tmp_path):
    ensure_phantom(tmp_path, **SMALL)
    before = snapshot(tmp_path)
    lost = tmp_path / "Phantom_0001/Phantom_0001_t2.nii.gz"
    voxels = nib.load(lost).get_fdata()
    lost.unlink()
    ensure_phantom(tmp_path, **SMALL)
    after = snapshot(tmp_path)
    assert after.keys() == before.keys()
    assert (
        after["Phantom_0000/Phantom_0000_t1.nii.gz"]
        == before["Phantom_0000/Phantom_0000_t1.nii.gz"]
    )
    np.testing.assert_array_equal(nib.load(lost).get_fdata(), voxels)


def test_ensure_completes_a_folder_whose_writing_was_interrupted(tmp_path, monkeypatch):
    make, made = phantom.make_case, []

    def make_one_then_stop(*arguments):
        if made:
            raise KeyboardInterrupt
        made.append(True)
        return make(*arguments)

    monkeypatch.setattr(phantom, "make_case", make_one_then_stop)
    with pytest.raises(KeyboardInterrupt):
        ensure_phantom(tmp_path, **SMALL)
    assert not (tmp_path / "datalist.json").exists()
    monkeypatch.undo()
    datalist = ensure_phantom(tmp_path, **SMALL)
    assert len(json.loads(Path(datalist).read_text())["training"]) == 2
    assert not list(tmp_path.glob("unfinished*"))


def test_ensure_refuses_other_parameters_and_names_them(written):
    before = snapshot(written.parent)
    with pytest.raises(ValueError, match=r"other parameters \(seed: expected 5, found 0\)"):
        ensure_phantom(written.parent, **SMALL, seed=5)
    assert snapshot(written.parent) == before


def test_ensure_refuses_a_folder_that_holds_something_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(ValueError, match="an empty folder or a phantom data set"):
        ensure_phantom(tmp_path, **SMALL)
    (tmp_path / "datalist.json").write_text('{"training": []}')
    with pytest.raises(ValueError, match="an empty folder or a phantom data set"):
        ensure_phantom(tmp_path, **SMALL)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"difficulty": 2}, "difficulty from 0 .* got 2"),
        ({"size": 8}, "at least 24 voxels, got 8"),
        ({"naming": "brats1999"}, "naming out of .* got 'brats1999'"),
        ({"naming": "brats2023", "modalities": ("t1", "pd")}, r"no file names for \['pd'\]"),
        ({"modalities": ("t1",)}, "expected 2 to 8 modalities"),
        ({"orientation": "LLS"}, "three letters, .* got 'LLS'"),
        ({"spacing_mm": (1, 1, 2.5)}, r"whole multiples of the smallest.* got \[1, 1, 2.5\]"),
        ({"spacing_mm": (1, 0, 1)}, "three voxel sizes above 0 mm"),
        ({"sections": {"training": 601}}, "section 'training': expected 0 to 600 cases, got 601"),
        ({"sections": {"train": 1}}, "sections out of .* got 'train'"),
    ],
)
def test_a_wrong_parameter_is_named_before_anything_is_written(wrong, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        write_phantom(tmp_path / "new", **{**SMALL, **wrong})
    assert not (tmp_path / "new").exists()


def test_every_naming_tells_its_cases_apart():
    for naming in NAMINGS.values():
        names = {naming.case.format(number=number + naming.first) for number in range(999)}
        assert len(names) == 999
