"""What takes long is made once: a healthy head on a coarse grid, and a few cases of 6 mm."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.phantom.case import has_rim
from bundle.phantom.icbm152.case import make_case
from bundle.phantom.icbm152.person import draw_person, grow_person

SPACING = 4.0
SHAPE = (42, 54, 42)
COARSE = (6.0, 6.0, 6.0)


@pytest.fixture(scope="session")
def head():
    """The healthy head of seed 3, 4 mm."""
    rng = np.random.default_rng(3)
    return grow_person(rng, draw_person(rng), SHAPE, SPACING)


@pytest.fixture(scope="session")
def cases():
    """Seed to images and labels: six cases of 6 mm, one of them without a rim."""
    without = next(seed for seed in range(99) if not has_rim(seed, "icbm152"))
    return {seed: make_case(seed, spacing_mm=COARSE) for seed in (*range(5), without)}
