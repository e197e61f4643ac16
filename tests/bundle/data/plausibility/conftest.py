"""A phantom case with a rim, made once."""

from __future__ import annotations

import pytest

from bundle.data.plausibility.coarse import parts_of
from bundle.phantom.case import has_rim, make_case
from bundle.regions import BRATS_REGIONS


@pytest.fixture(scope="package")
def head():
    """Images by modality and the label of a case of 32 voxels, difficulty one half."""
    assert has_rim(0)
    return make_case(0, 32, difficulty=0.5)


@pytest.fixture(scope="package")
def images(head):
    return head[0]


@pytest.fixture(scope="package")
def parts(head):
    return parts_of(head[1], BRATS_REGIONS)
