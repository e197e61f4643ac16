"""The election of teachers (LCKD): which modality alone segments a region best.

It is held on cases that training does not see.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from ignite.engine import Engine, Events
from monai.inferers import Inferer
from monai.metrics import DiceMetric
from torch import Tensor, nn

from bundle.modalities import plain

logger = logging.getLogger(__name__)

Cases = Sequence[Mapping[str, Any]]


class Electing(Protocol):
    """What an election asks of a method, as `bundle.methods.lckd.method.LCKD` has it."""

    network: nn.Module
    modalities: tuple[str, ...]
    regions: tuple[str, ...]
    scores: Tensor
    case_counts: Tensor

    def teachers(self) -> Tensor:
        """Name the teacher of each region: (R,), an index into the vocabulary, -1 = none."""

    def elect(self, dice_sums: Tensor, case_counts: Tensor) -> Tensor:
        """Take up Dice sums and case counts (M, R); say which regions (R,) were scored."""


class ElectionLog(Protocol):
    """Where the elections of a training are kept, as in `teacher_record.TeacherRecord`."""

    def forget_from(self, epoch: int) -> None:
        """Forget the elections at the start of this epoch and of later ones."""

    def add(self, epoch: int, scores: Tensor, case_counts: Tensor, teachers: Tensor) -> None:
        """Keep one: Dice and case counts (M, R), 0 = not scored, and the teachers (R,)."""


@torch.no_grad()
def single_modality_dice(
    network: nn.Module,
    cases: Iterable[Mapping[str, Any]],
    inferer: Inferer,
    postprocessing: Callable[[dict[str, Any]], Mapping[str, Any]],
    device: torch.device | str,
) -> tuple[Tensor, Tensor]:
    """Segment every case from each of its modalities alone; sum up the Dice of each region.

    Nothing random is drawn, and the network is left in the mode that it was in.

    Args:
        network: called by the inferer as `network(window, present)`.
        cases: prepared ones: `image` (M, D, H, W) z-scores, `present` (M,) bool, True = available,
            and `label` (R, D, H, W), 1 = inside, on the grid to which `postprocessing` returns.
        inferer: called as `inferer(image, network, present=present)`, one case a batch.
        postprocessing: turns the item, with logits (R, D, H, W) under `pred`, into one with masks.
        device: where to compute.

    Returns:
        Sums (M, R) of the Dice, 0 to 1 each, and of how many cases, both float64 on the CPU. Only
        cases that have the modality and the region count: of an empty region Dice says nothing.

    Raises:
        ValueError: no case.
    """
    metric = DiceMetric(reduction="none")
    sums = counts = None
    mode = network.training
    network.eval()
    try:
        for item in cases:
            present, label = item["present"], item["label"].to(device)
            if sums is None or counts is None:
                sums = torch.zeros(len(present), len(label), dtype=torch.float64)
                counts = torch.zeros_like(sums)
            image = item["image"].to(device)[None]
            for modality in present.nonzero().flatten().tolist():
                alone = torch.zeros_like(present)
                alone[modality] = True
                logits = inferer(image, network, present=alone[None].to(device))[0]
                masks = postprocessing({**item, "present": alone, "pred": logits})["pred"].to(
                    device
                )
                # NaN where the reference is empty.
                dice = plain(metric(masks[None], label[None]))[0].double().cpu()
                sums[modality] += dice.nan_to_num(0)
                counts[modality] += ~dice.isnan()
            metric.reset()
    finally:
        network.train(mode)
    if sums is None or counts is None:
        raise ValueError("expected at least one case to elect teachers by, got none")
    return sums, counts


class Election:
    """Handler that scores the modalities every so many epochs and hands the result to a method.

    It runs at the start of an epoch, so that what a checkpoint after an epoch holds does not depend
    on whether training goes on; and it draws no random numbers. The first is at the start of epoch
    `interval` + 1: an untrained network has nothing to tell.

    Args:
        cases: datalist items that training does not see; those without a label are left out.
        prepare: makes of them a data set of items as `single_modality_dice` takes them; called once
            they are needed.
        inferer, postprocessing: as in `single_modality_dice`.
        interval: epochs from one election to the next. Each costs as much as segmenting every case
            once for each modality that it has.
        record: where the elections are kept, to be drawn; None = in the log alone.
        required: False = without cases nobody is elected here, as at a site of a federation that
            holds none and gets the teachers from others.

    Raises:
        ValueError: `interval` below 1.

    Source: our reading of arXiv 2310.01035, whose official code elects by soft Dice every 5000
    iterations, on cases it also trains on; held-out cases are ours (design.md section 1.2).
    """

    def __init__(
        self,
        cases: Cases,
        prepare: Callable[[Cases], Iterable[Mapping[str, Any]]],
        inferer: Inferer,
        postprocessing: Callable[[dict[str, Any]], Mapping[str, Any]],
        interval: int = 10,
        record: ElectionLog | None = None,
        required: bool = True,
    ) -> None:
        if interval < 1:
            raise ValueError(f"expected an election every 1 epoch or more, got {interval}")
        self.cases = [case for case in cases if case.get("label")]
        self.prepare = prepare
        self.inferer = inferer
        self.postprocessing = postprocessing
        self.interval = interval
        self.record = record
        self.required = required
        self._prepared: Iterable[Mapping[str, Any]] | None = None
        self._started = False

    def attach(self, engine: Engine, method: Electing) -> None:
        """Attach to the trainer of a method.

        Raises:
            ValueError: no labelled case, unless they are not required.
        """
        if not self.cases and self.required:
            raise ValueError(
                "expected labelled cases to elect teachers by, got none. Put some into the "
                "section 'validation' of the datalist, or name another one with "
                "--election_section; --distillation_weight 0 trains without teachers."
            )
        if not self.cases:
            logger.warning("no labelled cases to elect teachers by: they must come from elsewhere")
        self._started = False
        # A trainer that runs once a round starts more than once.
        if not engine.has_event_handler(self, Events.EPOCH_STARTED):
            engine.add_event_handler(Events.EPOCH_STARTED, self, method)

    def __call__(self, engine: Engine, method: Electing) -> None:
        """Elect, if it is time."""
        epoch = engine.state.epoch
        if self.record is not None and not self._started:
            # Whatever a training that was broken off, or another one, has left there.
            self.record.forget_from(epoch)
        self._started = True
        if self.cases and epoch > 1 and (epoch - 1) % self.interval == 0:
            self._elect(epoch, engine.state.device, method)

    def _elect(self, epoch: int, device: torch.device | str, method: Electing) -> None:
        if self._prepared is None:
            self._prepared = self.prepare(self.cases)
        sums, counts = single_modality_dice(
            method.network, self._prepared, self.inferer, self.postprocessing, device
        )
        scored = method.elect(sums, counts)
        teachers = method.teachers()
        for region, name in enumerate(method.regions):
            logger.info(
                f"epoch {epoch}: {name}: "
                + _outcome(method, int(teachers[region]), region, bool(scored[region]))
            )
        if self.record is not None:
            scores = sums / counts.clamp_min(1)
            self.record.add(epoch, scores, counts, teachers.cpu())


def _outcome(method: Electing, teacher: int, region: int, scored: bool) -> str:
    """Say who teaches a region from now on, and why."""
    name = "no modality" if teacher < 0 else method.modalities[teacher]
    if not scored:
        kept = "it has no teacher" if teacher < 0 else f"{name} goes on teaching"
        return f"in none of the held-out cases that were scored; {kept}"
    listed = ", ".join(
        f"{modality} {100 * float(score):.1f} %" if count else f"{modality} not scored"
        for modality, score, count in zip(
            method.modalities,
            method.scores[:, region],
            method.case_counts[:, region].tolist(),
            strict=True,
        )
    )
    return f"{name} teaches (Dice of each modality by itself: {listed})"
