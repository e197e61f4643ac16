"""The methods as the benchmark trains and deploys them, made by hand so that they can be measured.

Names are the labels of `bundle.benchmark.grids` wherever those have one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from monai.losses import DeepSupervisionLoss, DiceLoss
from torch import Tensor, nn

from bundle.benchmark.plan import GMD_NOT_DECOUPLED, PCGRAD_UNET
from bundle.methods.base import Method
from bundle.methods.baselines.modality_dropout import ModalityDropout
from bundle.methods.gmd.method import GMD
from bundle.methods.lckd.method import LCKD
from bundle.methods.universal.codistillation import CoDistillation
from bundle.methods.universal.distribution import DistributionApproximation
from bundle.methods.universal.pretraining import MaskedPretraining
from bundle.modalities import BRATS_MODALITIES, brain_mask, keep_only
from bundle.networks.descriptors import DESCRIPTORS
from bundle.networks.distribution_bank import DistributionBank
from bundle.networks.dynamic_sharing import DynamicSharing
from bundle.networks.placement import place
from bundle.networks.scan_encoder import ScanEncoderNetwork
from bundle.networks.unet import UNet
from bundle.networks.universal import UniversalNetwork

MODALITIES, REGIONS = len(BRATS_MODALITIES), ("TC", "WT", "ET")
WIDTH: Mapping[str, Any] = {"filters": 8, "blocks_down": (1, 1, 1, 1), "deep_supervision": 2}
SUBSET = (True, False, True, True)
# As at a missing ratio of one half: half of the scans are absent, each case lacking others.
HALF = ((True, True, False, False), (False, True, True, False))
COMPLETE = ((True,) * MODALITIES,)

PLAIN, STAGE_1, STAGE_2 = "plain", "stage 1", "stage 2"
NO_DISTILLATION = "LCKD, no distillation"


class Measured(NamedTuple):
    """Where a method's costs are found.

    Attributes:
        step: its name in `METHODS`.
        network: the one of `NETWORKS` that is deployed.
    """

    step: str
    network: str


# By the label of a grid. One specialist is a plain network; a set of them is fifteen.
MEASURED: Mapping[str, Measured] = {
    "modality_dropout": Measured(PLAIN, PLAIN),
    "full_only": Measured(PLAIN, PLAIN),
    "universal": Measured(STAGE_2, "personalised"),
    "LCKD": Measured("LCKD", "LCKD"),
    "GMD": Measured("GMD", "GMD personalised"),
    GMD_NOT_DECOUPLED: Measured(GMD_NOT_DECOUPLED, "GMD personalised"),
    PCGRAD_UNET: Measured(PCGRAD_UNET, PLAIN),
}


def training_batch(crop: int, batch: int, rows: tuple[tuple[bool, ...], ...]) -> dict[str, Tensor]:
    """Make up a batch.

    Args:
        crop: voxels along each side.
        batch: B.
        rows: what the first cases have, repeated for the others; True = available.

    Returns:
        As `Method.losses` takes it.
    """
    return {
        "image": torch.randn(batch, MODALITIES, crop, crop, crop),
        "present": torch.tensor(rows * batch)[:batch],
        "label": (torch.rand(batch, len(REGIONS), crop, crop, crop) > 0.8).float(),
    }


def criteria() -> dict[str, nn.Module]:
    """Return the loss terms of train.json."""
    return {
        "dice": DeepSupervisionLoss(DiceLoss(sigmoid=True, batch=True, smooth_nr=0.0)),
        "cross_entropy": DeepSupervisionLoss(nn.BCEWithLogitsLoss()),
    }


def _pretraining(data: Mapping[str, Tensor]) -> MaskedPretraining:
    """Return stage 1 as the configs have it, its bank filled with the batch."""
    bank = DistributionBank(MODALITIES, len(DESCRIPTORS))
    distribution = DistributionApproximation(bank, patch=4, minimum_patches=1)
    image = keep_only(data["image"], data["present"])
    distribution.update(image, data["present"], brain_mask(image, data["present"]))
    network = NETWORKS["universal"]().autoencoder
    return MaskedPretraining(network, patch=8, distribution=distribution)


def _lckd(weight: float) -> LCKD:
    """Return LCKD after an election in which T1ce won two regions and FLAIR one."""
    method = LCKD(
        NETWORKS["LCKD"](), criteria(), BRATS_MODALITIES, REGIONS, distillation_weight=weight
    )
    winners = {"TC": "t1ce", "WT": "flair", "ET": "t1ce"}
    won = torch.tensor([[winners[r] == m for r in REGIONS] for m in BRATS_MODALITIES])
    method.elect(won.double(), torch.ones_like(won).double())
    return method


def _gmd(network: str, decouple: bool) -> GMD:
    return GMD(NETWORKS[network](), criteria(), BRATS_MODALITIES, decouple=decouple)


# Made of the batch that they will be trained on.
METHODS: Mapping[str, Callable[[Mapping[str, Tensor]], Method]] = {
    PLAIN: lambda data: ModalityDropout(NETWORKS[PLAIN](), criteria()),
    STAGE_1: _pretraining,
    STAGE_2: lambda data: CoDistillation(NETWORKS["universal"](), criteria()),
    "LCKD": lambda data: _lckd(0.1),
    NO_DISTILLATION: lambda data: _lckd(0.0),
    "GMD": lambda data: _gmd("GMD", True),
    GMD_NOT_DECOUPLED: lambda data: _gmd("GMD", False),
    PCGRAD_UNET: lambda data: _gmd(PLAIN, True),
}


def _made(kind: type[nn.Module]) -> nn.Module:
    return place(kind(MODALITIES, len(REGIONS), **WIDTH), "cpu", channels_last=True)


# "personalised" is the universal one; LCKD's has no such form.
NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    PLAIN: lambda: _made(UNet),
    "personalised": lambda: _made(UniversalNetwork).personalise(torch.tensor(SUBSET)),
    "universal": lambda: _made(UniversalNetwork),
    "LCKD": lambda: _made(ScanEncoderNetwork),
    "GMD personalised": lambda: _made(DynamicSharing).personalise(torch.tensor(SUBSET)),
    "GMD": lambda: _made(DynamicSharing),
}


def training_step(method: Method, data: Mapping[str, Tensor], amp: bool) -> Callable[[], None]:
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


def window(network: nn.Module, side: int, amp: bool) -> Callable[[], None]:
    """Return the inference of one window of `SUBSET`, with voxels along each side."""
    image = torch.randn(1, MODALITIES, side, side, side)
    present = torch.tensor([SUBSET])
    network.eval()

    def forward() -> None:
        with torch.inference_mode(), torch.autocast("cpu", enabled=amp):
            network(image, present)

    return forward
