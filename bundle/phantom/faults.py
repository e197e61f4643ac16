"""Which faults are planted to measure the rules, and which rules are meant to find each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from numpy.random import Generator

from bundle.phantom.anatomy import NECROSIS_LABEL, OEDEMA_LABEL, RIM_LABEL
from bundle.phantom.planting import (
    Case,
    add_noise_to_air,
    copy_case,
    copy_case_scaled,
    copy_image,
    cut_half_off,
    fill_background,
    keep_head,
    keep_scalp,
    leave_eight_voxels,
    make_binary,
    mirror_image,
    mirror_label,
    move_label,
    move_label_out,
    part_forms,
    put_label_as_image,
    scale_copy,
    scale_over_volume,
    scale_spacing,
    swap_images,
    swap_labels,
    turn_head,
)


@dataclass(frozen=True)
class Fault:
    """A fault, and the rules that are meant to find it.

    Attributes:
        plant: gives the faulty case; the case that it is given stays as it is.
        rules: of `bundle.data.plausibility.rules.RULES`.
        needs: the modalities without which there is no such fault.
        least: how many modalities a case must have.
    """

    plant: Callable[[Generator, Case], Case]
    rules: tuple[str, ...]
    needs: tuple[str, ...] = ()
    least: int = 1


_SHARED = ("same_scan", "leak")
_LABEL_RULES = ("label_moved", "label_outside", "oedema_dark")
FAULTS: Mapping[str, Fault] = {
    "t1 and t1ce swapped": Fault(
        swap_images("t1", "t1ce"), ("agent_in_rim", "agent_in_brain"), ("t1", "t1ce")
    ),
    "t1 and t2 swapped": Fault(swap_images("t1", "t2"), ("t1_order", "t2_order"), ("t1", "t2")),
    "t2 and flair swapped": Fault(
        swap_images("t2", "flair"), ("t2_flair", "t2_order"), ("t2", "flair")
    ),
    "necrosis and oedema swapped": Fault(
        swap_labels(NECROSIS_LABEL, OEDEMA_LABEL), ("necrosis_outside",)
    ),
    "oedema and rim swapped": Fault(
        swap_labels(OEDEMA_LABEL, RIM_LABEL), ("rim_outside", "rim_dark", "agent_elsewhere")
    ),
    "necrosis and rim swapped": Fault(
        swap_labels(NECROSIS_LABEL, RIM_LABEL), ("rim_dark", "agent_elsewhere")
    ),
    "binary mask": Fault(make_binary, ("one_label",)),
    "label moved": Fault(move_label, _LABEL_RULES),
    "label mirrored": Fault(mirror_label, _LABEL_RULES),
    "modality mirrored": Fault(mirror_image, ("mirrored", "masks"), least=2),
    "background constant": Fault(fill_background, ("background", "corners")),
    "z-scored over the volume": Fault(scale_over_volume, ("background", "corners")),
    "noise in the air": Fault(add_noise_to_air, ("background", "corners")),
    "head with noise": Fault(keep_head, ("background", "corners")),
    "head with noise, turned": Fault(turn_head, ("background", "corners", "border")),
    "head without noise": Fault(
        keep_scalp, ("background", "corners", "border", "scalp", "dark_ring")
    ),
    "half of the brain": Fault(cut_half_off, ("masks",), least=2),
    "eight voxels": Fault(leave_eight_voxels, ("few_voxels", "masks")),
    "label in a corner": Fault(move_label_out, ("label_outside",)),
    "label as a scan": Fault(put_label_as_image, ("label_as_scan",)),
    "qform and sform apart": Fault(part_forms, ("two_forms",)),
    "spacing times ten": Fault(scale_spacing(10), ("voxel_large", "head_large")),
    "spacing divided by ten": Fault(scale_spacing(0.1), ("voxel_small", "head_small")),
    "one file twice": Fault(copy_image, ("same_file",), least=2),
    "one scan twice, scaled": Fault(scale_copy, ("same_file",), least=2),
    "same patient twice": Fault(copy_case, _SHARED),
    "same patient twice, scaled": Fault(copy_case_scaled, _SHARED),
}


def drop_some(rng: Generator, case: Case, fault: Fault | None = None) -> Case:
    """Take modalities away in every other case, but not those that a fault needs.

    Args:
        rng: the source of randomness.
        case: the case.
        fault: the fault to come; None = any modality may go, but one.
    """
    if rng.random() < 0.5:
        return case
    needs, least = (fault.needs, fault.least) if fault else ((), 1)
    names = [str(name) for name in rng.permutation([n for n in case.images if n not in needs])]
    keep = {*needs, *names[: max(least - len(needs), int(rng.integers(len(names) + 1)))]}
    return replace(case, images={n: v for n, v in case.images.items() if n in keep})


def can_have(case: Case, fault: Fault) -> bool:
    """True = the case has the modalities that the fault needs."""
    return set(fault.needs) <= set(case.images) and len(case.images) >= fault.least
