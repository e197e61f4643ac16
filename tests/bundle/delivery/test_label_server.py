from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import pytest

from bundle.data.filenames import file_endings, split_name
from bundle.delivery import label_server
from bundle.delivery.label_server import LabelServer, find_stock_app, prepare, write_studies
from bundle.delivery.package import NAME
from bundle.modalities import BRATS_MODALITIES


@pytest.fixture
def stock(tmp_path, monkeypatch) -> Path:
    """A stand-in for MONAI Label's own app."""
    folder = tmp_path / "sample-apps" / "monaibundle"
    (folder / "lib").mkdir(parents=True)
    (folder / "logs").mkdir()
    (folder / "main.py").write_text("# the stock app\n")
    monkeypatch.setattr(label_server, "find_stock_app", lambda: folder)
    return folder


@pytest.fixture
def bundle_files(monkeypatch) -> dict[str, bytes]:
    files = {"configs/train.json": b"{}", "models/model.pt": b"old", "models/model.json": b"{}"}
    monkeypatch.setattr(label_server, "find_trained", lambda weights, overlays: None)
    monkeypatch.setattr(label_server, "contents", lambda trained: files)
    return files


def test_the_app_is_laid_out_as_monai_label_wants_it(stock, bundle_files, tmp_path):
    server = prepare(tmp_path / "out", studies=str(tmp_path), port=8123)
    assert server.app == tmp_path / "out" / "patchwork"
    assert (server.app / "stock_main.py").read_text() == "# the stock app\n"
    assert "class PatchworkApp" in (server.app / "main.py").read_text()
    ours = {path.name for path in label_server.OUR_APP.glob("*.py")}
    assert {path.name for path in server.app.glob("*.py")} == ours | {"stock_main.py"}
    assert not (server.app / "logs").exists()
    assert (server.app / "model" / NAME / "models" / "model.pt").read_bytes() == b"old"
    assert server.studies == str(tmp_path)
    plain = prepare(tmp_path / "out", studies=str(tmp_path), app="monaibundle")
    assert (plain.app / "main.py").read_text() == "# the stock app\n"
    assert not (plain.app / "stock_main.py").exists()


def test_an_address_is_handed_on_as_it_is(stock, bundle_files, tmp_path):
    address = "http://127.0.0.1:8042/dicom-web"
    assert prepare(tmp_path / "out", studies=address).studies == address


def test_weights_trained_in_the_copy_stay_and_all_else_is_renewed(stock, bundle_files, tmp_path):
    root = prepare(tmp_path / "out", studies=str(tmp_path)).app / "model" / NAME
    (root / "models" / "model.pt").write_bytes(b"trained here")
    bundle_files["configs/train.json"] = b'{"new": 1}'
    prepare(tmp_path / "out", studies=str(tmp_path))
    assert (root / "models" / "model.pt").read_bytes() == b"trained here"
    assert (root / "configs" / "train.json").read_bytes() == b'{"new": 1}'


def test_the_command_stays_on_this_machine_and_asks_no_network(tmp_path):
    words = LabelServer(tmp_path / "app", str(tmp_path / "studies"), 8123).command()
    assert words[:4] == [sys.executable, "-m", "monailabel.main", "start_server"]
    text = " ".join(words)
    for part in (f"models {NAME}", "zoo_source ngc", "sam2 false", "--host 127.0.0.1"):
        assert part in text
    assert words[-2:] == ["--port", "8123"]


def test_what_is_missing_is_named(stock, bundle_files, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"app: expected one of .*'monaibundle'.*got 'deepedit'"):
        prepare(tmp_path / "out", app="deepedit")
    with pytest.raises(FileNotFoundError, match=r"found no .*nowhere"):
        prepare(tmp_path / "out", studies=str(tmp_path / "nowhere"))
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    monkeypatch.setattr(label_server, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"'.\[label\]'"):
        prepare(tmp_path / "out")


def test_without_its_apps_monai_label_has_to_be_installed_with_pip(tmp_path, monkeypatch):
    class Spec:
        origin = str(tmp_path / "lib" / "python3" / "site-packages" / "monailabel" / "__init__.py")

    monkeypatch.setattr(label_server, "find_spec", lambda name: Spec)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="install monailabel with pip"):
        find_stock_app()
    app = tmp_path / "monailabel" / "sample-apps" / "monaibundle"
    app.mkdir(parents=True)
    (app / "main.py").touch()
    assert find_stock_app() == app


def test_the_made_up_studies_lack_scans_and_some_are_labelled(tmp_path, monkeypatch):
    counts = {"training": 2, "validation": 0, "testing": 2}
    monkeypatch.setattr(label_server, "PHANTOM_CASES", counts)
    studies = tmp_path / "studies"
    write_studies(studies, tmp_path / "phantom")
    scans = sorted(path.name for path in studies.glob("*.nii.gz"))
    endings = file_endings(BRATS_MODALITIES)
    names = [split_name(scan, endings) for scan in scans]
    assert len({case for case, _ in names}) == 4
    assert len(names) < 16
    assert all(modality in BRATS_MODALITIES for _, modality in names)
    labels = sorted((studies / "labels" / "final").iterdir())
    assert len(labels) == 2
    for label in labels:
        assert nib.load(label).shape == nib.load(studies / label.name).shape
    (studies / scans[0]).write_bytes(b"mine")
    write_studies(studies, tmp_path / "phantom")
    assert (studies / scans[0]).read_bytes() == b"mine"
