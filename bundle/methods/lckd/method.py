"""LCKD: the modality that segments a region best by itself teaches the others about it.

To understand LCKD, read in this order: this file, `election` (who teaches),
`bundle.losses.distillation.distance_to_teacher` (what is learnt from a teacher),
`bundle.networks.scan_encoder` (the network) and `teacher_record` (what is kept of the elections).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.nn import functional as F

from bundle.losses.distillation import distance_to_teacher
from bundle.methods.base import Method
from bundle.methods.drawing import Drawing
from bundle.methods.lckd.election import Election
from bundle.modalities import check_modalities

TEACHING = ("regions", "union")
NO_TEACHER = -1


class LCKD(Method):
    """Train a network with a shared encoder; elected modalities teach the others.

    Every case shows a random subset of what it has, after a warm-up in which it shows everything.
    Besides the labels, each scan that is shown learns from the teachers: the L1 distance of its
    bottleneck features, normalised over the crop, from the teacher's, which get no gradient; for
    each modality that is taught the mean over cases, and the sum of these.

    *Teaching "regions"* (ours): each region has a teacher of its own, and its features count where
    the region is, which for a bottleneck voxel is the share of it that the region fills. A teacher
    that the case has but does not show in this step still teaches; it is encoded without a
    gradient. The term is the mean over the regions that have a teacher. *Teaching "union"* (the
    official code): the elected modalities are one set, features count everywhere, only a teacher
    that is shown teaches, and the term is the sum over the teachers.

    A modality that a case lacks never teaches, a region outside the crop is not taught, and a scan
    does not teach itself. The term is 0 where no pair of teacher and student is left, as in a case
    with a single modality, and until teachers are known.

    The election's results are buffers, so they survive a checkpoint, and they are sums over cases,
    named in `additive_statistics`: sites that add up what they each counted elect together, and
    those that average it, too, because only the ratio of the two decides.

    Args:
        network: a `bundle.networks.scan_encoder.ScanEncoderNetwork`.
        criteria: loss terms by name, each called with (list of logits, label).
        modalities: the vocabulary, in channel order.
        regions: the names of the R regions in their order (a region table also does).
        election: who elects, and when; None = nobody, as where the buffers come from elsewhere.
        warm_up_epochs: how many epochs at the start show all that is present.
        distillation_weight: of the term; 0 = not computed, and nobody is elected.
        teaching: "regions" or "union".

    Raises:
        ValueError: `teaching` is neither, or a negative weight or number of epochs.

    Source: our reading of arXiv 2310.01035, design.md section 1.2.
    """

    additive_statistics: ClassVar[tuple[str, ...]] = ("dice_sums", "case_counts")

    dice_sums: Tensor
    case_counts: Tensor

    def __init__(
        self,
        network: nn.Module,
        criteria: Mapping[str, nn.Module],
        modalities: Sequence[str],
        regions: Sequence[str],
        election: Election | None = None,
        warm_up_epochs: int = 0,
        distillation_weight: float = 0.1,
        teaching: str = "regions",
        drawing: Drawing | None = None,
    ) -> None:
        super().__init__(network)
        if teaching not in TEACHING:
            raise ValueError(f"expected teaching as one of {list(TEACHING)}, got {teaching!r}")
        if warm_up_epochs < 0 or distillation_weight < 0:
            raise ValueError(
                "expected warm_up_epochs and distillation_weight of at least 0, got "
                f"{warm_up_epochs} and {distillation_weight}. Correct them; 0 switches off."
            )
        self.criteria = nn.ModuleDict(criteria)
        self.drawing = drawing or Drawing()
        self.modalities = check_modalities(modalities)
        self.regions = tuple(regions)
        self.election = election
        self.warm_up_epochs = warm_up_epochs
        self.distillation_weight = distillation_weight
        self.teaching = teaching
        self.warming_up = False
        shape = (len(self.modalities), len(self.regions))
        self.register_buffer("dice_sums", torch.zeros(shape))
        self.register_buffer("case_counts", torch.zeros(shape))

    @property
    def scores(self) -> Tensor:
        """Mean Dice (M, R) of each modality by itself, 0 to 1; 0 also where nothing was scored."""
        counted = self.case_counts > 0
        # A federation that averages may leave half a case.
        return torch.where(counted, self.dice_sums / self.case_counts.where(counted, 1.0), 0.0)

    def teachers(self) -> Tensor:
        """Name the teacher of each region: (R,) int64, an index into the vocabulary, -1 = none.

        The best by mean Dice, among equals the first. Who finds nothing of a region (Dice 0, or no
        case was scored) does not teach it.
        """
        best, modality = self.scores.max(0)
        return torch.where(best > 0, modality, NO_TEACHER)

    def elect(self, dice_sums: Tensor, case_counts: Tensor) -> Tensor:
        """Take up the results of an election.

        A region that was scored loses all former scores, those of modalities that were not scored
        this time included: they belong to another network. A region that was not keeps its own, and
        with them its teacher, or none.

        Args:
            dice_sums: (M, R) sum of the Dice, 0 to 1 each, over the cases that were scored.
            case_counts: (M, R) how many these are; 0 = nothing is known.

        Returns:
            (R,) bool, True = the region was scored.

        Raises:
            ValueError: another shape, or numbers that are not finite.
        """
        expected = tuple(self.dice_sums.shape)
        if tuple(dice_sums.shape) != expected or tuple(case_counts.shape) != expected:
            raise ValueError(
                f"expected Dice sums and case counts of shape {expected}, modalities by regions, "
                f"got {tuple(dice_sums.shape)} and {tuple(case_counts.shape)}"
            )
        if not bool(dice_sums.isfinite().all() and case_counts.isfinite().all()):
            raise ValueError(
                "expected finite Dice sums and case counts, got others. Leave out NaN."
            )
        scored = (case_counts > 0).any(0).to(self.dice_sums.device)
        for own, new in ((self.dice_sums, dice_sums), (self.case_counts, case_counts)):
            own.copy_(torch.where(scored, new.to(own), own))
        return scored

    def check_statistics(
        self, sums: Mapping[str, Tensor], rounding: Mapping[str, float], cases: Sequence[int]
    ) -> None:
        """Check elections that somebody else has held.

        Args:
            sums: `dice_sums` and `case_counts`, both (M, R) and finite.
            rounding: by the same names, how far numbers may be off.
            cases: not read; the cases of an election are not those of the training, and may be
                more. The server caps what elections weigh beside those of the other sites.

        Raises:
            ValueError: a count below 0, or a sum of Dice outside of 0 to the count.
        """
        dice, counts = sums["dice_sums"], sums["case_counts"]
        off = rounding["dice_sums"] + rounding["case_counts"]
        if bool((counts < -off).any() or (dice < -off).any() or (dice > counts + off).any()):
            raise ValueError(
                "its elections are inconsistent: expected counts of cases from 0, and sums of Dice "
                "from 0 to these counts"
            )

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute each criterion, and the distillation; shapes as in `Method.losses`."""
        image, present, label = batch["image"], batch["present"], batch["label"].float()
        keep = present if self.warming_up else self.drawing(present)
        features = self.network.encode(image, keep)
        logits = self.network.decode(features, keep)
        losses = {name: criterion(logits, label) for name, criterion in self.criteria.items()}
        if self.distillation_weight:
            distance = self._distance(features[-1], image, present, keep, label)
            losses["distillation"] = self.distillation_weight * distance
        return losses

    def _distance(
        self, bottleneck: Tensor, image: Tensor, present: Tensor, keep: Tensor, label: Tensor
    ) -> Tensor:
        """Add up the distances from the teachers; `bottleneck` is (N, C, d, h, w), N kept scans."""
        lessons = self._lessons(label, bottleneck.shape[2:])
        known = _by_case(_normed(bottleneck), keep)
        taught, speaking = known.detach(), keep
        if self.teaching == "regions":
            aside = self._aside(lessons, present, keep)
            if bool(aside.any()):
                with torch.no_grad():
                    added = _normed(self.network.encode(image, aside)[-1])
                taught = taught + _by_case(added, aside)
                speaking = keep | aside
        total = known.new_zeros(())
        for teacher, weight in lessons:
            heard = speaking[:, teacher] & _fills(weight)
            pairs = keep & heard[:, None]
            pairs[:, teacher] = False
            total = total + distance_to_teacher(known, taught[:, teacher], weight, pairs)
        return total / max(len(lessons), 1) if self.teaching == "regions" else total

    def _lessons(self, label: Tensor, size: torch.Size) -> list[tuple[int, Tensor]]:
        """List who teaches, by index into the vocabulary, and where: weights (B, d, h, w)."""
        teachers = self.teachers().tolist()
        if self.teaching == "union":
            everywhere = label.new_ones((len(label), *size))
            return [(teacher, everywhere) for teacher in sorted(set(teachers) - {NO_TEACHER})]
        share = F.adaptive_avg_pool3d(label, size)
        return [(t, share[:, r]) for r, t in enumerate(teachers) if t != NO_TEACHER]

    @staticmethod
    def _aside(lessons: list[tuple[int, Tensor]], present: Tensor, keep: Tensor) -> Tensor:
        """Mark (B, M) the scans that teach something in their case, but are not shown in it."""
        aside = torch.zeros_like(present)
        for teacher, weight in lessons:
            aside[:, teacher] |= _fills(weight)
        return aside & present & ~keep

    def attach(self, engine: Engine) -> None:
        """Follow the warm-up, and let the election follow the epochs."""
        if not engine.has_event_handler(self._start_epoch, Events.EPOCH_STARTED):
            engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        if self.election is not None and self.distillation_weight:
            self.election.attach(engine, self)

    def _start_epoch(self, engine: Engine) -> None:
        self.warming_up = engine.state.epoch <= self.warm_up_epochs


def _normed(features: Tensor) -> Tensor:
    """Give each scan's features mean 0 and deviation 1 over the crop, channel by channel.

    What the encoder returns is a sum of residual blocks, which grows as training goes on: its L1
    distances would soon outweigh the labels. The official code's bottleneck ends in such a layer.
    """
    return F.instance_norm(features.float())


def _by_case(features: Tensor, scans: Tensor) -> Tensor:
    """Put the features of N scans (N, C, ...) into a table (B, M, C, ...), zero where none is.

    `scans` is (B, M) bool with N times True.
    """
    table = features.new_zeros((*scans.shape, *features.shape[1:]))
    return table.index_put(scans.nonzero(as_tuple=True), features)


def _fills(weight: Tensor) -> Tensor:
    """Say which cases (B,) have any of the region in their crop."""
    return (weight > 0).flatten(1).any(1)
