from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from bundle.delivery import export as module
from bundle.delivery.export import export
from bundle.modalities import (
    BRATS_MODALITIES,
    OUTSIDE_LOGIT,
    all_subsets,
    brain_mask,
    keep_only,
    presence,
)
from bundle.networks.dynamic_sharing import DynamicSharing
from bundle.networks.scan_encoder import ScanEncoderNetwork
from bundle.networks.unet import UNet
from bundle.networks.universal import UniversalNetwork

SUBSETS = torch.stack([presence(s, BRATS_MODALITIES) for s in all_subsets(BRATS_MODALITIES)])
SHAPE = {"filters": 4, "blocks_down": (1, 1), "deep_supervision": 1}
NOTE = {"modalities": list(BRATS_MODALITIES), "prompts": {"source": "presence"}}


def image(batch: int, *size: int) -> Tensor:
    return torch.randn(batch, 4, *size, generator=torch.Generator().manual_seed(1))


def randomised(network: nn.Module) -> nn.Module:
    """As after a training: norms, tiles, prompts and the hypernetwork have moved."""
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=1, std=0.3)
        elif name.endswith("stand_in.tile"):
            nn.init.normal_(parameter)
        elif name == "hypernetwork.output.weight":
            nn.init.normal_(parameter, std=0.05)
    for name, buffer in network.named_buffers():
        if name == "hypernetwork.prompts":
            nn.init.normal_(buffer)
    return network.eval()


@pytest.fixture(scope="module", params=["joint", pytest.param("separate", marks=pytest.mark.slow)])
def network(request) -> nn.Module:
    torch.manual_seed(0)
    return randomised(UniversalNetwork(4, 3, **SHAPE, encoders=request.param))


@pytest.fixture(scope="module")
def files(network, tmp_path_factory) -> dict[str, Path]:
    """The network written in three ways; the program is made once for the two that share it."""
    folder = tmp_path_factory.mktemp("exported")
    names = {"program": "model.pt2", "onnx": "model.onnx", "image_only": "image_only.onnx"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "export_program", cache(module.export_program))
        return {
            kind: export(network, folder / name, NOTE, kind == "image_only", multiple=4)
            for kind, name in names.items()
        }


def onnx_logits(path: Path, *inputs: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    assert names == ["image", "present"][: len(inputs)]
    assert [out.name for out in session.get_outputs()] == ["logits"]
    feed = {name: given.numpy() for name, given in zip(names, inputs, strict=True)}
    return torch.from_numpy(session.run(None, feed)[0])


@torch.no_grad()
def test_onnx_gives_the_same_logits_on_every_subset_whatever_is_absent_holds(network, files):
    path = files["onnx"]
    batch = image(15, 8, 12, 8)
    expected = network(batch, SUBSETS)
    for given in (batch, batch.masked_fill(~SUBSETS[:, :, None, None, None], float("nan"))):
        found = onnx_logits(path, given, SUBSETS)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    one = onnx_logits(path, batch[:1], SUBSETS[:1])
    torch.testing.assert_close(one, expected[:1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected[0], network(batch[:1], SUBSETS[1:2])[0], atol=1e-2)


@torch.no_grad()
def test_onnx_of_the_image_alone_reads_presence_off_the_case(network, files):
    path = files["image_only"]
    batch = keep_only(image(15, 8, 8, 12), SUBSETS)
    expected = network(batch, SUBSETS)
    torch.testing.assert_close(onnx_logits(path, batch), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_no_file_finds_anything_where_all_that_is_given_is_zero(network, files):
    """As our own inference; every subset has an outline of its own, and windows may be cut."""
    batch = image(15, 8, 8, 8)
    batch[:, :, :2] = 0
    for channel in range(4):
        batch[:, channel, :, :channel] = 0
    given = keep_only(batch, SUBSETS)
    outside = ~brain_mask(batch, SUBSETS).expand(-1, 3, -1, -1, -1)
    assert 0 < outside.float().mean() < 1
    expected = network(batch, SUBSETS).masked_fill(outside, OUTSIDE_LOGIT)
    program = torch.export.load(files["program"]).module()
    answers = (
        program(batch, SUBSETS),
        onnx_logits(files["onnx"], batch, SUBSETS),
        onnx_logits(files["image_only"], given),
    )
    for found in answers:
        assert bool((found[outside] == OUTSIDE_LOGIT).all())
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_exported_program_gives_the_same_logits_on_every_subset(network, files):
    read = {"model.json": ""}
    program = torch.export.load(files["program"], extra_files=read).module()
    batch = image(15, 12, 8, 8)
    expected = network(batch, SUBSETS)
    torch.testing.assert_close(program(batch, SUBSETS), expected, atol=1e-4, rtol=1e-4)
    assert json.loads(read["model.json"]) == NOTE


@pytest.mark.slow
@pytest.mark.parametrize("kind", [UNet, ScanEncoderNetwork])
@torch.no_grad()
def test_other_networks_too(kind, tmp_path):
    made = randomised(kind(4, 3, **SHAPE))
    path = export(made, tmp_path / "model.onnx", NOTE, multiple=4)
    batch = image(15, 8, 12, 8)
    expected = made(batch, SUBSETS)
    found = onnx_logits(path, batch, SUBSETS)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_network_that_decides_by_the_case_is_refused_with_a_way_out(tmp_path):
    with pytest.raises(ValueError, match=r"DynamicSharing cannot be exported.*ckpt_export"):
        export(DynamicSharing(4, 3, **SHAPE), tmp_path / "model.pt2", NOTE)
    assert list(tmp_path.iterdir()) == []


def test_the_onnx_file_says_what_it_was_made_for(files):
    import onnx

    (entry,) = onnx.load(files["onnx"]).metadata_props
    assert (entry.key, json.loads(entry.value)) == ("model.json", NOTE)


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in .onnx or .pt2, got .*model.ts.*ckpt_export"):
        export(UNet(4, 3, **SHAPE), tmp_path / "model.ts", NOTE)


def test_without_onnx_the_error_names_the_extra_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr(module, "export_program", None)
    with pytest.raises(ImportError, match=r"'.\[export\]'"):
        export(UNet(4, 3, **SHAPE), tmp_path / "model.onnx", NOTE)
