"""Inference of whole cases: presence is decided once, then windows run inside the brain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from monai.transforms.utils import generate_spatial_bounding_box
from torch import Tensor, nn
from torch.nn.utils import convert_conv3d_weight_memory_format

from bundle.modalities import OUTSIDE_LOGIT, derive_presence, empty_outside, keep_only, plain


class PresenceInferer(Inferer):
    """Decide presence on the whole case, crop to the brain, run another inferer there, paste back.

    A window of a scanned modality may be all zero, so presence must never be guessed from a window;
    and MONAI Label hands over the image alone, so the inferer is the last place that sees the case.
    Where every present modality is exactly 0 nothing was scanned, and whatever the network says of
    it, the answer is background: for every network, in validation as in inference.

    Args:
        inferer: what runs inside the box, e.g. MONAI's SlidingWindowInferer.
        margin: voxels kept around the brain.
        divisible: the box is enlarged until its sides are multiples of this (where the volume
            allows), for a network without windows.
        amp: True = mixed precision, float16 on a GPU and bfloat16 on a CPU; logits are float32.
        channels_last: True = turn the weights of the network's 3D convolutions so that a voxel's
            channels lie side by side in memory: faster in bfloat16 on a CPU, slower in float32.
            Their values stay. The inferer does it because a host may build the network itself, and
            because a network may return new weights for a case (`personalise`).
    """

    def __init__(
        self,
        inferer: Inferer,
        margin: int = 4,
        divisible: int = 1,
        amp: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.inferer = inferer
        self.margin = margin
        self.divisible = divisible
        self.amp = amp
        self.channels_last = channels_last

    def __call__(
        self,
        inputs: Tensor,
        network: Callable[..., Tensor],
        *args: Any,
        present: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Predict region logits of whole cases.

        Args:
            inputs: (B, M, D, H, W) z-scores, exactly 0 outside the brain and in absent modalities.
            network: called as `network(window, present)`, (N, M, ...) and (N, M) bool. If it has
                `personalise(present (M,))`, what that returns is called in its place.
            present: (B, M) bool, True = available; None = every channel that is not all zero.

        Returns:
            (B, R, D, H, W) logits; -20 wherever every present modality is exactly 0.

        Raises:
            ValueError: a case with nothing present.
        """
        inputs = plain(inputs)
        present = find_presence(inputs, present)
        if not bool(present.any(1).all()):
            rows = (~present.any(1)).nonzero().flatten().tolist()
            raise ValueError(
                f"expected at least one modality in every case, got none in item {rows} of the "
                "batch: all channels are zero, or were dropped. Check that the files are not empty."
            )
        cases = [
            self._infer_case(inputs[i : i + 1], present[i : i + 1], network, *args, **kwargs)
            for i in range(len(inputs))
        ]
        return torch.cat(cases)

    def _infer_case(
        self,
        image: Tensor,
        present: Tensor,
        network: Callable[..., Tensor],
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        image = keep_only(image, present)
        box = self._brain_box(image[0])
        # Once per case, so that no window pays for what depends on the subset alone.
        if hasattr(network, "personalise") and not isinstance(network, torch.jit.ScriptModule):
            network = network.personalise(present[0])
        if self.channels_last and isinstance(network, nn.Module):
            network = convert_conv3d_weight_memory_format(network, torch.channels_last_3d)

        def predict(window: Tensor, *extra: Any, **named: Any) -> Tensor:
            with torch.autocast(window.device.type, enabled=self.amp):
                logits = network(window, present.expand(len(window), -1), *extra, **named)
            return logits.float()

        logits = self.inferer(image[(..., *box)].contiguous(), predict, *args, **kwargs)
        shape = (*logits.shape[:2], *image.shape[2:])
        whole = torch.full(shape, OUTSIDE_LOGIT, dtype=logits.dtype, device=logits.device)
        whole[(..., *box)] = logits
        return empty_outside(whole, image, present)

    def _brain_box(self, image: Tensor) -> tuple[slice, ...]:
        start, end = generate_spatial_bounding_box(
            image, select_fn=inside_brain, margin=self.margin
        )
        return tuple(
            self._widen(low, high, size)
            for low, high, size in zip(start, end, image.shape[1:], strict=True)
        )

    def _widen(self, low: int, high: int, size: int) -> slice:
        length = min(-(-(high - low) // self.divisible) * self.divisible, size)
        low = max(0, min(low, size - length))
        return slice(low, low + length)


def find_presence(image: Tensor, present: Tensor | None = None) -> Tensor:
    """Say which modalities of whole cases may be used: available, and not zero everywhere.

    Args:
        image: (B, M, D, H, W), background exactly 0.
        present: (B, M) bool, True = available; None = every modality is.

    Returns:
        (B, M) bool on the image's device, True = may be used.
    """
    scanned = derive_presence(image)
    return scanned if present is None else present.to(image.device) & scanned


def inside_brain(image: Tensor) -> Tensor:
    """Mark the voxels that are not exactly 0; skull-stripped volumes are 0 outside the brain."""
    return image != 0
