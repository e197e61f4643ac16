"""The deployed network as one file for other programs: ONNX, or PyTorch's exported program."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from bundle.atomic import written_atomically
from bundle.modalities import derive_presence, empty_outside

SUFFIXES = (".onnx", ".pt2")


class DeployedNetwork(nn.Module):
    """A network that answers "background" where nothing was scanned, as our inference does.

    Its answer for a voxel outside depends on this voxel alone, so that it holds for windows, too.

    Args:
        network: called as `network(image, present)`.
        image_only: True = presence is read off the image, which is then a whole case.
    """

    def __init__(self, network: nn.Module, image_only: bool = False) -> None:
        super().__init__()
        self.network = network
        self.image_only = image_only

    def forward(self, image: Tensor, present: Tensor | None = None) -> Tensor:
        """Predict region logits (B, R, D, H, W); -20 where every present modality is 0.

        Args:
            image: (B, M, D, H, W) z-scores, exactly 0 outside the brain.
            present: (B, M) bool, True = available; not given to a network of the image alone.
        """
        if self.image_only:
            return empty_outside(self.network(image), image, derive_presence(image))
        return empty_outside(self.network(image, present), image, present)


def export_program(
    network: nn.Module, modalities: int, image_only: bool = False, multiple: int = 16
) -> ExportedProgram:
    """Export a network as one graph for any number of cases, any size and any subset.

    Args:
        network: called as `network(image, present)`.
        modalities: M.
        image_only: True = the graph takes `image` alone and reads presence off it: a channel that
            is zero everywhere is absent. That holds for whole cases, not for windows.
        multiple: D, H and W will be multiples of this, at least twice it. Other sizes that the
            network can take may work, and are not promised.

    Returns:
        A program of `image` (B, M, D, H, W) float32 and, unless `image_only`, `present` (B, M)
        bool, True = available. It gives region logits (B, R, D, H, W), -20 wherever every present
        modality is exactly 0.

    Raises:
        ValueError: PyTorch cannot make one graph of the network.
    """
    # A size that appears twice, or a batch of one, would be taken for a constant.
    image = torch.randn(2, modalities, 2 * multiple, 3 * multiple, 4 * multiple)
    present = torch.ones(2, modalities, dtype=torch.bool)
    present[1, 0] = False
    batch, sides = Dim("batch"), (Dim("depth", min=2), Dim("height", min=2), Dim("width", min=2))
    sizes = {0: batch} | {axis: multiple * side for axis, side in enumerate(sides, 2)}
    deployed = DeployedNetwork(network, image_only).eval()
    try:
        with torch.no_grad():
            if image_only:
                image[1, 0] = 0
                return torch.export.export(deployed, (image,), dynamic_shapes=(sizes,))
            shapes = (sizes, {0: batch})
            return torch.export.export(deployed, (image, present), dynamic_shapes=shapes)
    except RuntimeError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{type(network).__name__} cannot be exported as one graph for all subsets ({reason}). "
            "Export it as TorchScript: python -m monai.bundle ckpt_export."
        ) from error


def to_onnx(program: ExportedProgram, notes: Mapping[str, str] | None = None) -> bytes:
    """Translate an exported program into an ONNX file.

    Args:
        program: see `export_program`; the inputs keep their names, the output is `logits`.
        notes: what a reader should know, kept in the file's properties.

    Raises:
        ImportError: the extra `export` is not installed.
    """
    onnx = _import_onnx()
    made = torch.onnx.export(program, dynamo=True, output_names=["logits"], verbose=False)
    proto = made.model_proto
    onnx.helper.set_model_props(proto, dict(notes or {}))
    return proto.SerializeToString()


def _import_onnx() -> ModuleType:
    try:
        import onnx
        import onnxscript  # noqa: F401 (asked for here, because PyTorch's own message is long)
    except ImportError as error:
        raise ImportError(
            "writing ONNX needs onnx and onnxscript: pip install -c constraints.txt -e '.[export]'"
        ) from error
    return onnx


def export(
    network: nn.Module,
    path: str | Path,
    note: Mapping[str, Any],
    image_only: bool = False,
    multiple: int = 16,
) -> Path:
    """Write a network to a file that needs none of this code.

    Args:
        network: the deployed network, weights loaded.
        path: ends in `.onnx` or in `.pt2`.
        note: what the weights were made for and with; kept inside the file as JSON, under
            `model.json`. `modalities` tells the order of the input's channels.
        image_only, multiple: see `export_program`.

    Returns:
        The path.

    Raises:
        ValueError: another ending, or a network that is not one graph.
        ImportError: ONNX without the extra `export`.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"expected a file that ends in {' or '.join(SUFFIXES)}, got {path}. For TorchScript "
            "use python -m monai.bundle ckpt_export."
        )
    if path.suffix == ".onnx":
        _import_onnx()  # before the minutes that a large network takes
    program = export_program(network, len(note["modalities"]), image_only, multiple)
    notes = {"model.json": json.dumps(note)}
    if path.suffix == ".onnx":
        content = to_onnx(program, notes)
    else:
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files=notes)
        content = buffer.getvalue()
    with written_atomically(path) as file:
        file.write(content)
    return path
