"""MONAI Label's app for bundles, unmodified: cases that lack scans, in every form that it knows."""

from __future__ import annotations

import io
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bundle.delivery.package import NAME

pytestmark = pytest.mark.slow


def scan(server, case: str, modality: str) -> Path:
    return server.studies / f"{case}_{modality}.nii.gz"


def check(image: nib.Nifti1Image, server, reference, case: str) -> None:
    """The mask is the case's own grid, uint8, with the announced values, and as by monai.bundle."""
    source = nib.load(next(server.studies.glob(f"{case}_*.nii.gz")))
    assert image.shape == source.shape
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.affine, source.affine, atol=1e-4)
    labels = np.asanyarray(image.dataobj)
    assert set(np.unique(labels)) <= {0, 1, 2, 3}
    assert labels.any()
    np.testing.assert_array_equal(labels, reference[case])


def test_the_model_is_listed_with_the_labels_that_it_writes(stock):
    info = stock.call("GET", "info/").json()
    model = info["models"][NAME]
    assert model["type"] == "segmentation"
    assert model["labels"] == {"necrotic core": 1, "oedema": 2, "enhancing tumour": 3}
    assert model["config"]["modality"] == ["as the file is named", "t1", "t1ce", "t2", "flair"]
    # 3D Slicer gives the first segment the value 1, the second 2, and so on.
    assert info["labels"] == ["necrotic core", "oedema", "enhancing tumour"]
    assert set(info["strategies"]) == {"random", "first"}
    log = stock.log.read_text()
    assert "Checkpoint keys don't match" not in log


@pytest.mark.parametrize("case", ["Phantom_0001", "BraTS2021_00800"])
def test_one_file_finds_its_siblings(stock, reference, case):
    for path in stock.studies.glob(f"{case}_*.nii.gz"):
        check(stock.segment(image=path.name.removesuffix(".nii.gz")), stock, reference, case)


def test_one_scan_alone_is_enough(stock, reference):
    check(stock.segment(image="Phantom_0002_t2"), stock, reference, "Phantom_0002")


def test_a_4d_file_with_a_channel_of_zeros(stock, reference, cases, tmp_path):
    volumes = [nib.load(scan(stock, "Phantom_0001", m)) for m in ("t1ce", "flair")]
    empty = np.zeros(volumes[0].shape, np.float32)
    voxels = [np.asanyarray(volume.dataobj) for volume in volumes]
    stacked = np.stack([empty, voxels[0], empty, voxels[1]], -1).astype(np.float32)
    path = tmp_path / "four.nii.gz"
    nib.save(nib.Nifti1Image(stacked, volumes[0].affine), path)
    order = {"channel_order": ["t1", "t1ce", "t2", "flair"]}
    with path.open("rb") as file:
        image = stock.segment(order, files={"file": (path.name, file)})
    check(image, stock, reference, "Phantom_0001")
    with path.open("rb") as file:
        refused = stock.infer(files={"file": (path.name, file)})
    assert refused.status_code == 422
    assert "nothing says which modality each of them is" in refused.json()["detail"]


def test_a_list_with_gaps_is_read_by_names(stock, reference):
    files = [None, str(scan(stock, "Phantom_0001", "flair")), None]
    files.append(str(scan(stock, "Phantom_0001", "t1ce")))
    # MONAI Label wants some image in the query; the list is what counts.
    check(stock.segment({"image": files}, image="any"), stock, reference, "Phantom_0001")


def test_a_folder_on_the_server(stock, reference, tmp_path):
    for name in ("t1", "t1ce", "flair"):
        path = scan(stock, "BraTS2021_00800", name)
        (tmp_path / path.name).write_bytes(path.read_bytes())
    check(stock.segment(image=str(tmp_path)), stock, reference, "BraTS2021_00800")


def test_an_uploaded_session_of_two_of_four_files(stock, reference):
    paths = [scan(stock, "Phantom_0800", name) for name in ("t2", "t1")]
    files = [("files", (path.name, path.read_bytes())) for path in paths]
    session = stock.call("PUT", "session/", files=files).json()["session_id"]
    check(stock.segment(session_id=session), stock, reference, "Phantom_0800")
    assert stock.call("DELETE", f"session/{session}").ok


def test_a_session_of_one_file_whose_name_tells_nothing(stock, reference):
    """What 3D Slicer sends of a volume that is not the server's: a temporary name."""
    content = scan(stock, "Phantom_0002", "t2").read_bytes()
    files = [("files", ("tmp3kz9.nii.gz", content))]
    session = stock.call("PUT", "session/", files=files).json()["session_id"]
    image = stock.segment({"modality": "t2"}, session_id=session)
    check(image, stock, reference, "Phantom_0002")
    refused = stock.infer(session_id=session)
    assert refused.status_code == 422
    assert "case tmp3kz9: the name of" in refused.json()["detail"]
    assert "`modality`" in refused.json()["detail"]


def test_what_3d_slicer_asks_for_is_an_nrrd_file(stock):
    wanted = {"result_extension": ".nrrd", "result_dtype": "uint8"}
    answer = stock.infer(wanted, image="Phantom_0001_flair")
    assert answer.status_code == 200
    header = answer.content[:600].decode("latin-1")
    assert header.startswith("NRRD")
    assert re.search(r"type: u(nsigned|int8)", header)


def test_mistakes_are_told_and_the_server_lives_on(stock, reference, tmp_path):
    mine = [str(scan(stock, "Phantom_0000", m)) for m in ("t1", "t1ce", "t2", "flair")]
    five = [*mine, str(scan(stock, "Phantom_0002", "t2"))]
    grids = [mine[0], str(scan(stock, "BraTS2021_00800", "flair"))]
    nameless = tmp_path / "scan.nii.gz"
    nameless.write_bytes(Path(mine[0]).read_bytes())
    cut = tmp_path / "cut_t1.nii.gz"
    cut.write_bytes(Path(mine[0]).read_bytes()[:2000])
    for image, message in (
        (five, "two files for 't2', Phantom_0000_t2.nii.gz and Phantom_0002_t2.nii.gz"),
        (grids, "all files must share one voxel grid"),
        ([str(nameless)], "tells no modality"),
        ([str(cut)], "cannot be read as a NIfTI volume"),
        ([None, None], "no modality is recognisable"),
    ):
        answer = stock.infer({"image": image}, image="any")
        assert answer.status_code == 422, answer.text
        assert message in answer.json()["detail"]
    unknown = stock.infer(image="Phantom_9999_t1")
    assert unknown.status_code == 422
    assert "no image: the path is empty" in unknown.json()["detail"]
    check(stock.segment(image="Phantom_0002_t2"), stock, reference, "Phantom_0002")


def test_batch_inference_keeps_a_label_for_every_image(stock, reference):
    wanted = {"multi_gpu": False, "device": "cpu", "label_tag": "auto"}
    query = {"images": "all", "run_sync": "true"}
    answer = stock.call("POST", f"batch/infer/{NAME}", params=query, json=wanted)
    assert answer.status_code == 200, answer.text
    images = {path.name.removesuffix(".nii.gz") for path in stock.studies.glob("*.nii.gz")}
    assert set(answer.json()) == images
    for image in images:
        label = nib.load(stock.studies / "labels" / "auto" / f"{image}.nii.gz")
        expected = reference[image.rsplit("_", 1)[0]]
        np.testing.assert_array_equal(np.asanyarray(label.dataobj), expected)


def test_submitted_labels_train_an_epoch_and_the_server_uses_the_new_weights(stock, cases):
    weights = stock.root / "models" / "model.pt"
    before = weights.read_bytes()
    for image in ("Phantom_0000_flair", "Phantom_0001_t1ce", "Phantom_0002_t2"):
        (label,) = cases.rglob(f"{image.rsplit('_', 1)[0]}_seg.nii.gz")
        query = {"image": image, "tag": "final"}
        files = {"label": (label.name, label.read_bytes())}
        saved = stock.call("PUT", "datastore/label", params=query, files=files)
        assert saved.status_code == 200, saved.text
    done = stock.call("GET", "datastore/", params={"output": "train"}).json()
    assert len(done) == 3
    wanted = {"max_epochs": 1, "val_split": 0.34, "multi_gpu": False, "device": "cpu"}
    query = {"run_sync": "true"}
    answer = stock.call("POST", f"train/{NAME}", params=query, json=wanted)
    assert answer.status_code == 200, answer.text + stock.log.read_text()[-3000:]
    log = stock.log.read_text()
    assert "best so far" in log, "the third case was to validate"
    assert weights.with_name("model.pt.previous").read_bytes() == before
    old, new = torch.load(io.BytesIO(before)), torch.load(weights)
    change = max(float((new[key] - old[key]).abs().max()) for key in old)
    assert 0 < change < 0.02, "one step from the served weights, not from random ones"
    image = stock.segment(image="Phantom_0002_t2")
    assert image.get_data_dtype() == np.uint8
    assert "Reload model from cache" in stock.log.read_text()
