from __future__ import annotations

import pytest
import torch
from federation.export import export, read_stage_parser
from federation.protocol.stages import Stage

from bundle.cli.command import run_command

CONFIGS = ["train.json", "federation.yaml"]
SMALL = {"filters": 4, "blocks_down": [1, 1, 1], "deep_supervision": 2}


@pytest.fixture(scope="module")
def method():
    return read_stage_parser(Stage("x", CONFIGS, 0, settings=SMALL)).get_parsed_content("method")


def test_a_state_becomes_the_network_alone(method, tmp_path, capsys):
    torch.save({"model": method.state_dict()}, tmp_path / "state.pt")
    target = tmp_path / "models" / "model.pt"
    words = [str(tmp_path / "state.pt"), str(target), "--configs", ",".join(CONFIGS)]
    words += ["--settings", "{filters: 4,blocks_down:[1,1,1], 'deep_supervision': 2}"]
    assert run_command(export, words, "python -m federation.export") == 0
    flat = torch.load(target, weights_only=True)
    assert flat.keys() == method.network.state_dict().keys()
    assert f"wrote {len(flat)} of {len(flat)} tensors" in capsys.readouterr().out


def test_another_config_is_refused(method, tmp_path):
    torch.save({"model": method.state_dict()}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="tensors are there, of the right shape"):
        export(str(tmp_path / "state.pt"), str(tmp_path / "m.pt"), ["train.json"], SMALL)
