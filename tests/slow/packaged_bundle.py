r"""Use an unpacked bundle as a stranger would; run by test_package.py in a process of its own.

    PYTHONPATH=FOLDER/brats_missing_modality_segmentation \
        python packaged_bundle.py FOLDER SCHEMA DATA

The working directory is empty at the start. Whatever is wrong raises.
"""

from __future__ import annotations

import logging
import shutil
import sys
import warnings
from pathlib import Path

import onnxruntime
import torch
from monai.bundle import (
    ckpt_export,
    create_workflow,
    load,
    onnx_export,
    verify_metadata,
    verify_net_in_out,
)
from torch import Tensor

import bundle
from bundle.modalities import BRATS_MODALITIES, all_subsets, keep_only, presence

NAME = "brats_missing_modality_segmentation"
SUBSETS = torch.stack([presence(s, BRATS_MODALITIES) for s in all_subsets(BRATS_MODALITIES)])
SIZE = (32, 32, 32)


def load_every_workflow(folder: Path) -> torch.nn.Module:
    """Load the network of each workflow, every key, and return the last."""
    state = torch.load(folder / NAME / "models" / "model.pt", weights_only=True)
    for kind in ("train", "inference", "evaluation"):
        network = load(NAME, bundle_dir=str(folder), workflow_type=kind, device="cpu")
        own = network.state_dict()
        same = [
            key for key, value in own.items() if key in state and torch.equal(state[key], value)
        ]
        print(f"{kind}: {len(same)} of {len(state)} keys loaded, the network has {len(own)}")
        assert len(same) == len(state) == len(own)
    return network.eval()


def check_workflows(root: Path, data: Path) -> None:
    """Build each workflow that is complete by itself; nothing that MONAI wants may be missing."""
    for kind in ("train", "inference", "evaluation"):
        built = create_workflow(
            config_file=str(root / "configs" / f"{kind}.json"),
            workflow_type=kind,
            device="cpu",
            dataset_dir=str(data),
        )
        missing = built.check_properties()
        print(f"{kind}: missing properties {missing}")
        assert missing == []


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def check_torchscript(root: Path, network: torch.nn.Module) -> None:
    """Export with MONAI's tool; with and without `present` every subset must agree."""
    ckpt_export(
        net_id="network_def",
        filepath="model.ts",
        ckpt_file=str(root / "models" / "model.pt"),
        meta_file=str(root / "configs" / "metadata.json"),
        config_file=str(root / "configs" / "inference.json"),
    )
    scripted = torch.jit.load("model.ts")
    case = torch.randn(len(SUBSETS), 4, *SIZE)
    close(scripted(case, SUBSETS), network(case, SUBSETS))
    close(scripted(keep_only(case, SUBSETS)), network(case, SUBSETS))


@torch.no_grad()
def check_onnx(root: Path, network: torch.nn.Module) -> None:
    """Export with MONAI's tool, which gives the image alone; every subset must agree."""
    onnx_export(
        net_id="network_def",
        filepath="model.onnx",
        ckpt_file=str(root / "models" / "model.pt"),
        meta_file=str(root / "configs" / "metadata.json"),
        config_file=str(root / "configs" / "inference.json"),
        input_shape=[1, 4, *SIZE],
    )
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    for present in SUBSETS[:, None]:
        case = keep_only(torch.randn(1, 4, *SIZE), present)
        (found,) = session.run(None, {given.name: case.numpy()})
        close(torch.from_numpy(found), network(case, present))


def main(folder: Path, schema: Path, data: Path) -> None:
    root = folder / NAME
    assert Path(bundle.ROOT).resolve() == root.resolve(), f"the code came from {bundle.ROOT}"
    network = load_every_workflow(folder)
    check_workflows(root, data)
    metadata = str(root / "configs" / "metadata.json")
    shutil.copy(schema, "schema.json")
    verify_metadata(meta_file=metadata, filepath="schema.json", create_dir=False)
    config = str(root / "configs" / "inference.json")
    # The default, which the zoo's checks use: the smallest size that the metadata allow.
    verify_net_in_out("network_def", metadata, config, device="cpu")
    check_torchscript(root, network)
    check_onnx(root, network)
    print("all is well")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.WARNING)
    torch.manual_seed(0)
    main(*(Path(argument).resolve() for argument in sys.argv[1:]))
