"""Scores of one volume, and the ignite metric that collects them for every modality subset.

Empty masks follow the BraTS convention (design.md section 7): prediction and reference both empty
give Dice 1, NSD 1 and HD95 0 mm; exactly one empty gives Dice 0, NSD 0 and HD95 by a named rule,
373.13 mm by default. No score is ever NaN, except one that was not asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from torch import Tensor

from bundle.modalities import check_modalities, names_of, plain, subset_name

# The diagonal of a BraTS volume (240 x 240 x 155 voxels of 1 mm), the challenge's worst distance.
HD95_ONE_EMPTY_MM = 373.13
# What HD95 is where exactly one mask is empty, in mm: BraTS to 2022; AdaMM and MST-KDNet; BraTS
# 2023 to 2025; BraTS 2026 and ReLiSS.
HD95_EMPTY: Mapping[str, float] = {
    "373.13": HD95_ONE_EMPTY_MM,
    "393.13": 393.13,
    "374": 374.0,
    "inf": math.inf,
}

Item = TypeVar("Item")


@dataclass(frozen=True)
class Score:
    """How well one region of one case was segmented from one modality subset.

    Attributes:
        case: the case's name.
        subset: what the network was given, such as 't1+flair' (`bundle.modalities.subset_name`).
        region: the region's name.
        dice: 0 to 1, 1 = perfect.
        hd95: 95th percentile of the symmetric surface distance in mm; NaN = not computed, infinite
            = one mask is empty and the rule says so.
        nsd: normalised surface Dice, 0 to 1: the share of both surfaces within the tolerance of the
            other one; NaN = not computed.
        bias_ml: predicted minus true volume in mL; NaN = not computed.
    """

    case: str
    subset: str
    region: str
    dice: float
    hd95: float
    nsd: float = math.nan
    bias_ml: float = math.nan


class RegionScores(NamedTuple):
    """Scores of the R regions of one volume, each (R,) float64 on the CPU.

    Attributes:
        dice: 0 to 1.
        hd95: mm.
        nsd: 0 to 1.
        bias_ml: predicted minus true volume, mL.
    """

    dice: Tensor
    hd95: Tensor
    nsd: Tensor
    bias_ml: Tensor


def empty_rule(name: str | float) -> str:
    """Name a rule of `HD95_EMPTY`, which a command line may have read as a number.

    Raises:
        ValueError: no such rule.
    """
    text = name if isinstance(name, str) else f"{name:g}"
    if text not in HD95_EMPTY:
        raise ValueError(f"hd95_empty: expected one of {', '.join(HD95_EMPTY)}, got {name!r}")
    return text


def region_scores(
    prediction: Tensor,
    reference: Tensor,
    spacing_mm: Sequence[float],
    hd95: bool = True,
    hd95_empty: float = HD95_ONE_EMPTY_MM,
    nsd_tolerance: float | None = None,
) -> RegionScores:
    """Score every region of one volume.

    Args:
        prediction: (R, D, H, W), non-zero = inside the region.
        reference: (R, D, H, W), non-zero = inside the region.
        spacing_mm: voxel size along D, H and W in mm.
        hd95: False = skip the distances, which cost far more than the overlap.
        hd95_empty: HD95 in mm where exactly one of the masks is empty.
        nsd_tolerance: mm; None = no NSD.

    Returns:
        The scores. HD95 is NaN throughout if `hd95` is False, and NSD without a tolerance; nothing
        else is ever NaN.

    Raises:
        ValueError: shapes that differ or are not (R, D, H, W), values that are not finite, or a
            spacing that is not three positive numbers.
    """
    predicted, true = _cropped(*_masks(prediction, reference))
    dice = compute_dice(predicted[None], true[None], include_background=True, ignore_empty=False)
    dice = dice[0].double().cpu()
    spacing = _spacing(spacing_mm)
    predicted, true, unknown = predicted.cpu(), true.cpu(), torch.full_like(dice, math.nan)
    voxels = (predicted.flatten(1).sum(1) - true.flatten(1).sum(1)).double()
    return RegionScores(
        dice,
        _hd95(predicted, true, spacing, hd95_empty) if hd95 else unknown,
        unknown if nsd_tolerance is None else _nsd(predicted, true, spacing, nsd_tolerance),
        voxels * math.prod(spacing) / 1000,
    )


def _masks(prediction: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    if prediction.shape != reference.shape or prediction.ndim != 4:
        raise ValueError(
            "expected prediction and reference of one shape (R, D, H, W), got prediction "
            f"{tuple(prediction.shape)} and reference {tuple(reference.shape)}. "
            "Bring the prediction back to the reference's grid (Invertd) before scoring it."
        )
    masks = []
    for name, values in (("prediction", prediction), ("reference", reference)):
        if values.is_floating_point() and not bool(values.isfinite().all()):
            count = int((~values.isfinite()).sum())
            raise ValueError(
                f"expected a {name} of finite values, got {count} NaN or infinite voxels. "
                "Threshold finite probabilities before scoring them."
            )
        masks.append(plain(values) != 0)
    return masks[0], masks[1]


def _cropped(predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    # Empty margins change no score, but in a whole head they would take most of the time.
    inside = (predicted | true).any(0).nonzero()
    if len(inside) == 0:
        return predicted, true
    low, high = inside.amin(0).tolist(), (inside.amax(0) + 1).tolist()
    box = (slice(None), *map(slice, low, high))
    return predicted[box], true[box]


def _spacing(spacing_mm: Sequence[float]) -> list[float]:
    spacing = [float(size) for size in spacing_mm]
    if len(spacing) != 3 or not all(math.isfinite(size) and size > 0 for size in spacing):
        raise ValueError(f"expected spacing_mm as three positive numbers, got {spacing}")
    return spacing


def _nsd(predicted: Tensor, true: Tensor, spacing_mm: list[float], tolerance: float) -> Tensor:
    in_predicted, in_true = predicted.flatten(1).any(1), true.flatten(1).any(1)
    # As Dice: both empty is right, one empty is wrong.
    share = (in_predicted == in_true).double()
    both = in_predicted & in_true
    if bool(both.any()):
        share[both] = compute_surface_dice(
            predicted[both][None],
            true[both][None],
            class_thresholds=[tolerance] * int(both.sum()),
            include_background=True,
            spacing=spacing_mm,
        )[0].double()
    return share


def _hd95(predicted: Tensor, true: Tensor, spacing_mm: list[float], one_empty: float) -> Tensor:
    in_predicted, in_true = predicted.flatten(1).any(1), true.flatten(1).any(1)
    distance = torch.zeros(len(true), dtype=torch.float64)
    distance[in_predicted != in_true] = one_empty
    both = in_predicted & in_true
    if bool(both.any()):
        distance[both] = compute_hausdorff_distance(
            predicted[both][None],
            true[both][None],
            include_background=True,
            percentile=95,
            spacing=spacing_mm,
        )[0].double()
    return distance


def items_of(engine: Engine) -> list[dict[str, Any]]:
    """One dictionary per case of the iteration that a MONAI engine has just finished.

    MONAI leaves what the loader delivered (`case`, `present`) in `engine.state.batch` and puts only
    what the network and the post-processing made into `engine.state.output`: both are joined here,
    the output winning.

    Raises:
        TypeError: the output is not a list of dictionaries, one per case.
    """
    output, batch = engine.state.output, engine.state.batch
    if not isinstance(output, list) or not all(isinstance(item, Mapping) for item in output):
        raise TypeError(
            "expected engine.state.output as a list of dictionaries, one per case, got "
            f"{type(output).__name__}. Give the evaluator decollate=True."
        )
    if not isinstance(batch, list) or len(batch) != len(output):
        return [dict(item) for item in output]
    return [{**loaded, **made} for loaded, made in zip(batch, output, strict=True)]


def field_of(item: Mapping[str, Any], key: str, reader: str) -> Any:
    """Look up what `reader` needs of an item.

    Raises:
        KeyError: the item lacks the key; the message names it, the reader and the keys that came.
    """
    if item.get(key) is None:
        raise KeyError(
            f"case {item.get('case', 'unknown')}: {reader} expects the key '{key}' in every item, "
            f"got {sorted(item)}. Let the data set or the post-processing provide it."
        )
    return item[key]


def gather_lists(own: list[Item]) -> list[Item]:
    """Join the lists of all processes in rank order; in a single process, copy the only one.

    A collective call: under torch.distributed every rank must make it. Elements are pickled.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return list(own)
    gathered: list[list[Item]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(gathered, own)
    return [item for items in gathered for item in items]


class SubsetScores(Metric):
    """Mean Dice over cases, subsets and regions, for `key_val_metric` of a MONAI evaluator.

    Every item is one case seen through one modality subset. It holds

    - `pred` and `label`: (R, D, H, W), non-zero = inside, both on the label's own voxel grid,
    - `case`: the case's name,
    - `present`: (M,) bool, True = the modality was really given to the network.

    Voxel sizes come from `label`, else `pred`, whichever is a MetaTensor; without any, 1 mm.

    Args:
        regions: the names of the R channels, in their order (a region table also does).
        modalities: the vocabulary.
        hd95: False = no HD95, which is much faster; the rows then hold NaN for it.
        hd95_empty: what HD95 is where exactly one mask is empty, one of `HD95_EMPTY`.
        nsd_tolerance: of NSD, mm; None = no NSD.
        output_transform: applied to the list of items (`items_of`) before they are scored.
    """

    def __init__(
        self,
        regions: Sequence[str],
        modalities: Sequence[str],
        hd95: bool = True,
        hd95_empty: str | float = "373.13",
        nsd_tolerance: float | None = None,
        output_transform: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda items: (
            items
        ),
    ) -> None:
        self.regions = tuple(regions)
        self.modalities = check_modalities(modalities)
        self.hd95 = hd95
        self.hd95_empty = empty_rule(hd95_empty)
        if nsd_tolerance is not None and not nsd_tolerance > 0:
            raise ValueError(f"nsd_tolerance: expected mm above 0, got {nsd_tolerance}")
        self.nsd_tolerance = nsd_tolerance
        super().__init__(output_transform, skip_unrolling=True)

    @property
    def rows(self) -> list[Score]:
        """The scores so far: of this process until `compute`, of all processes after it."""
        return self._own if self._gathered is None else self._gathered

    def reset(self) -> None:
        """Forget all scores; ignite calls this when an epoch starts."""
        self._own: list[Score] = []
        self._gathered: list[Score] | None = None

    def iteration_completed(self, engine: Engine) -> None:
        """Score what the engine has just finished; ignite calls this."""
        self.update(self._output_transform(items_of(engine)))

    def update(self, output: Sequence[Mapping[str, Any]]) -> None:
        """Score the items of one iteration.

        Raises:
            KeyError: an item without `pred`, `label`, `case` or `present`.
            ValueError: naming the case, where its masks or its `present` do not fit.
        """
        self._gathered = None
        for item in output:
            case = str(field_of(item, "case", "SubsetScores"))
            try:
                self._own += self._score(case, item)
            except ValueError as error:
                raise ValueError(f"case {case}: {error}") from error

    def _score(self, case: str, item: Mapping[str, Any]) -> list[Score]:
        prediction = field_of(item, "pred", "SubsetScores")
        label = field_of(item, "label", "SubsetScores")
        if len(label) != len(self.regions):
            raise ValueError(
                f"expected a label of {len(self.regions)} channels {list(self.regions)}, "
                f"got shape {tuple(label.shape)}"
            )
        subset = self._subset(item)
        scores = region_scores(
            prediction,
            label,
            spacing_of(label, prediction),
            self.hd95,
            HD95_EMPTY[self.hd95_empty],
            self.nsd_tolerance,
        )
        of_regions = zip(*(values.tolist() for values in scores), strict=True)
        return [
            Score(case, subset, region, *values)
            for region, values in zip(self.regions, of_regions, strict=True)
        ]

    def _subset(self, item: Mapping[str, Any]) -> str:
        present = torch.as_tensor(field_of(item, "present", "SubsetScores")).bool().cpu()
        name = subset_name(names_of(present, self.modalities), self.modalities)
        if not name:
            raise ValueError("expected at least one present modality, got none")
        return name

    def compute(self) -> float:
        """Mean Dice over all rows of all processes, 0 to 1.

        A distributed sampler repeats cases to fill its last batch: a repeated row counts once.

        Raises:
            NotComputableError: no item was scored.
        """
        rows = {(row.case, row.subset, row.region): row for row in gather_lists(self._own)}
        if not rows:
            raise NotComputableError(
                "SubsetScores expected at least one scored case, got none. "
                "Check that the evaluated list is not empty."
            )
        self._gathered = list(rows.values())
        return sum(row.dice for row in self._gathered) / len(rows)


def spacing_of(*tensors: Tensor) -> list[float]:
    """Voxel size in mm along D, H and W, from the first MetaTensor; without any, 1 mm."""
    for tensor in tensors:
        pixdim = getattr(tensor, "pixdim", None)
        if pixdim is not None:
            return [float(size) for size in pixdim]
    return [1.0, 1.0, 1.0]
