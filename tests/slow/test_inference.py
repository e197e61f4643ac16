"""What inference writes lies exactly where the input lay, whatever its orientation."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import bundle
from bundle.data.marks import description_of, is_marked
from bundle.networks.universal import UniversalNetwork

CONFIGS = Path(bundle.ROOT) / "configs"

pytestmark = pytest.mark.slow

# A network whose right answer is known: brain 50, oedema 200, core 300, rim 400 in every modality,
# so that each region is what exceeds a value between two of them.
THRESHOLD_NETWORK = """
import torch

class Threshold(torch.nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.limits = [(limit - mean) / std for limit in (250, 125, 350)]  # TC, WT, ET

    def forward(self, image, present=None):
        scanned = image.sum(1, keepdim=True) / present.sum(1).view(-1, 1, 1, 1, 1)
        return torch.cat([scanned - limit for limit in self.limits], 1) * 1000
"""


def affine_of(axes: str, spacing: tuple[float, ...], degrees: float = 0.0) -> np.ndarray:
    """Make an affine from axis codes and voxel sizes, turned about an oblique axis."""
    turn = Rotation.from_rotvec(np.deg2rad(degrees) * np.array([1, 2, 3]) / 14**0.5).as_matrix()
    codes = nib.orientations.axcodes2ornt(axes)
    affine = nib.orientations.inv_ornt_aff(codes, (0, 0, 0))
    affine[:3, :3] = turn @ affine[:3, :3] @ np.diag(spacing)
    affine[:3, 3] = [-30.5, 12.25, 7.0]
    return affine


def write_case(folder: Path, affine: np.ndarray, missing: tuple[str, ...] = ()) -> np.ndarray:
    """Write a brain with an off-centre tumour of three layers; return its label map."""
    shape = (40, 36, 24)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    centre, radii = np.array([24, 14, 13]), np.array([9, 8, 5])
    middle = (np.array(shape) / 2)[:, None, None, None]
    brain = (((grid - middle) / (middle - 2)) ** 2).sum(0) < 1
    far = (((grid - centre[:, None, None, None]) / radii[:, None, None, None]) ** 2).sum(0) ** 0.5
    labels = np.select([far < 0.45, far < 0.75, far < 1], [4, 1, 2], 0).astype(np.uint8) * brain
    values = np.select([labels == 4, labels == 1, labels == 2], [400.0, 300.0, 200.0], 50.0) * brain
    folder.mkdir(parents=True)
    for seed, name in enumerate(("t1", "t1ce", "t2", "flair")):
        if name in missing:
            continue
        # No two scans are alike, and none has a handful of values, as a label has.
        noise = np.random.default_rng(seed).integers(-5, 6, shape) * brain
        image = nib.Nifti1Image((values + noise).astype(np.int16), affine)
        nib.save(image, folder / f"{folder.name}_{name}.nii.gz")
    return labels


def segment(workflow, settings, folder: Path, tmp_path: Path, monkeypatch, **more):
    """Run inference with the threshold network; return the written files by name."""
    example = next(path for path in tmp_path.glob("in/case/*.nii.gz"))
    brain = np.asanyarray(nib.load(example).dataobj)
    brain = brain[brain > 0].astype(float)
    (tmp_path / "code").mkdir(exist_ok=True)
    (tmp_path / "code" / "threshold_network.py").write_text(THRESHOLD_NETWORK)
    monkeypatch.syspath_prepend(tmp_path / "code")
    settings = settings | {
        "dataset_dir": str(folder),
        "network_def": {
            "_target_": "threshold_network.Threshold",
            "mean": float(brain.mean()),
            "std": float(brain.std()),
        },
        "handlers": [],
        "roi_size": [24, 24, 16],
        "written_labels": {},
    }
    run = workflow(["inference.json"], "infer", **(settings | more))
    run.run()
    run.finalize()
    return {path.name: nib.load(path) for path in Path(settings["output_dir"]).glob("*.nii.gz")}


# Sees tumour everywhere, and says so for the rebuilt scans too.
EAGER_NETWORK = """
import torch

class Eager(torch.nn.Module):
    def forward(self, image, present=None):
        return image.new_full((len(image), 3, *image.shape[2:]), 9.0)

    def autoencoder(self, image, present):
        return torch.full_like(image, 9.0)
"""


GRIDS = {
    "RAS": affine_of("RAS", (1, 1, 1)),
    "LPS": affine_of("LPS", (1, 1, 1)),
    "sagittal slices": affine_of("PSL", (1, 1, 2)),
    "anisotropic oblique": affine_of("PSL", (0.9, 1.1, 2.5), degrees=17),
}
# What holds on these two holds on the others, which are theirs without a turn or a size.
ODD_GRIDS = ("sagittal slices", "anisotropic oblique")


@pytest.mark.parametrize("grid", ODD_GRIDS)
@pytest.mark.parametrize("missing", [(), ("t1", "t2", "flair")])
def test_written_label_overlays_the_input_exactly(
    workflow, tiny, tmp_path, monkeypatch, grid, missing
):
    affine = GRIDS[grid]
    labels = write_case(tmp_path / "in" / "case", affine, missing)
    # Voxel sizes as the orientation transform leaves them, so that nothing is interpolated.
    turned = nib.as_closest_canonical(nib.Nifti1Image(labels, affine))
    spacing = [float(size) for size in turned.header.get_zooms()]
    files = segment(workflow, tiny | {"spacing": spacing}, tmp_path / "in", tmp_path, monkeypatch)
    written = files["case_pred.nii.gz"]
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_allclose(written.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), labels)


@pytest.mark.parametrize("grid", ODD_GRIDS)
def test_resampling_keeps_the_label_in_place(workflow, tiny, tmp_path, monkeypatch, grid):
    labels = write_case(tmp_path / "in" / "case", GRIDS[grid])
    settings = tiny | {"spacing": [0.8, 0.8, 0.8]}
    files = segment(workflow, settings, tmp_path / "in", tmp_path, monkeypatch)
    written = np.asanyarray(files["case_pred.nii.gz"].dataobj)
    assert written.shape == labels.shape
    overlap = 2 * ((written > 0) & (labels > 0)).sum() / ((written > 0).sum() + (labels > 0).sum())
    assert overlap > 0.95
    shift = [np.abs(np.argwhere(m > 0).mean(0)) for m in (written, labels)]
    np.testing.assert_allclose(*shift, atol=0.2)


@pytest.mark.parametrize("grid", ODD_GRIDS)
def test_nothing_is_written_outside_the_scans_whatever_a_network_says(
    workflow, tiny, tmp_path, monkeypatch, grid
):
    folder = tmp_path / "in" / "case"
    write_case(folder, GRIDS[grid], missing=("t2",))
    (tmp_path / "eager_network.py").write_text(EAGER_NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    scans = [voxels(nib.load(path)) != 0 for path in folder.glob("*.nii.gz")]
    inside = np.any(scans, axis=0)
    asked = {"save_probabilities": True, "save_rebuilt": True, "save_uncertainty": True}
    settings = {"network_def": {"_target_": "eager_network.Eager"}} | asked
    extra = {"handlers": [BYPRODUCTS_ALONE], "spacing": [1.3, 0.7, 2.1]}
    files = segment(workflow, tiny, tmp_path / "in", tmp_path, monkeypatch, **settings, **extra)
    endings = ("pred", "probabilities", "t2_rebuilt", "uncertainty")
    assert set(files) == {f"case_{ending}.nii.gz" for ending in endings}
    for file in files.values():
        found = voxels(file).reshape(*inside.shape, -1)
        assert not found[~inside].any()
    assert (voxels(files["case_pred.nii.gz"])[inside] != 0).mean() > 0.9


def test_one_slice_stays_a_volume_and_both_forms_are_the_scan_s(
    workflow, tiny, tmp_path, monkeypatch
):
    folder = tmp_path / "in" / "case"
    labels = write_case(folder, GRIDS["LPS"])[:, :, 13:14]
    moved = GRIDS["LPS"] + np.diag([20.0, 0, 0], 1)
    for path in folder.glob("*.nii.gz"):
        image = nib.load(path).slicer[:, :, 13:14]
        image = nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine)
        image.set_sform(image.affine, 2)
        image.set_qform(moved, 3)
        nib.save(image, path)
    settings = tiny | {"spacing": [1.0] * 3, "save_probabilities": True}
    files = segment(workflow, settings, tmp_path / "in", tmp_path, monkeypatch)
    given = nib.load(next(folder.glob("*.nii.gz")))
    for name, shape in (("pred", labels.shape), ("probabilities", (*labels.shape, 3))):
        written = files[f"case_{name}.nii.gz"]
        assert written.shape == shape
        for form, code in (("get_qform", 3), ("get_sform", 2)):
            found, expected = (getattr(each, form)(coded=True) for each in (written, given))
            assert found[1] == expected[1] == code
            np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    np.testing.assert_array_equal(voxels(files["case_pred.nii.gz"]), labels)


def test_cases_of_one_name_are_kept_apart_and_what_is_there_is_kept(
    workflow, tiny, tmp_path, monkeypatch
):
    labels = write_case(tmp_path / "in" / "case", GRIDS["RAS"])
    write_case(tmp_path / "b" / "case", GRIDS["LPS"])
    files = [str(tmp_path / place / "case" / "case_t1.nii.gz") for place in ("in", "b")]
    items = [
        {"case": f"{site}/p01", "image": {"t1": file}}
        for site, file in zip(("a", "b"), files, strict=True)
    ]
    source = tmp_path / "two.json"
    source.write_text(json.dumps({"testing": items}))
    settings = tiny | {"spacing": [1.0] * 3}
    written = segment(workflow, settings, source, tmp_path, monkeypatch)
    assert set(written) == {"a_p01_pred.nii.gz", "b_p01_pred.nii.gz"}
    np.testing.assert_array_equal(voxels(written["a_p01_pred.nii.gz"]), labels)
    out = Path(tiny["output_dir"])
    (out / "a_p01_pred.nii.gz").unlink()
    (out / "b_p01_pred.nii.gz").write_bytes(b"an expert's")
    with pytest.raises(RuntimeError) as refused:
        segment(workflow, settings, source, tmp_path, monkeypatch)
    assert "b_p01_pred.nii.gz is already there" in repr(refused.getrepr(style="native"))
    assert (out / "b_p01_pred.nii.gz").read_bytes() == b"an expert's"
    assert not (out / "a_p01_pred.nii.gz").exists()
    source.write_text(json.dumps({"testing": [items[0], items[1] | {"case": "A:p01"}]}))
    with pytest.raises(RuntimeError) as refused:
        segment(workflow, settings, source, tmp_path, monkeypatch, output_dir=str(tmp_path / "no"))
    assert "cases 'a/p01' and 'A:p01' would both" in repr(refused.getrepr(style="native"))
    assert not list((tmp_path / "no").glob("*"))


def test_labels_follow_the_later_convention_unless_told_otherwise(
    workflow, tiny, tmp_path, monkeypatch
):
    labels = write_case(tmp_path / "in" / "case", GRIDS["LPS"])
    usual = json.loads((CONFIGS / "inference.json").read_text())["written_labels"]
    settings = tiny | {"spacing": [1.0] * 3}
    source = tmp_path / "in"
    files = segment(workflow, settings, source, tmp_path, monkeypatch, written_labels=usual)
    expected = np.where(labels == 4, 3, labels)
    np.testing.assert_array_equal(np.asanyarray(files["case_pred.nii.gz"].dataobj), expected)
    # As BraTS 2026 wants it, whatever else is said of labels; forms, grid and mark stay.
    challenge = {"layout": "brats2026", "output_dir": str(tmp_path / "challenge")}
    files = segment(workflow, settings | challenge, source, tmp_path, monkeypatch)
    assert list(files) == ["case.nii.gz"]
    written, given = files["case.nii.gz"], nib.load(next(source.glob("case/*.nii.gz")))
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), expected)
    np.testing.assert_array_equal(written.affine, given.affine)
    assert is_marked(description_of(written))


def test_small_regions_can_be_emptied(workflow, tiny, tmp_path, monkeypatch):
    labels = write_case(tmp_path / "in" / "case", GRIDS["RAS"])
    settings = tiny | {"spacing": [1.0] * 3, "min_voxels": {"ET": int((labels == 4).sum()) + 1}}
    files = segment(workflow, settings, tmp_path / "in", tmp_path, monkeypatch)
    expected = np.where(labels == 4, 1, labels)
    np.testing.assert_array_equal(np.asanyarray(files["case_pred.nii.gz"].dataobj), expected)


def test_probabilities_are_written_only_when_asked(workflow, tiny, tmp_path, monkeypatch):
    labels = write_case(tmp_path / "in" / "case", GRIDS["LPS"])
    settings = tiny | {"spacing": [1.0] * 3}
    assert set(segment(workflow, settings, tmp_path / "in", tmp_path, monkeypatch)) == {
        "case_pred.nii.gz"
    }
    asked = settings | {"save_probabilities": True, "output_dir": str(tmp_path / "asked")}
    files = segment(workflow, asked, tmp_path / "in", tmp_path, monkeypatch)
    volume = files["case_probabilities.nii.gz"]
    assert volume.get_data_dtype() == np.float32
    np.testing.assert_allclose(volume.affine, GRIDS["LPS"], atol=1e-5)
    inside = np.asanyarray(volume.dataobj) > 0.5
    for channel, values in enumerate([(1, 4), (1, 2, 4), (4,)]):
        np.testing.assert_array_equal(inside[..., channel], np.isin(labels, values))


def test_one_file_finds_its_siblings(workflow, tiny, tmp_path, monkeypatch):
    labels = write_case(tmp_path / "in" / "case", GRIDS["LPS"], missing=("t2",))
    source = tmp_path / "in" / "case" / "case_flair.nii.gz"
    files = segment(workflow, tiny | {"spacing": [1.0] * 3}, source, tmp_path, monkeypatch)
    np.testing.assert_array_equal(np.asanyarray(files["case_pred.nii.gz"].dataobj), labels)


def test_a_4d_file_is_segmented_in_the_order_that_its_dataset_json_says(
    workflow, tiny, tmp_path, monkeypatch, capsys
):
    labels = write_case(tmp_path / "in" / "case", GRIDS["LPS"], missing=("t2",))
    order = {"FLAIR": "flair", "T1w": "t1", "t1gd": "t1ce"}
    scans = [nib.load(tmp_path / "in" / "case" / f"case_{m}.nii.gz") for m in order.values()]
    stacked = np.stack([np.asanyarray(scan.dataobj) for scan in scans], -1)
    source = tmp_path / "msd" / "imagesTs" / "BRATS_001.nii.gz"
    source.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(stacked, GRIDS["LPS"]), source)
    settings = tiny | {"spacing": [1.0] * 3}
    with pytest.raises(RuntimeError) as refused:
        segment(workflow, settings, source, tmp_path, monkeypatch)
    said = repr(refused.getrepr(style="native"))
    assert "BRATS_001.nii.gz holds 3 volumes, and nothing says which modality each" in said
    note = {"modality": {str(number): name for number, name in enumerate(order)}}
    (tmp_path / "msd" / "dataset.json").write_text(json.dumps(note))
    files = segment(workflow, settings, source, tmp_path, monkeypatch)
    written = files["BRATS_001_pred.nii.gz"]
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), labels)
    np.testing.assert_allclose(written.affine, GRIDS["LPS"], atol=1e-5)


def test_a_broken_case_costs_no_other(workflow, tiny, tmp_path, monkeypatch, capsys):
    labels = write_case(tmp_path / "in" / "case", GRIDS["LPS"])
    write_case(tmp_path / "in" / "cut", GRIDS["LPS"])
    cut = tmp_path / "in" / "cut" / "cut_t2.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-2000])
    settings = tiny | {"spacing": [1.0] * 3}
    files = segment(workflow, settings, tmp_path / "in", tmp_path, monkeypatch)
    assert set(files) == {"case_pred.nii.gz"}
    np.testing.assert_array_equal(np.asanyarray(files["case_pred.nii.gz"].dataobj), labels)
    assert f"left out: case cut: {cut} cannot be read" in capsys.readouterr().out
    with pytest.raises(RuntimeError) as refused:
        segment(
            workflow, settings | {"on_bad_case": "raise"}, tmp_path / "in", tmp_path, monkeypatch
        )
    assert f"case cut: {cut} cannot be read" in repr(refused.getrepr(style="native"))


def untrained(workflow, settings, source: Path, output: Path, *overlays: str, **more):
    """Run inference with the weights of an untrained network; return the written files by name."""
    weights = Path(settings["ckpt_dir"]) / "model.pt"
    if not overlays and not weights.exists():
        torch.manual_seed(0)
        shape = {k: settings[k] for k in ("filters", "blocks_down", "deep_supervision")}
        weights.parent.mkdir(parents=True)
        torch.save(UniversalNetwork(4, 3, **shape).state_dict(), weights)
    changed = settings | {"dataset_dir": str(source), "output_dir": str(output)} | more
    run = workflow(["inference.json", *overlays], "infer", **changed)
    assert run.check_properties() == []
    run.run()
    run.finalize()
    return {path.name: nib.load(path) for path in output.glob("*.nii.gz")}


def voxels(image: nib.Nifti1Image) -> np.ndarray:
    return np.asanyarray(image.dataobj)


BYPRODUCTS = ("case_t1_rebuilt.nii.gz", "case_flair_rebuilt.nii.gz", "case_uncertainty.nii.gz")
BYPRODUCTS_ALONE = {
    "_target_": "bundle.inference.extra_outputs.ExtraOutputs",
    "rebuilt": "$bundle.flag(@save_rebuilt)",
    "uncertainty": "$bundle.flag(@save_uncertainty)",
}


@pytest.mark.parametrize("grid", ODD_GRIDS)
@pytest.mark.parametrize("resampled", [False, True])
def test_byproducts_overlay_the_input_and_leave_the_label_alone(
    workflow, tiny, tmp_path, grid, resampled
):
    source, affine = tmp_path / "in" / "case", GRIDS[grid]
    labels = write_case(source, affine, missing=("t1", "flair"))
    brain = voxels(nib.load(source / "case_t2.nii.gz")) != 0
    turned = nib.as_closest_canonical(nib.Nifti1Image(labels, affine))
    spacing = [2.0] * 3 if resampled else [float(size) for size in turned.header.get_zooms()]
    settings = tiny | {"spacing": spacing, "roi_size": [24, 24, 16]}
    plain = untrained(workflow, settings, source, tmp_path / "plain", save_rebuilt="false")
    assert set(plain) == {"case_pred.nii.gz"}
    asked = {"save_rebuilt": "true", "save_uncertainty": True}
    files = untrained(workflow, settings, source, tmp_path / "asked", **asked)
    assert set(files) == {"case_pred.nii.gz", *BYPRODUCTS}
    label = plain["case_pred.nii.gz"]
    assert 0 < (voxels(label) != 0).mean() < 1
    assert voxels(files["case_pred.nii.gz"]).tobytes() == voxels(label).tobytes()
    for name in BYPRODUCTS:
        written = files[name]
        assert written.shape == labels.shape
        assert written.get_data_dtype() == np.float32
        np.testing.assert_allclose(written.affine, affine, atol=1e-5)
        assert np.isfinite(voxels(written)).all()
    for name in BYPRODUCTS[:2]:
        rebuilt = voxels(files[name])
        assert (rebuilt[brain] != 0).mean() > 0.99
        if not resampled:
            assert (rebuilt[~brain] == 0).all()
    uncertainty = voxels(files["case_uncertainty.nii.gz"])
    assert 0 <= uncertainty.min() < uncertainty.max() <= 0.5


def test_what_was_rebuilt_is_the_network_s_own_answer(workflow, tiny, tmp_path):
    write_case(tmp_path / "in" / "case", GRIDS["RAS"], missing=("t1ce", "t2"))
    settings = tiny | {"spacing": [1.0] * 3, "roi_size": [64] * 3}
    source = tmp_path / "in" / "case"
    files = untrained(workflow, settings, source, tmp_path / "out", save_rebuilt=True)
    image = torch.zeros(1, 4, 64, 64, 64)
    for channel, name in ((0, "t1"), (3, "flair")):
        scan = voxels(nib.load(source / f"case_{name}.nii.gz")).astype(np.float32)
        brain = scan != 0
        scan[brain] = (scan[brain] - scan[brain].mean()) / scan[brain].std()
        # The brain's box with its margin, and zeros that fill up a window larger than the volume.
        box = tuple(slice(max(0, i.min() - 4), i.max() + 5) for i in brain.nonzero())
        cut = scan[box]
        gaps = [64 - size for size in cut.shape]
        padded = np.pad(cut, [(gap // 2, gap - gap // 2) for gap in gaps])
        image[0, channel] = torch.from_numpy(padded)
    network = UniversalNetwork(4, 3, filters=4, blocks_down=(1, 1, 1), deep_supervision=2).eval()
    network.load_state_dict(torch.load(Path(tiny["ckpt_dir"]) / "model.pt"))
    with torch.no_grad():
        answer = network.autoencoder(image, torch.tensor([[True, False, False, True]]))[0]
    middle = tuple(
        slice(gap // 2, gap // 2 + size) for gap, size in zip(gaps, cut.shape, strict=True)
    )
    for channel, name in ((1, "t1ce"), (2, "t2")):
        expected = np.zeros_like(scan)
        expected[box] = answer[channel].numpy()[middle]
        found = voxels(files[f"case_{name}_rebuilt.nii.gz"])
        np.testing.assert_allclose(found, expected * brain, atol=1e-4)


def test_a_case_with_everything_present_has_nothing_rebuilt(workflow, tiny, tmp_path, capsys):
    source = tmp_path / "in"
    write_case(source / "case", GRIDS["RAS"])
    write_case(source / "less", GRIDS["LPS"], missing=("t2",))
    files = untrained(workflow, tiny, source, tmp_path / "out", save_rebuilt=True)
    assert set(files) == {"case_pred.nii.gz", "less_pred.nii.gz", "less_t2_rebuilt.nii.gz"}
    said = capsys.readouterr().out
    assert said.count("case case: nothing is missing, so nothing is rebuilt") == 1
    assert "case less: nothing is missing" not in said


def test_what_was_rebuilt_is_never_read_as_a_scan(workflow, tiny, tmp_path):
    source = tmp_path / "in" / "case"
    write_case(source, GRIDS["RAS"], missing=("t1", "flair"))
    asked = {"save_rebuilt": True, "save_uncertainty": True}
    first = untrained(workflow, tiny, source, source, **asked)
    before = {name: voxels(first[name]).copy() for name in BYPRODUCTS}
    with pytest.raises(RuntimeError) as refused:
        untrained(workflow, tiny, source, source, **asked)
    text = repr(refused.getrepr(style="native"))
    assert "case_uncertainty.nii.gz, case_t1_rebuilt.nii.gz, ... (4 files) are already" in text
    again = untrained(workflow, tiny, source, source, **asked, overwrite="true")
    assert set(again) == set(first)
    for name, values in before.items():
        np.testing.assert_array_equal(voxels(again[name]), values)


def test_the_baseline_has_an_uncertainty_and_rebuilds_nothing(workflow, tiny, tmp_path):
    source, overlay = tmp_path / "in", "method_modality_dropout.yaml"
    write_case(source / "case", GRIDS["RAS"], missing=("t2",))
    settings = tiny | {"handlers": [BYPRODUCTS_ALONE]}
    asked = {"save_uncertainty": True}
    files = untrained(workflow, settings, source, tmp_path / "out", overlay, **asked)
    assert set(files) == {"case_pred.nii.gz", "case_uncertainty.nii.gz"}
    assert voxels(files["case_uncertainty.nii.gz"]).max() > 0
    with pytest.raises(RuntimeError) as refused:
        untrained(workflow, settings, source, tmp_path / "no", overlay, save_rebuilt=True)
    text = repr(refused.getrepr(style="native"))
    assert "save_rebuilt: expected a network with an autoencoder" in text
    assert "got a UNet" in text


def test_a_host_that_runs_no_handlers_gets_its_label_all_the_same(
    workflow, tiny, tmp_path, monkeypatch
):
    labels = write_case(tmp_path / "in" / "case", GRIDS["LPS"], missing=("t2",))
    settings = tiny | {"spacing": [1.0] * 3, "save_rebuilt": True, "save_uncertainty": True}
    files = segment(workflow, settings, tmp_path / "in", tmp_path, monkeypatch)
    assert set(files) == {"case_pred.nii.gz"}
    np.testing.assert_array_equal(voxels(files["case_pred.nii.gz"]), labels)
