"""Stage 1: rebuild masked patches and dropped modalities; supervise the absent ones as well."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from bundle.losses.rebuilding import rebuilding_error
from bundle.methods.base import Method
from bundle.methods.drawing import Drawing
from bundle.methods.universal.distribution import DistributionApproximation
from bundle.modalities import brain_mask, keep_only, plain

logger = logging.getLogger(__name__)


class MaskedPretraining(Method):
    """Train a masked autoencoder on cases as they are, gaps included.

    Of every case some modalities are dropped, then patches of the remaining ones are masked, until
    `masking` of all patches that were scanned are hidden. What was scanned is rebuilt with a
    target; what was not is supervised by `distribution`. Randomness comes from PyTorch's global
    generator.

    Args:
        network: a `bundle.networks.masked_autoencoder.MaskedAutoencoder`.
        masking: share of the scanned patches that the encoder does not see, 0 to below 1.
        patch: voxels along each side of a patch.
        distribution: distribution approximation for the absent modalities; None = none.
        every_modality: True = refuse to start where the bank has never seen one; False = leave it
            out, with a warning, as in a federation whose sites together lack it.

    Raises:
        ValueError: `masking` or `patch` outside its range.

    Source: our reading of arXiv 2406.01987, design.md section 1.1.
    """

    def __init__(
        self,
        network: nn.Module,
        masking: float = 0.875,
        patch: int = 8,
        distribution: DistributionApproximation | None = None,
        every_modality: bool = True,
        drawing: Drawing | None = None,
    ) -> None:
        super().__init__(network)
        if not 0 <= masking < 1:
            raise ValueError(
                f"expected masking from 0 to below 1, got {masking}. "
                "It is the share of the scanned patches to hide, 0.875 by default."
            )
        if patch < 1:
            raise ValueError(f"expected patches of at least 1 voxel, got {patch}. Set 'patch'.")
        self.masking = masking
        self.patch = patch
        self.distribution = distribution
        self.every_modality = every_modality
        self.drawing = drawing or Drawing()

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute `rebuilding` and the terms of `distribution`; shapes as in `Method.losses`."""
        present = batch["present"]
        image = keep_only(batch["image"], present)
        brain = brain_mask(image, present)
        visible = draw_visible(
            present, image.shape[2:], self.masking, self.patch, drawing=self.drawing
        )
        rebuilt = self.network.rebuild(self.network.encode(image, visible))
        losses = {"rebuilding": rebuilding_error(rebuilt, image, present, brain)}
        if self.distribution is not None:
            losses |= self.distribution(rebuilt, image, present, brain)
        return losses

    def attach(self, engine: Engine) -> None:
        """Have the bank filled before the first step, once a former state has been loaded."""
        if self.distribution is None:
            return
        if not engine.has_event_handler(self.fill_bank, Events.EPOCH_STARTED):
            engine.add_event_handler(Events.EPOCH_STARTED, self.fill_bank)

    def fill_bank(self, engine: Engine) -> None:
        """Fill the bank with one pass over the training cases, unless it holds something.

        Raises:
            ValueError: a modality that no training case has, unless that is allowed.
        """
        if not bool(self.distribution.bank.counts.any()):
            self.add_statistics(engine.data_loader, engine.state.device)
        try:
            self.distribution.bank.check_seen()
        except ValueError as error:
            if self.every_modality:
                raise
            logger.warning(f"{error} It is left out here.")

    def add_statistics(self, batches: Iterable[Mapping[str, Any]], device: torch.device) -> bool:
        """Add cases to the bank, each of them once; arguments and result as in `Method`."""
        if self.distribution is None:
            return False
        if isinstance(batches, DataLoader):
            batches = _every_case(batches)
        elif hasattr(batches, "every_case"):
            batches = batches.every_case()
        for batch in tqdm(batches, "collecting statistics", disable=None):
            image = plain(torch.as_tensor(batch["image"])).to(device)
            present = plain(torch.as_tensor(batch["present"])).to(device)
            image = keep_only(image, present)
            self.distribution.update(image, present, brain_mask(image, present))
        return True


def _every_case(loader: DataLoader) -> DataLoader:
    """Load each case once, whichever of them the sampler of an epoch would draw."""
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
    )


def draw_visible(
    present: Tensor,
    size: tuple[int, ...],
    masking: float,
    patch: int,
    generator: torch.Generator | None = None,
    drawing: Drawing | None = None,
) -> Tensor:
    """Draw which patches of which modalities the encoder sees.

    First a non-empty subset of the present modalities; then, among its patches
    and without replacement, `1 - masking` of the number that was scanned, or all where dropping
    has hidden that many already.

    Args:
        present: (B, M) bool, True = available.
        size: D, H, W in voxels; a last patch may be cut off by the edge.
        masking: share of the scanned patches to hide.
        patch: voxels along each side of a patch.
        generator: source of randomness on the CPU; None = PyTorch's global one.
        drawing: how the subset is drawn; None = uniformly.

    Returns:
        (B, M, D, H, W) bool, True = visible; at least one patch a case.
    """
    kept = (drawing or Drawing())(present, generator).cpu()
    grid = [-(-length // patch) for length in size]
    patches = grid[0] * grid[1] * grid[2]
    visible = torch.zeros(*present.shape, patches, dtype=torch.bool)
    for case, modalities in enumerate(kept):
        candidates = modalities.repeat_interleave(patches).nonzero().flatten()
        count = max(1, round((1 - masking) * int(present[case].sum()) * patches))
        chosen = candidates[torch.randperm(len(candidates), generator=generator)[:count]]
        visible[case].view(-1)[chosen] = True
    visible = visible.reshape(*present.shape, *grid)
    for axis, length in enumerate(size, start=2):
        visible = visible.repeat_interleave(patch, axis).narrow(axis, 0, length)
    return visible.to(present.device)
