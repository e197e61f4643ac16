"""Our extension of MONAI Label's app: the next case is the one whose modalities contradict most."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from bundle.delivery.package import NAME

pytestmark = pytest.mark.slow


def test_it_can_all_that_the_stock_app_can_and_asks_for_the_most_uncertain_case(patchwork):
    info = patchwork.call("GET", "info/").json()
    assert set(info["strategies"]) == {"random", "first", "disagreement"}
    assert set(info["scoring"]) == {"disagreement"}
    assert NAME in info["models"]
    early = patchwork.call("POST", "activelearning/disagreement", json={})
    assert early.status_code == 409
    assert "no unlabelled case has a score yet" in early.json()["detail"]

    # The unreadable scan is listed, the hidden file and the label are not.
    images = patchwork.call("GET", "datastore/", params={"output": "all"}).json()["objects"]
    assert len(images) == 13
    assert "Broken_0009_t1" in images
    query, wanted = {"run_sync": "true"}, {"device": "cpu"}
    scored = patchwork.call("POST", "scoring/disagreement", params=query, json=wanted).json()
    (bad,) = scored["failed"]
    assert scored == {"total": 6, "skipped": 0, "executed": 5, "failed": [bad]}
    assert bad["case"] == "Broken_0009"
    assert "cannot be read as a NIfTI volume" in bad["reason"]
    again = patchwork.call("POST", "scoring/disagreement", params=query, json=wanted)
    assert again.json() == {"total": 6, "skipped": 5, "executed": 0, "failed": [bad]}
    told = patchwork.call("GET", "info/").json()["scoring"]["disagreement"]
    assert (told["scored"], told["of"], told["failed"]) == (5, 6, [bad])
    images = patchwork.call("GET", "datastore/", params={"output": "all"}).json()["objects"]
    scores = {name: entry["image"]["info"]["disagreement"] for name, entry in images.items()}
    assert scores.pop("Broken_0009_t1") is None
    by_case = {name.rsplit("_", 1)[0]: score for name, score in scores.items()}
    assert all(by_case[name.rsplit("_", 1)[0]] == score for name, score in scores.items())
    assert len(set(by_case.values())) == 5
    assert min(by_case.values()) > 0

    order = sorted(by_case, key=by_case.__getitem__, reverse=True)
    for case in order:
        asked = patchwork.call("POST", "activelearning/disagreement", json={}).json()
        assert asked["id"].rsplit("_", 1)[0] == case
        assert asked["weight"] == by_case[case]
        # One labelled file settles the case: its siblings are not asked for again.
        content = (patchwork.studies / f"{asked['id']}.nii.gz").read_bytes()
        query = {"image": asked["id"], "tag": "final"}
        files = {"label": ("label.nii.gz", content)}
        assert patchwork.call("PUT", "datastore/label", params=query, files=files).ok
    left = patchwork.call("POST", "activelearning/disagreement", json={})
    assert left.status_code == 409
    assert "the unlabelled cases that are left get no score" in left.json()["detail"]


def test_a_label_of_another_grid_is_refused_and_a_modality_is_taken_in_any_spelling(
    patchwork, reference
):
    image = "Phantom_0001_flair"
    other = (patchwork.studies / "BraTS2021_00800_t1.nii.gz").read_bytes()
    query, files = {"image": image, "tag": "draft"}, {"label": ("label.nii.gz", other)}
    answer = patchwork.call("PUT", "datastore/label", params=query, files=files)
    assert answer.status_code == 422
    assert f"this is no label of image {image}" in answer.json()["detail"]

    scan = (patchwork.studies / "Phantom_0002_t2.nii.gz").read_bytes()
    files = {"file": ("tmp3kz9.nii.gz", scan)}
    labels = patchwork.segment({"modality": "T2w"}, files=files)
    np.testing.assert_array_equal(np.asanyarray(labels.dataobj), reference["Phantom_0002"])
    refused = patchwork.infer({"modality": "PD"}, files=files)
    assert refused.status_code == 422
    assert "Expected one of t1, t1ce, t2, flair" in refused.json()["detail"]


def test_two_copies_in_one_server_are_refused_by_name(starting):
    clash = starting["clash"]
    assert clash.process.wait(240) != 0
    said, models = clash.log.read_text(), clash.root.parent
    assert f"a package called 'bundle' is already loaded from {models / 'first'}" in said
    assert f"wants the one in {models / 'second'}" in said
    assert "Run the two bundles in separate processes" in said


def test_an_odd_case_is_segmented_with_a_warning_and_refused_by_a_strict_server(
    stock, patchwork, tmp_path
):
    flair = nib.load(stock.studies / "Phantom_0001_flair.nii.gz")
    voxels = np.asanyarray(flair.dataobj).astype(np.float32)
    voxels[voxels == 0] = 0.5 * voxels[voxels != 0].min()
    path = tmp_path / "tmp4f.nii.gz"
    nib.save(nib.Nifti1Image(voxels, flair.affine), path)
    files = {"file": (path.name, path.read_bytes())}
    warned = stock.infer({"modality": "flair"}, files=files, output="json")
    assert warned.status_code == 200
    (line,) = warned.json()["warnings"]
    assert "flair: hardly any voxel is 0" in line
    refused = patchwork.infer({"modality": "flair"}, files=files, output="json")
    assert refused.status_code == 422
    assert "flair: hardly any voxel is 0" in refused.json()["detail"]
