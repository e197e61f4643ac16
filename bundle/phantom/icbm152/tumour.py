"""A glioma in a head: where it is, how large, what it does to the brain, and its labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from bundle.phantom.icbm152.core import CorePlan, core_distance, fill_core
from bundle.phantom.icbm152.head import Head, Tissue
from bundle.phantom.icbm152.mass_effect import push_aside
from bundle.phantom.icbm152.oedema import spread_oedema

NECROSIS_LABEL, OEDEMA_LABEL, RIM_LABEL = 1, 2, 4
CORE = (Tissue.RIM, Tissue.NECROSIS, Tissue.SOLID, Tissue.BLOOD, Tissue.CALCIUM)

# Volumes in mL: median, the logarithm's standard deviation, least and most. As in BraTS.
CORE_ML = (33.0, 0.75, 3.0, 110.0)
OEDEMA_ML = (55.0, 0.65, 4.0, 150.0)
SOLID_CORE_ML = (38.0, 0.8, 4.0, 130.0)
SOLID_OEDEMA_ML = (14.0, 0.8, 1.5, 60.0)
SMALL, SMALL_FACTOR = 0.08, 0.12
SEVERAL_FOCI = 0.15
RIM_SHARE = (0.35, 0.75)
BLOOD, CALCIUM, CALCIUM_OF_SOLID = 0.15, 0.03, 0.2
MASS_EFFECT = (0.15, 0.65)
# Oedema lies around a core, however large that is: the least share of the core's volume.
LEAST_OEDEMA = 0.3
# A reader's outline is smoother than the share of tissues.
_OUTLINE_MM = 0.9
_LEAST_BRAIN_ML = 100.0


@dataclass(frozen=True)
class TumourPlan:
    """What a tumour is to be like.

    Attributes:
        core: its core.
        oedema_ml: volume of the oedema.
        mass_effect: 0..1, the share of the core's volume by which it pushes the brain aside.
    """

    core: CorePlan
    oedema_ml: float
    mass_effect: float


def draw_tumour(rng: Generator, has_rim: bool) -> TumourPlan:
    """Draw a tumour; one without a rim is a solid core with little oedema."""
    small = SMALL_FACTOR if rng.random() < SMALL else 1.0
    core_ml = _lognormal(rng, CORE_ML if has_rim else SOLID_CORE_ML) * small
    oedema_ml = _lognormal(rng, OEDEMA_ML if has_rim else SOLID_OEDEMA_ML) * small
    foci = int(rng.integers(2, 4)) if has_rim and rng.random() < SEVERAL_FOCI else 1
    solid = rng.uniform(0, 0.35) * (rng.random() < 0.6) if has_rim else rng.uniform(0.6, 1.0)
    core = CorePlan(
        volume_ml=max(core_ml, 0.6),
        foci=foci,
        rim_share=rng.uniform(*RIM_SHARE) if has_rim else 0.0,
        solid_share=solid,
        has_blood=bool(rng.random() < BLOOD),
        has_calcium=bool(rng.random() < (CALCIUM if has_rim else CALCIUM_OF_SOLID)),
    )
    least = max(1.0, LEAST_OEDEMA * core.volume_ml)
    return TumourPlan(core, max(oedema_ml, least), rng.uniform(*MASS_EFFECT))


def _lognormal(rng: Generator, volume: tuple[float, float, float, float]) -> float:
    median, spread, least, most = volume
    return float(np.clip(median * np.exp(spread * rng.standard_normal()), least, most))


def grow_tumour(rng: Generator, head: Head, has_rim: bool) -> tuple[Head, np.ndarray]:
    """Grow a tumour in a head.

    Args:
        rng: the source of randomness.
        head: a healthy one.
        has_rim: False = a low-grade tumour, a solid core without an enhancing rim.

    Returns:
        The head with the tumour's tissues in place of healthy ones, the brain pushed aside; and
        labels (D, H, W) uint8: 0 background, 1 necrotic or solid core, 2 oedema, 4 enhancing rim.

    Raises:
        ValueError: a brain of less than 100 mL, which a tumour would fill.
    """
    brain_ml = head.brain.sum() * head.spacing_mm**3 / 1000
    if brain_ml < _LEAST_BRAIN_ML:
        raise ValueError(
            f"expected a brain of at least {_LEAST_BRAIN_ML:g} mL to grow a tumour in, got "
            f"{brain_ml:.0f} mL. Make a larger head."
        )
    plan = draw_tumour(rng, has_rim)
    centre = draw_site(rng, head)
    radius = np.cbrt(plan.core.volume_ml / plan.core.foci * 1000 * 0.239)
    head = push_aside(head, centre, radius, plan.mass_effect)
    allowed = head.brain & (head.shares[Tissue.FLUID] < 0.6) & (_share(head, Tissue.DURA) < 0.2)
    distance = core_distance(rng, plan.core, centre, allowed, head.spacing_mm)
    parts = fill_core(rng, plan.core, distance, head.spacing_mm)
    core = sum(parts.values())
    parts[Tissue.OEDEMA] = spread_oedema(rng, head, core, plan.oedema_ml)
    grown = put_in(head, parts)
    return grown, label(grown)


def draw_site(rng: Generator, head: Head) -> np.ndarray:
    """Draw a place in the white matter of the cerebrum, off its surface: (3,) voxels."""
    low, high = (f(np.argwhere(head.brain), axis=0) for f in (np.min, np.max))
    deep = ndimage.distance_transform_edt(head.brain) * head.spacing_mm
    home = (head.shares[Tissue.WHITE] > 0.5) & (deep > 9)
    # Below lie the brain stem and, behind it, the cerebellum.
    home[:, :, : low[2] + int(0.34 * (high[2] - low[2]))] = False
    spots = np.argwhere(home)
    if not len(spots):
        raise ValueError(
            "expected white matter more than 9 mm below the brain's surface to grow a tumour in, "
            "got none. Make a larger head."
        )
    return rng.choice(spots)


def put_in(head: Head, parts: dict[Tissue, np.ndarray]) -> Head:
    """Let the tumour's tissues take the place of what was there; the sum of shares stays."""
    before = sum(head.shares.values())
    taken = np.clip(sum(parts.values()), 0, None)
    scale = np.where(taken > before, before / np.maximum(taken, 1e-6), 1)
    parts = {tissue: (part * scale).astype(np.float32) for tissue, part in parts.items()}
    taken = sum(parts.values())
    left = np.clip((before - taken) / np.maximum(before, 1e-6), 0, 1)
    shares = {tissue: (share * left).astype(np.float32) for tissue, share in head.shares.items()}
    # Folds of the brain do not shine through a core.
    core = sum(parts[tissue] for tissue in CORE)
    texture = head.texture * (1 - core)
    return replace(head, shares={**shares, **parts}, texture=texture.astype(np.float32))


def label(head: Head) -> np.ndarray:
    """Outline a tumour as a reader would: (D, H, W) uint8 of 0, 1, 2 and 4."""
    width = _OUTLINE_MM / head.spacing_mm
    core, rim, oedema = (
        ndimage.gaussian_filter(np.asarray(part, np.float32), width)
        for part in (
            sum(head.shares[tissue] for tissue in CORE),
            head.shares[Tissue.RIM],
            head.shares[Tissue.OEDEMA],
        )
    )
    labels = np.zeros(head.brain.shape, np.uint8)
    labels[(core + oedema > 0.5) & head.brain] = OEDEMA_LABEL
    in_core = (core > 0.5) & head.brain
    labels[in_core] = NECROSIS_LABEL
    labels[in_core & (rim > 0.5 * core)] = RIM_LABEL
    return labels


def _share(head: Head, tissue: Tissue) -> np.ndarray:
    return head.shares.get(tissue, np.zeros(head.brain.shape, np.float32))
