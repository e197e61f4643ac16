"""What the universal model costs beside a plain U-Net of the same width: ratios from one run."""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.losses import DeepSupervisionLoss, DiceLoss
from torch import Tensor, nn

from bundle.atomic import write_text_atomically
from bundle.benchmark.provenance import circumstances
from bundle.methods.base import Method
from bundle.methods.codistillation import CoDistillation
from bundle.methods.distribution_approximation import DistributionApproximation
from bundle.methods.masked_pretraining import MaskedPretraining
from bundle.methods.modality_dropout import ModalityDropout
from bundle.modalities import brain_mask, keep_only
from bundle.networks.descriptors import DESCRIPTORS
from bundle.networks.distribution_bank import DistributionBank
from bundle.networks.masked_autoencoder import MaskedAutoencoder
from bundle.networks.unet import UNet
from bundle.networks.universal import UniversalNetwork

FILE = "cost.json"
MODALITIES, REGIONS = 4, 3
WIDTH: Mapping[str, Any] = {"filters": 8, "blocks_down": (1, 1, 1, 1), "deep_supervision": 2}
SUBSET = (True, False, True, True)


def measure(
    crop: int = 32, window: int = 96, batch: int = 4, repeats: int = 15, amp: bool = True
) -> dict[str, Any]:
    """Measure everything in one go, each repeat of one thing beside the same repeat of the others.

    Args:
        crop: voxels along each side of a training crop.
        window: voxels along each side of an inference window.
        batch: crops in a training batch.
        repeats: of which the median counts.
        amp: mixed precision, as the benchmark trains.

    Returns:
        A JSON-able dictionary: `settings`, `seconds` (median of each thing), `mebibytes` (what one
        window adds to the peak of resident memory, read from Linux's /proc) and `ratios` to the
        plain U-Net's.
    """
    torch.manual_seed(0)
    seconds = {
        **_medians(_steps(crop, batch, amp), repeats),
        **_medians(_windows(window, amp), repeats),
    }
    mebibytes = {
        name: _peak_in_own_process(name, window, amp) for name in ("plain", "personalised")
    }
    return {
        "settings": {
            "crop": crop,
            "window": window,
            "batch": batch,
            "repeats": repeats,
            "amp": amp,
            "threads": torch.get_num_threads(),
        },
        "seconds": seconds,
        "mebibytes": mebibytes,
        "ratios": {
            "step of stage 1": seconds["stage 1 step"] / seconds["plain step"],
            "step of stage 2": seconds["stage 2 step"] / seconds["plain step"],
            "window": seconds["personalised window"] / seconds["plain window"],
            "window, not personalised": seconds["universal window"] / seconds["plain window"],
            "memory of a window": mebibytes["personalised"] / mebibytes["plain"],
        },
    }


def _medians(things: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Time things in turn, so that a machine that slows down slows all of them down."""
    taken: dict[str, list[float]] = {name: [] for name in things}
    for repeat in range(repeats + 1):
        for name, thing in things.items():
            start = time.perf_counter()
            thing()
            # The first round fills caches and chooses kernels.
            if repeat:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def _steps(crop: int, batch: int, amp: bool) -> dict[str, Callable[[], None]]:
    data = {
        "image": torch.randn(batch, MODALITIES, crop, crop, crop),
        # As at a missing ratio of one half: half of the scans are absent, each case lacking others.
        "present": torch.tensor([[True, True, False, False], [False, True, True, False]] * batch)[
            :batch
        ],
        "label": (torch.rand(batch, REGIONS, crop, crop, crop) > 0.8).float(),
    }
    criteria = {
        "dice": DeepSupervisionLoss(DiceLoss(sigmoid=True, batch=True)),
        "cross_entropy": DeepSupervisionLoss(nn.BCEWithLogitsLoss()),
    }
    universal = UniversalNetwork(MODALITIES, REGIONS, **WIDTH)
    return {
        "plain step": _step(
            ModalityDropout(UNet(MODALITIES, REGIONS, **WIDTH), criteria), data, amp
        ),
        "stage 1 step": _step(_pretraining(universal.autoencoder, data), data, amp),
        "stage 2 step": _step(CoDistillation(universal, criteria), data, amp),
    }


def _pretraining(network: MaskedAutoencoder, data: Mapping[str, Tensor]) -> MaskedPretraining:
    """Return stage 1 as the configs have it, its bank filled with the batch."""
    bank = DistributionBank(MODALITIES, len(DESCRIPTORS))
    distribution = DistributionApproximation(bank, patch=4, minimum_patches=1)
    image = keep_only(data["image"], data["present"])
    distribution.update(image, data["present"], brain_mask(image, data["present"]))
    return MaskedPretraining(network, patch=8, distribution=distribution)


def _step(method: Method, data: Mapping[str, Tensor], amp: bool) -> Callable[[], None]:
    """Return one whole training step: losses, gradients, optimiser and moving average."""
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    teacher = getattr(method, "teacher", None)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", enabled=amp):
            losses = method.losses(data)
        method.backward(losses)
        optimizer.step()
        if teacher is not None:
            teacher.update_parameters(method.network)

    return step


def _windows(window: int, amp: bool) -> dict[str, Callable[[], None]]:
    image = torch.randn(1, MODALITIES, window, window, window)
    present = torch.tensor([SUBSET])
    networks = {
        "plain window": _network("plain"),
        "personalised window": _network("personalised"),
        "universal window": UniversalNetwork(MODALITIES, REGIONS, **WIDTH).eval(),
    }
    return {name: _forward(network, image, present, amp) for name, network in networks.items()}


def _network(name: str) -> nn.Module:
    if name == "plain":
        return UNet(MODALITIES, REGIONS, **WIDTH).eval()
    universal = UniversalNetwork(MODALITIES, REGIONS, **WIDTH)
    return universal.personalise(torch.tensor(SUBSET))


def _forward(network: nn.Module, image: Tensor, present: Tensor, amp: bool) -> Callable[[], None]:
    def forward() -> None:
        with torch.inference_mode(), torch.autocast("cpu", enabled=amp):
            network(image, present)

    return forward


def _peak_in_own_process(name: str, window: int, amp: bool) -> float:
    """Peak of memory that a window adds, in MiB; in a process of its own, which frees all of it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (name, window, amp))


def _peak(name: str, window: int, amp: bool) -> float:
    torch.set_num_threads(1)
    network, present = _network(name), torch.tensor([SUBSET])
    image = torch.randn(1, MODALITIES, window, window, window)
    _forward(network, image[..., :16, :16, :16], present, amp)()
    # Importing took more memory than a window does: Linux is told to forget that peak.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_so_far()
    _forward(network, image, present, amp)()
    return _peak_so_far() - before


def _peak_so_far() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10


def write(output_dir: str) -> str:
    """Measure into `cost.json` in the folder; return the table."""
    costs = {**measure(), **circumstances()}
    write_text_atomically(Path(output_dir) / FILE, json.dumps(costs, indent=1) + "\n")
    return table(costs)


def table(costs: Mapping[str, Any]) -> str:
    """Write the ratios as a Markdown table, with the limits that they are held against."""
    limits: Sequence[tuple[str, str]] = (
        ("step of stage 1", ""),
        ("step of stage 2", "2.5"),
        ("window", "1.15"),
        ("window, not personalised", ""),
        ("memory of a window", "1.15"),
    )
    lines = ["| ratio to the plain U-Net | measured | limit |", "|:---|---:|---:|"]
    lines += [f"| {name} | {costs['ratios'][name]:.2f} | {limit} |" for name, limit in limits]
    return "\n".join(lines) + "\n"
