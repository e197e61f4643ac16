"""What a head is made of, voxel by voxel: the share of each tissue, and where the brain ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Tissue(IntEnum):
    """What a share of a voxel consists of; what no tissue fills is air."""

    FLUID = 1  # cerebrospinal fluid
    GREY = 2
    WHITE = 3
    VESSEL = 4  # blood that flows: takes up contrast agent
    DURA = 5  # meninges: take up contrast agent
    SPOT = 6  # a white-matter hyperintensity of age: bright on FLAIR, and no tumour
    OEDEMA = 7
    RIM = 8  # enhancing tumour
    NECROSIS = 9
    SOLID = 10  # core of a tumour that takes up no contrast agent
    BLOOD = 11  # haemorrhage within the tumour
    CALCIUM = 12  # calcification within the tumour
    BONE = 13
    SCALP = 14  # skin and fat
    EYE = 15  # vitreous body


@dataclass(frozen=True)
class Head:
    """One head on one grid; the array's axes point left, back and up.

    Attributes:
        shares: tissue -> (D, H, W) float32 in 0..1, the part of each voxel that it fills. Their sum
            is at most 1 and the rest is air.
        texture: (D, H, W) float32, mean about 0: the template's fine structure as a relative change
            of the signal.
        brain: (D, H, W) bool, True = what is left when the skull has been stripped.
        spacing_mm: edge of a voxel, mm; voxels are cubes.
    """

    shares: Mapping[Tissue, np.ndarray]
    texture: np.ndarray
    brain: np.ndarray
    spacing_mm: float
