from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

import bundle
from bundle.__main__ import main
from bundle.delivery.package import CARD, CARD_HEADING, NAME, package
from bundle.delivery.trained_model import Trained, find_trained
from bundle.inference.temperatures import TemperatureNote, read_temperatures
from bundle.modalities import all_subsets, subset_name

ROOT = Path(bundle.ROOT)
SMALL = "filters: 4\nblocks_down: [1, 1, 1]\ndeep_supervision: 2\n"


def random_weights(folder: Path, overlay: str = SMALL) -> Trained:
    """Weights and note as a training leaves them, of the network that the overlay asks for."""
    folder.mkdir(exist_ok=True)
    (folder / "small.yaml").write_text(overlay)
    made = Trained(folder / "model.pt", (folder / "small.yaml",))
    torch.manual_seed(0)
    parser = ConfigParser(config=made.config("inference.json"))
    torch.save(parser.get_parsed_content("network_def").state_dict(), made.weights)
    note = {**parser.get_parsed_content("made_for"), "prompts": {"source": "presence"}}
    (folder / "model.json").write_text(json.dumps(note))
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    return random_weights(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def written(trained, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    return package(folder, str(trained.weights), [str(trained.overlays[0])], "noise | nothing")


@pytest.fixture(scope="module")
def files(written) -> dict[str, bytes]:
    with zipfile.ZipFile(written) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def read(files: dict[str, bytes], name: str) -> dict:
    return json.loads(files[f"{NAME}/{name}"])


def test_everything_lies_in_one_folder_in_the_standard_form(written, files):
    assert written.name == f"{NAME}_v{bundle.__version__}.zip"
    assert {name.split("/")[0] for name in files} == {NAME}
    for name in ("LICENSE", "README.md", "metadata.json", "configs/metadata.json"):
        assert f"{NAME}/{name}" in files
    for name in ("train", "inference", "evaluate", "evaluation"):
        assert f"{NAME}/configs/{name}.json" in files
    ours = {p.relative_to(ROOT).as_posix() for p in (ROOT / "bundle").rglob("*.*")}
    ours = {name for name in ours if "__pycache__" not in name}
    assert {"bundle/moved_names.json", "bundle/delivery/setting_meanings.yaml"} <= ours
    assert {f"{NAME}/{name}" for name in ours} <= set(files)
    assert not [name for name in files if "__pycache__" in name or "/tests/" in name]


def test_the_same_input_gives_the_same_bytes(trained, written, tmp_path):
    given = (str(trained.weights), [str(trained.overlays[0])], "noise | nothing")
    again = package(tmp_path / "other.zip", *given)
    assert again.read_bytes() == written.read_bytes()
    other = package(tmp_path / "third.zip", *given[:2], "something else")
    assert other.read_bytes() != written.read_bytes()


def test_nothing_in_the_archive_is_dated_compressed_or_a_link(written):
    with zipfile.ZipFile(written) as archive:
        names = archive.namelist()
        assert names == sorted(set(names))
        for entry in archive.infolist():
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
            assert entry.compress_type == zipfile.ZIP_STORED
            assert entry.external_attr >> 16 == 0o100644


def test_the_weights_travel_unchanged_with_their_note(trained, files):
    assert files[f"{NAME}/models/model.pt"] == trained.weights.read_bytes()
    more = {"trained_on": "noise | nothing", "overlays": ["small.yaml"]}
    assert read(files, "models/model.json") == {**trained.note(), **more}


def test_the_configs_hold_the_settings_of_the_training(files):
    for name in ("train", "inference", "evaluation"):
        config = read(files, f"configs/{name}.json")
        assert (config["filters"], config["blocks_down"]) == (4, [1, 1, 1])
        assert config["ckpt_dir"] == "$@bundle_root + '/models'"
    assert read(files, "configs/evaluation.json")["evaluator"] == "@validate#evaluator"
    unchanged = ("configs/evaluate.json", "bundle/modalities.py", "constraints.txt")
    for name in unchanged:
        assert files[f"{NAME}/{name}"] == (ROOT / name).read_bytes()


def test_metadata_and_card_say_where_the_weights_come_from(trained, files):
    metadata = read(files, "configs/metadata.json")
    assert files[f"{NAME}/metadata.json"] == files[f"{NAME}/configs/metadata.json"]
    card = files[f"{NAME}/{CARD}"].decode()
    head = (ROOT / CARD).read_text().partition(CARD_HEADING)[0]
    assert card.startswith(head + CARD_HEADING)
    assert "| trained on | noise / nothing |" in card
    digest = hashlib.sha256(trained.weights.read_bytes()).hexdigest()
    count = len(torch.load(trained.weights))
    for text in (card, metadata["weights_source"]):
        assert digest in text
        assert f"all {count} of {count} fit" in text
        assert "train.json with small.yaml" in text
        assert '"spacing": [1.0, 1.0, 1.0]' in text
        assert "presence" in text
    plain = json.loads((ROOT / "configs/metadata.json").read_text())
    assert {k for k in plain if plain[k] != metadata[k]} == {"weights_source"}
    assert metadata.keys() == plain.keys()


def test_what_is_not_known_of_the_data_is_said(trained, tmp_path):
    path = package(tmp_path, str(trained.weights), [str(trained.overlays[0])])
    with zipfile.ZipFile(path) as archive:
        assert b"trained on: not said" in archive.read(f"{NAME}/metadata.json")


def test_temperatures_travel_with_the_weights_that_they_belong_to(trained, files, tmp_path):
    assert "calibrated: no" in read(files, "metadata.json")["weights_source"]
    names, regions = ("t1", "t1ce", "t2", "flair"), ("TC", "WT", "ET")
    values = {subset_name(s, names): dict.fromkeys(regions, 1.5) for s in all_subsets(names)}
    weights = tmp_path / "model.pt"
    for ending in (".pt", ".json"):
        shutil.copy(trained.weights.with_suffix(ending), weights.with_suffix(ending))
    note = TemperatureNote(weights)
    note.open()
    note.write(values, 7)
    path = package(tmp_path / "out", str(weights), [str(trained.overlays[0])])
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    root = tmp_path / NAME
    found = read_temperatures(root / "models/model.pt", names, regions)
    assert found is not None
    assert found.values == values
    said = json.loads((root / "metadata.json").read_text())["weights_source"]
    assert "calibrated: temperatures of 7 validation cases" in said
    assert "t1+t1ce" not in said


def test_weights_that_do_not_fit_leave_no_zip(trained, tmp_path):
    with pytest.raises(ValueError, match=r"tensors fit.*name those of the training"):
        package(tmp_path, str(trained.weights))
    assert list(tmp_path.iterdir()) == []


def test_other_channels_than_the_metadata_describe_are_refused(tmp_path):
    made = random_weights(tmp_path / "pet", SMALL + "modalities: [ct, pet]\n")
    with pytest.raises(ValueError, match=r'describes 4 channels of image.*"ct", "pet"'):
        package(tmp_path / "out", str(made.weights), [str(made.overlays[0])])


def test_the_verb_writes_the_zip_or_says_what_to_do(trained, tmp_path, capsys, monkeypatch):
    options = ["--weights", str(trained.weights), "--overlay", str(trained.overlays[0])]
    assert main(["package", str(tmp_path / "2020.zip"), *options]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / '2020.zip'}\n"
    monkeypatch.setattr(
        "bundle.delivery.package.find_trained", lambda *_: find_trained("nowhere.pt")
    )
    assert main(["package", str(tmp_path)]) == 2
    assert "Make some with `make demo`" in capsys.readouterr().err


def test_the_export_verb_exports_the_trained_network(trained, tmp_path, capsys, monkeypatch):
    """What `export_program` makes of a network is compared with it in test_export.py."""
    handed: list[tuple] = []
    program = torch.export.export(torch.nn.Identity(), (torch.zeros(1),))
    monkeypatch.setattr(
        "bundle.delivery.export.export_program", lambda *given: handed.append(given) or program
    )
    options = ["--weights", str(trained.weights), "--overlay", str(trained.overlays[0])]
    path = tmp_path / "model.pt2"
    assert main(["export", str(path), *options]) == 0
    assert str(path) in capsys.readouterr().out
    ((network, *rest),) = handed
    assert rest == [4, False, 16]
    assert not network.training
    expected, found = torch.load(trained.weights), network.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    read = {"model.json": ""}
    torch.export.load(path, extra_files=read)
    assert json.loads(read["model.json"]) == trained.note()


def test_the_metadata_have_every_key_of_the_schema():
    schema = json.loads((ROOT / "tests/schema/meta_schema_20240725.json").read_text())
    metadata = json.loads((ROOT / "configs/metadata.json").read_text())
    assert set(schema["properties"]) <= set(metadata)


def test_the_channels_are_those_of_the_configs():
    """MONAI Label shows the keys of the outputs as the values of the label map."""
    config = json.loads((ROOT / "configs/inference.json").read_text())
    data = json.loads((ROOT / "configs/metadata.json").read_text())["network_data_format"]
    # MONAI's tools and MONAI Label read the first input and the first output.
    assert next(iter(data["inputs"])) == "image"
    assert list(data["outputs"]) == ["pred"]
    for tensor in data["inputs"].values():
        assert [name.lower() for name in tensor["channel_def"].values()] == config["modalities"]
        assert list(tensor["channel_def"]) == [str(i) for i in range(tensor["num_channels"])]
    known = {str(label) for labels in config["regions"].values() for label in labels}
    values = {str(config["written_labels"].get(label, label)) for label in known}
    # 3D Slicer takes the first name for the value 1, the second for 2, and so on.
    assert sorted(values) == [str(i) for i in range(1, len(values) + 1)]
    for place in ("outputs", "post_processed_outputs"):
        names = data[place]["pred"]["channel_def"]
        assert (names["0"], set(names)) == ("background", {"0", *values})
    assert data["outputs"]["pred"]["num_channels"] == len(config["regions"])
