"""What inference can write beside the segmentation: rebuilt scans, and where subsets disagree."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.engines.utils import IterationEvents
from monai.transforms import MapTransform
from torch import Tensor, nn

from bundle.inference.inferers import PresenceInferer, find_presence
from bundle.inference.temperatures import Temperatures
from bundle.modalities import OUTSIDE_LOGIT, fill_in, names_of, plain

logger = logging.getLogger(__name__)


def complete(
    inferer: PresenceInferer, autoencoder: nn.Module, image: Tensor, present: Tensor
) -> Tensor:
    """Fill in the absent modalities of whole cases; what was scanned stays bit for bit.

    Args:
        inferer: runs the autoencoder over windows of the brain.
        autoencoder: `autoencoder(window, present)` rebuilds every modality, as in
            `bundle.networks.masked_autoencoder`.
        image: (B, M, D, H, W) z-scores (unit: standard deviations of the case's brain), exactly 0
            outside the brain; an absent modality may hold anything.
        present: (B, M) bool, True = scanned.

    Returns:
        (B, M, D, H, W), same unit; rebuilt modalities are exactly 0 outside the brain, which is
        where any present one is not 0.
    """
    if bool(present.all()):
        return image
    # What the inferer gives outside the brain are no z-scores, and none of it is left.
    return fill_in(image, inferer(image, autoencoder, present=present), present)


def disagreement(
    inferer: PresenceInferer,
    network: Callable[..., Tensor],
    image: Tensor,
    present: Tensor,
    logits: Tensor,
    completed: Tensor | None = None,
    temperatures: Temperatures | None = None,
) -> Tensor:
    """Measure how much the segmentations from different modalities of one case differ.

    The members are what inference would give from the present modalities, from each subset that
    lacks one of them, and from the completed case if something is missing. Each counts the same.

    Args:
        inferer, network: as in inference; every member has a personalised network of its own.
        image: (B, M, D, H, W) z-scores, exactly 0 outside the brain.
        present: (B, M) bool, True = scanned, at least one in a row.
        logits: (B, R, D, H, W), the first member: `inferer(image, network, present=present)`.
        completed: (B, M, D, H, W) from `complete`; None = no such member.
        temperatures: each member's probabilities are calibrated with those of its subset, the
            completed case with those of all modalities; None = they are the network's own.

    Returns:
        (B, 1, D, H, W), the standard deviation of the region probabilities over the members, at its
        largest over the regions: from 0, all agree, to 0.5, half of them are certain of the
        opposite. Exactly 0 also where a case has only one member.

    Source: ours. It costs k + 1 passes for k present modalities, one less where nothing is missing.
    """

    def probabilities(logits: Tensor, given: Tensor) -> Tensor:
        if temperatures is not None:
            # The -20 outside the brain stays, so that nothing is left there whatever T is.
            cooled = temperatures.cool(logits[0], given)[None]
            logits = torch.where(logits <= OUTSIDE_LOGIT, logits, cooled)
        return logits.sigmoid()

    def members(i: int) -> Iterator[Tensor]:
        case = slice(i, i + 1)
        yield probabilities(logits[case], present[i])
        for keep in _leave_one_out(present[i]):
            yield probabilities(inferer(image[case], network, present=keep[None]), keep)
        if completed is not None and not bool(present[i].all()):
            whole = torch.ones_like(present[i])
            yield probabilities(inferer(completed[case], network), whole)

    spreads = [_standard_deviation(members(i)) for i in range(len(image))]
    return torch.cat(spreads).amax(1, keepdim=True)


def _leave_one_out(present: Tensor) -> Iterator[Tensor]:
    """List the subsets (M,) that lack one of the present modalities and are not empty."""
    for channel in present.nonzero().flatten().tolist():
        keep = present.clone()
        keep[channel] = False
        if bool(keep.any()):
            yield keep


def _standard_deviation(members: Iterable[Tensor]) -> Tensor:
    """Standard deviation, without keeping the members; exactly 0 where all are equal (Welford)."""
    mean = total = torch.zeros(())
    count = 0
    for member in members:
        count += 1
        change = member - mean
        mean = mean + change / count
        total = total + change * (member - mean)
    return (total / count).sqrt()


class ExtraOutputs:
    """Handler that adds `rebuilt` and `uncertainty` to what an evaluator has predicted.

    `rebuilt` (B, M, D, H, W) is `complete`'s answer, `uncertainty` (B, 1, D, H, W) that of
    `disagreement`; a network without an autoencoder gives the latter without the completed case.
    The evaluator's inferer must be a `PresenceInferer`. Both lie on the network's grid; the
    postprocessing brings them to the input's, and empties them outside the scans again.

    Args:
        rebuilt: True = add the rebuilt modalities; one more pass where something is missing.
        uncertainty: True = add the uncertainty; up to k + 2 more passes for k present modalities.
        temperatures: as in `disagreement`.
    """

    def __init__(
        self,
        rebuilt: bool = False,
        uncertainty: bool = False,
        temperatures: Temperatures | None = None,
    ) -> None:
        self.rebuilt = rebuilt
        self.uncertainty = uncertainty
        self.temperatures = temperatures

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator; if neither output is wanted, nothing is computed."""
        if self.rebuilt:
            engine.add_event_handler(Events.STARTED, self.check)
        if self.rebuilt or self.uncertainty:
            # Later the output is a list of cases, and the predictions are no logits any more.
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def check(self, engine: Engine) -> None:
        """Refuse a network that cannot rebuild, before any case is segmented.

        Raises:
            ValueError: the network has no autoencoder.
        """
        if not hasattr(engine.network, "autoencoder"):
            raise ValueError(
                "save_rebuilt: expected a network with an autoencoder, as in the universal network "
                "that co-distillation trains (the default of train.json), got a "
                f"{type(engine.network).__name__}. Use such weights, or --save_rebuilt false."
            )

    def __call__(self, engine: Engine) -> None:
        """Compute, after the forward pass of a batch."""
        output, network, inferer = engine.state.output, engine.network, engine.inferer
        image = plain(output["image"])
        present = find_presence(image, engine.state.batch["present"])
        autoencoder = getattr(network, "autoencoder", None)
        with engine.mode(network):
            completed = None
            if autoencoder is not None:
                completed = complete(inferer, autoencoder, image, present)
            if self.rebuilt:
                output["rebuilt"] = completed
            if self.uncertainty:
                output["uncertainty"] = disagreement(
                    inferer, network, image, present, output["pred"], completed, self.temperatures
                )
        if self.uncertainty and autoencoder is None:
            self._warn_of_lonely(present, engine.state.batch.get("case", []))

    @staticmethod
    def _warn_of_lonely(present: Tensor, cases: Sequence[str]) -> None:
        lonely = [case for case, row in zip(cases, present, strict=False) if int(row.sum()) == 1]
        if lonely:
            logger.warning(
                f"case {', '.join(lonely)}: with one modality, and a network that rebuilds none, "
                "there is nothing to compare. The uncertainty is written as 0 everywhere, which "
                "does not mean that the segmentation is certain."
            )


class SplitAbsentd(MapTransform):
    """Take the absent modalities out of a rebuilt case (M, D, H, W), one item (1, D, H, W) each.

    They go to `<key>_<modality>`, with the modality's name in their metadata; a present modality
    is not rebuilt and gets no item.

    Args:
        keys: usually "rebuilt".
        modalities: the vocabulary, in channel order.
        present_key: where `present` (M,) bool stands, True = scanned.
    """

    def __init__(
        self,
        keys: KeysCollection,
        modalities: Sequence[str],
        present_key: str = "present",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.modalities = tuple(modalities)
        self.present_key = present_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Split every key; the log says if nothing is missing."""
        item = dict(data)
        for key in self.key_iterator(item):
            volumes = item[key]
            absent = names_of(~item[self.present_key], self.modalities)
            if not absent:
                logger.info(f"case {item.get('case')}: nothing is missing, so nothing is rebuilt")
            for name in absent:
                channel = self.modalities.index(name)
                item[f"{key}_{name}"] = MetaTensor(
                    plain(volumes[channel : channel + 1]),
                    meta={**volumes.meta, "modality": name},
                )
        return item
