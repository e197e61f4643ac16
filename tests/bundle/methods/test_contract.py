"""What every method in `configs/` must do, also one that is not written yet (design.md 5)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

import bundle
from bundle.methods.base import Method
from bundle.modalities import BRATS_MODALITIES, all_subsets, keep_only, presence, subset_name

CONFIGS = Path(bundle.ROOT) / "configs"
METHODS = ["train.json", *sorted(path.name for path in CONFIGS.glob("method_*.yaml"))]
SIDE = 8
SUBSETS = [subset_name(s, BRATS_MODALITIES) for s in all_subsets(BRATS_MODALITIES)]


def config(name: str) -> ConfigParser:
    """train.json with an overlay, at a tiny size, on cases of every subset that are never read."""
    parser = ConfigParser()
    parser.read_config(list(dict.fromkeys([str(CONFIGS / "train.json"), str(CONFIGS / name)])))
    cases = [
        {"case": text, "image": dict.fromkeys(text.split("+"), "x"), "label": "x"}
        for text in SUBSETS
    ]
    parser.update(
        {
            "device": "$torch.device('cpu')",
            "roi_size": [SIDE] * 3,
            "filters": 4,
            "blocks_down": [1, 1, 1],
            "deep_supervision": 2,
            "prompt_source": "one_hot",
            "datalist": {"training": cases},
        }
    )
    return parser


@cache
def built(name: str) -> tuple[ConfigParser, Method]:
    """Build a method as it is after some steps: what starts at zero would hide what it scales."""
    torch.manual_seed(0)
    parser = config(name)
    method = parser.get_parsed_content("method")
    for parameter in method.network.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.05)
    return parser, method


@pytest.fixture
def batch(batch):
    """Give batch(*subsets): a case for each, such as 't1+flair'."""

    def make(*subsets: str) -> dict[str, Tensor]:
        names = [text.split("+") for text in subsets]
        return batch(torch.stack([presence(subset, BRATS_MODALITIES) for subset in names]), SIDE)

    return make


def training_subsets(parser: ConfigParser) -> list[str]:
    """The subsets of the cases that the config itself would train on."""
    return [item["case"] for item in parser.get_parsed_content("train#dataset#data")]


def check_a_step(method: Method, given: Mapping[str, Tensor], where: str) -> None:
    method.zero_grad(set_to_none=True)
    losses = method.losses(given)
    assert losses, where
    for name, term in losses.items():
        assert term.shape == (), (where, name)
        assert bool(term.isfinite()), (where, name)
    method.backward(losses)
    slopes = {name: p.grad for name, p in method.network.named_parameters()}
    assert any(slope is not None and bool(slope.any()) for slope in slopes.values()), where
    for name, slope in slopes.items():
        assert slope is None or bool(slope.isfinite().all()), (where, name)


@pytest.mark.parametrize("name", METHODS)
def test_losses_and_gradients_are_finite_for_every_set_of_scans(name, batch):
    parser, method = built(name)
    subsets = training_subsets(parser)
    assert subsets
    for text in subsets:
        check_a_step(method, batch(text), text)
    check_a_step(method, batch(*subsets), "all in one batch")


@pytest.mark.parametrize("name", METHODS)
def test_a_crop_of_pure_background_is_finite(name, batch):
    parser, method = built(name)
    text = training_subsets(parser)[-1]
    given = {key: torch.zeros_like(value) for key, value in batch(text).items()}
    losses = method.losses({**given, "present": batch(text)["present"]})
    assert all(bool(term.isfinite()) for term in losses.values())


@pytest.mark.parametrize("name", METHODS)
def test_the_network_takes_every_subset_and_decides_itself_where_none_is_given(name, batch):
    method = built(name)[1].eval()
    given = batch(*SUBSETS)
    image, present = keep_only(given["image"], given["present"]), given["present"]
    with torch.no_grad():
        logits = method.network(given["image"], present)
        assert logits.shape == (15, 3, SIDE, SIDE, SIDE)
        assert bool(logits.isfinite().all())
        torch.testing.assert_close(method.network(image), logits, atol=1e-5, rtol=1e-5)
        assert torch.equal(method(given["image"], present), logits)


@pytest.mark.parametrize("name", METHODS)
def test_the_optimiser_has_every_parameter_that_learns(name):
    parser, method = built(name)
    groups = parser.get_parsed_content("optimizer").param_groups
    held = {id(parameter) for group in groups for parameter in group["params"]}
    assert {id(p) for p in method.parameters() if p.requires_grad} <= held


@pytest.mark.parametrize("name", METHODS)
def test_the_note_beside_the_weights_names_prompts_where_there_are_some(name):
    parser, method = built(name)
    prompted = getattr(method.network, "hypernetwork", None) is not None
    assert ("prompts" in parser.get_parsed_content("made_with")) == prompted


@pytest.mark.parametrize("known", [True, False])
def test_pretraining_keeps_the_contract_too(known, batch):
    parser = config("pretrain.yaml")
    parser.update({"patch": 4, "descriptor_patch": 4})
    if not known:
        parser.update({"distribution": "none"})
    method = parser.get_parsed_content("method")
    assert (method.distribution is not None) == known
    for text in training_subsets(parser):
        check_a_step(method, batch(text), text)
    check_a_step(method, batch(*SUBSETS), "all in one batch")
    given = batch(*SUBSETS)
    assert method.network(given["image"], given["present"]).shape == given["image"].shape


def test_pretrained_weights_fit_what_training_starts_from():
    names = "network", "made_for"
    before, made_for = map(config("pretrain.yaml").get_parsed_content, names)
    network, expected = map(built("train.json")[0].get_parsed_content, names)
    state = before.state_dict()
    assert {k: v.shape for k, v in network.autoencoder.state_dict().items()} == {
        k: v.shape for k, v in state.items()
    }
    assert made_for.items() <= expected.items()


def raw(name: str) -> dict[str, Any]:
    return ConfigParser.load_config_file(str(CONFIGS / name))


def test_inference_builds_the_network_that_training_builds():
    train, inference = raw("train.json"), raw("inference.json")
    assert inference["network_def"] == train["network_def"]
    used = [
        value.strip("$").removeprefix("bundle.flag(").removeprefix("len(").strip("@)")
        for value in train["network_def"].values()
        if isinstance(value, str) and "@" in value
    ]
    assert {"filters", "modalities", "regions", "hypernetwork"} <= set(used)
    for name in [*used, "spacing", "roi_size", "made_for"]:
        assert inference[name] == train[name]


@pytest.mark.parametrize("name", ["train.json", "inference.json", "pretrain.yaml"])
def test_what_no_shape_tells_of_the_network_is_noted_with_the_weights(name):
    assert "rescale" in raw(name)["made_for"]
