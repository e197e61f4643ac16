"""Weights and training states of version 0.3.1 fit this version and give the same logits.

`weights_of_0_3_1.json` was written with that version: for each kind of network every tensor's name
and shape, what a training state holds beside the network, and a few logits of weights by formula.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from torch import Tensor

import bundle
from bundle.training.weights import load_weights

WRITTEN = json.loads(Path(__file__).with_name("weights_of_0_3_1.json").read_text(encoding="utf-8"))
OVERLAYS = {
    "universal": {},
    "universal_separate": {"encoders": "separate"},
    "lckd": {"overlay": "method_lckd.yaml"},
    "gmd": {"overlay": "method_gmd.yaml"},
    "modality_dropout": {"overlay": "method_modality_dropout.yaml"},
}
SMALL = {
    "datalist": {"training": [], "validation": [], "testing": []},
    "election_required": False,
    "filters": 2,
    "blocks_down": [1, 1],
    "deep_supervision": 1,
    "device": "$torch.device('cpu')",
    "amp": False,
}


def parse(overlay: str | None = None, **changes: Any) -> ConfigParser:
    parser = ConfigParser()
    names = ["train.json", *([overlay] if overlay else [])]
    parser.read_config([str(Path(bundle.ROOT) / "configs" / name) for name in names])
    parser.update({**SMALL, **changes})
    return parser


def formula(tensors: dict[str, list[int]]) -> dict[str, Tensor]:
    """Fill tensors by their place in the state dict, so that nothing has to be kept of them."""
    filled = {}
    for place, (name, shape) in enumerate(tensors.items()):
        steps = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
        values = torch.sin(0.7 * steps + place) * 0.3
        if name.endswith("weight") and len(shape) == 1:
            values = 1 + values
        filled[name] = values.reshape(shape).float()
    return filled


def case() -> tuple[Tensor, Tensor]:
    """An image (1, 4, 8, 8, 8) without its second modality, and what is present of it."""
    steps = torch.arange(4 * 8**3, dtype=torch.float64)
    image = torch.cos(0.37 * steps).reshape(1, 4, 8, 8, 8).float()
    image[:, 1] = 0
    return image, torch.tensor([[True, False, True, True]])


@pytest.mark.parametrize("kind", WRITTEN)
def test_weights_load_with_equal_logits(kind, tmp_path):
    network = parse(**OVERLAYS[kind]).get_parsed_content("network_def").eval()
    torch.save(formula(WRITTEN[kind]["tensors"]), tmp_path / "model.pt")
    load_weights(network, str(tmp_path / "model.pt"))
    with torch.no_grad():
        logits = network(*case()).flatten()
    found = logits[:: len(logits) // 12]
    torch.testing.assert_close(found, torch.tensor(WRITTEN[kind]["logits"]))


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_training_state_has_the_same_parts(kind):
    method = parse(**OVERLAYS[kind]).get_parsed_content("method")
    found = {name: list(value.shape) for name, value in method.state_dict().items()}
    network = {f"network.{name}": shape for name, shape in WRITTEN[kind]["tensors"].items()}
    assert found == {**network, **WRITTEN[kind]["beside_the_network"]}
