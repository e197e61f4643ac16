from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

import bundle.delivery.trained_model
from bundle.delivery.trained_model import Trained, find_trained

SMALL = "filters: 4\nblocks_down: [1, 1, 1]\ndeep_supervision: 2\nspacing: [2.0, 2.0, 2.0]\n"


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL + "output_dir: /elsewhere\nresume: true\ndatalist_file: some.json\n")
    return path


@pytest.fixture
def trained(tmp_path: Path, overlay: Path) -> Trained:
    """Random weights of a small network, with their note, as a training leaves them."""
    made = Trained(tmp_path / "model.pt", (overlay,))
    parser = ConfigParser(config=made.config("inference.json"))
    torch.save(parser.get_parsed_content("network_def").state_dict(), made.weights)
    note = {**parser.get_parsed_content("made_for"), "prompts": {"source": "presence"}}
    (tmp_path / "model.json").write_text(json.dumps(note))
    return made


def test_a_config_without_overlays_is_the_file_itself(tmp_path):
    plain = Trained(tmp_path / "model.pt")
    for name in ("train.json", "inference.json"):
        assert plain.config(name) == json.loads(
            (bundle.delivery.trained_model.CONFIGS / name).read_text()
        )


def test_an_overlay_changes_settings_but_not_places(trained):
    plain = json.loads((bundle.delivery.trained_model.CONFIGS / "inference.json").read_text())
    changed = trained.config("inference.json")
    assert {k for k in changed if changed[k] != plain.get(k)} == {
        *("filters", "blocks_down", "deep_supervision", "spacing")
    }
    assert "resume" not in changed
    assert trained.config("train.json")["resume"] is False


def test_the_last_config_has_the_last_word_on_nested_ids(trained):
    merged = trained.config("train.json", "evaluate.json")
    assert merged["filters"] == 4
    assert merged["validate"]["dataset"]["subsets"] == "@evaluate_subsets"
    assert not [id_ for id_ in merged if "#" in id_ or id_.startswith("+")]


def test_every_tensor_is_loaded(trained):
    network, state = trained.network(), torch.load(trained.weights)
    own = network.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[name], value) for name, value in state.items())
    assert not network.training


def test_without_the_trainings_overlay_the_error_names_the_option(trained):
    with pytest.raises(ValueError, match=r"was trained with spacing.*no overlay; name .*--overlay"):
        Trained(trained.weights).network()


def test_a_nested_checkpoint_is_refused(trained):
    torch.save({"model": torch.load(trained.weights)}, trained.weights)
    with pytest.raises(ValueError, match=r"0 of the network's \d+ tensors fit.*not a flat state"):
        trained.network()


def test_weights_without_a_note_are_refused(trained):
    trained.weights.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"expected model.json beside .*copy it along"):
        trained.network()


def test_no_weights_point_to_the_demonstration(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "ROOT", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"models/model.pt or .*demo/models.*`make demo`"):
        find_trained()
    with pytest.raises(FileNotFoundError, match=r"in .*/other.pt, found none"):
        find_trained(str(tmp_path / "other.pt"))


def test_the_usual_weights_are_found_in_order_and_with_their_overlay(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "ROOT", str(tmp_path))
    for name in ("configs/demo.yaml", "demo/models/model.pt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    demo = Trained(tmp_path / "demo/models/model.pt", (tmp_path / "configs/demo.yaml",))
    assert find_trained() == find_trained(str(demo.weights)) == demo
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.pt").touch()
    assert find_trained() == Trained(tmp_path / "models/model.pt")


def test_an_overlay_that_is_not_there_is_named(trained):
    with pytest.raises(FileNotFoundError, match=r"no file \['nowhere.yaml'\]"):
        find_trained(str(trained.weights), ["nowhere.yaml"])
